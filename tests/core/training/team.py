"""Processes that train a small run together, for the tests of this folder; as a program, one of them or the launcher.

::

    team.py launch JOB FOLDER     start two processes of the job, as a verb does
    team.py JOB FOLDER            one of them: its results go to FOLDER/JOB-RANK.pt
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import core.training.run
from core.command import run
from core.command.launch import launch
from core.norm import BatchNorm, UnifiedNorm
from core.norm.pooled import pooled
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings, Interrupted, Loader, Task, TensorBatches, fit, together
from core.training.group import current

EXAMPLES, BATCH, EPOCHS = 31, 5, 4
STEPS = EPOCHS * 7
"""Seven batches an epoch, the last of a single example: one of two processes has nothing of its own in it."""


class Padded(TensorBatches):
    """Sequences of one to four tokens, padded with what must not matter."""

    def __getitem__(self, indices):
        batch = super().__getitem__(indices)
        mask = torch.arange(4) < batch["length"][:, None]
        return {**batch, "x": batch["x"].masked_fill(~mask[..., None], 1e3), "mask": mask}


def examples(count: int, seed: int) -> Padded:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, 5, generator=generator)
    length = torch.randint(1, 5, (count,), generator=generator)
    return Padded({"x": x, "length": length, "y": x[:, 0, 0] * x[:, 0, 1] + x[:, 0, 2]})


class Net(nn.Module):
    """A batch norm over real tokens, units that are divided, parameters too short to be, and one that is never used.

    No bias before the norm, whose gradient is zero but for rounding: Adam would make steps of that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7, bias=False)
        self.norm = BatchNorm(7)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(7, 7), nn.Tanh()) for _ in range(3))
        self.last = nn.Linear(7, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x, mask):
        hidden = self.norm(self.first(x), mask)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return (self.last(hidden).squeeze(-1) * mask).sum(1)


class Team(Task):
    def __init__(self, on_step=None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.model = Net()
        self.on_step = on_step or (lambda step: None)
        self.steps, self.seen = 0, []

    def training_loss(self, batch):
        self.on_step(self.steps)
        self.steps += 1
        self.seen.append(batch["y"].tolist())
        errors = self._errors(batch)
        return {"loss": errors.square().mean(), "size": errors.abs().mean()}

    def evaluate(self, batches):
        errors = torch.cat([self._errors(batch) for batch in batches])
        return {"mse": errors.square().mean().item(), "worst": errors.abs().max().item()}

    def _errors(self, batch):
        return self.model(batch["x"], batch["mask"]) - batch["y"]


def train(directory=None, *, on_step=None, workers=0, **fields):
    """One call of fit; the task and the result."""
    task = Team(on_step)
    result = fit(
        task,
        train=Loader(examples(EXAMPLES, 1), BATCH, seed=11, shuffle=True, workers=workers),
        valid=Loader(examples(17, 2), 6, shuffle=False),
        optimizer=OptimConfig(lr=0.01).build(task.model),
        schedule=ScheduleConfig(warmup=0.2).build(STEPS),
        settings=FitSettings(**{"max_epochs": EPOCHS, "monitor": "mse", "ema": 0.9, "clip_norm": 1.0, **fields}),
        directory=directory,
        progress="off",
    )
    return task, result


def stopped(directory, step, rank=1, **fields) -> None:
    """Train until a signal arrives, at one process only, in the given step."""

    def on_step(now: int) -> None:
        if now == step and current().rank == rank:
            signal.raise_signal(signal.SIGTERM)

    try:
        train(directory, on_step=on_step, **fields)
    except Interrupted:
        return
    raise AssertionError("the signal was not heard")


def outcome(task, result) -> dict[str, Any]:
    """All that equal runs share: everything but the clock."""
    history = [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]
    weights = {name: value.clone() for name, value in task.model.state_dict().items()}
    ends = (result.best, result.best_epoch, result.steps, result.stopped_by)
    return {"history": history, "ends": ends, "weights": weights, "steps": task.steps, "seen": task.seen}


# --------------------------------------------------------------------------------------------- what a process does


def straight(folder: Path) -> dict[str, Any]:
    """The same run by either strategy, unbroken and stopped; what a first call of two left for others to go on with."""
    found: dict[str, Any] = {"norm": norms(), "unified": unified_together()}
    for strategy in ("ddp", "fsdp"):
        with together(strategy):
            found[strategy] = outcome(*train(folder / f"{strategy}-whole"))
            stopped(folder / strategy, 2)
            stopped(folder / strategy, 8, rank=0)
            found[f"{strategy}-resumed"] = outcome(*train(folder / strategy, workers=1 if strategy == "ddp" else 0))
            found[f"{strategy}-minutes"] = [
                train(folder / f"{strategy}-minutes", max_minutes=1e-9)[1].steps for _ in range(3)
            ]
    with together("ddp"):
        stopped(folder / "chain", 4)
    return found


def onwards(folder: Path) -> dict[str, Any]:
    """Go on with a run of one process: divided, then not."""
    with together("fsdp"):
        stopped(folder / "chain", 3)
    with together("ddp"):
        return outcome(*train(folder / "chain"))


def slow(folder: Path) -> dict[str, Any]:
    """A run that saves after every step, says which it is at, and takes its time."""
    core.training.run.SHARE_FOR_SAVING = 1e9

    def on_step(step: int) -> None:
        if current().rank == 0:
            (folder / "at").write_text(str(step))
        time.sleep(0.05)

    with together("ddp"):
        (folder / f"pid-{current().rank}").write_text(str(os.getpid()))
        return outcome(*train(folder / "slow", on_step=on_step, checkpoint_every_minutes=1e-9))


NORM_PARTS = [(3, 4), (5, 0), (1, 0), (0, 0), (2, 3)]
"""Rows of either process; in the last case those of the second do not count."""


def norm_rows(case: int) -> torch.Tensor:
    rows = torch.randn(sum(NORM_PARTS[case]), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(case))
    return 2 + 3 * rows


def norms() -> list[dict[str, Any]]:
    """Batch norms of parts of a batch."""
    found = []
    for case, parts in enumerate(NORM_PARTS):
        rank = dist.get_rank()
        norm = BatchNorm(3, momentum=0.3).double()
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        rows = norm_rows(case).split(parts)[rank].clone().requires_grad_()
        goes_along = case == len(NORM_PARTS) - 1 and rank == 1
        with pooled(rows_count=not goes_along):
            y = norm(rows)
            (y.pow(3).sum() * (0 if goes_along else 1)).backward()
        grads = [rows.grad, norm.weight.grad, norm.bias.grad]
        found.append({"y": y.detach(), "grads": grads, "running": [norm.running_mean, norm.running_var]})
    return found


UNIFIED_STEPS = 9
"""Of which the window of four batches is full, and the warm-up over, from the fifth on."""


def unified_rows(step: int) -> torch.Tensor:
    return (1 + step) * torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(40 + step))


def unified(parts: tuple[int, ...], rank: int) -> list[dict[str, Any]]:
    """Steps of a unified norm of a part of each batch; rows beyond the last part do not count."""
    norm = UnifiedNorm(3, warmup=4, momentum=0.3).double()
    found = []
    for step in range(UNIFIED_STEPS):
        norm.at_step(step, of=100)
        norm.zero_grad()
        rows = unified_rows(step)[: sum(parts)].split(parts)[rank].clone().requires_grad_()
        y = norm(rows)
        y.pow(3).sum().backward()
        grads = [rows.grad, norm.weight.grad.clone(), norm.bias.grad.clone()]
        state = {name: value.clone() for name, value in norm.state_dict().items()}
        found.append({"y": y.detach(), "grads": grads, "state": state})
    return found


def unified_together() -> list[dict[str, Any]]:
    with pooled(rows_count=True):
        return unified((3, 4), dist.get_rank())


JOBS = {"straight": straight, "onwards": onwards, "slow": slow}


def main(argv: list[str]) -> int:
    if argv[0] == "launch":
        command = [sys.executable, __file__, *argv[1:]]
        return launch(command, 2, last=Path(argv[2]) / "slow")
    job, folder = argv[0], Path(argv[1])
    torch.set_num_threads(1)
    if job != "slow":
        dist.init_process_group("gloo")  # one for all that is trained here
    found = JOBS[job](folder)
    torch.save(found, folder / f"{job}-{os.environ['RANK']}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
