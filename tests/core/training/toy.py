"""A small run with every source of randomness, for the tests of this folder; as a program, the children's side."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import core.training.run
from core.errors import InputError
from core.optim import OptimConfig, ScheduleConfig
from core.training import ByLength, FitSettings, Interrupted, Loader, Task, TensorBatches, fit

EPOCHS = 4
TRAIN, VALID, BATCH = 37, 23, 8
STEPS = EPOCHS * 5


class Noisy(TensorBatches):
    """Draws from all three global generators while it builds a batch."""

    def __getitem__(self, indices):
        batch = super().__getitem__(indices)
        noise = 0.01 * (torch.rand(()).item() + np.random.rand() + random.random())  # noqa: NPY002
        return {**batch, "x": batch["x"] + noise}


class Toy(Task):
    def __init__(self, on_step: Callable[[int], None] | None = None, width: int = 6) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.model = nn.Sequential(
                nn.Linear(5, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 1)
            )
        self.on_step = on_step or (lambda step: None)
        self.steps = 0

    def training_loss(self, batch):
        self.on_step(self.steps)
        self.steps += 1
        loss = (self.model(batch["x"]).squeeze(1) - batch["y"]).square().mean()
        return {"loss": loss, "size": torch.tensor(float(len(batch["y"])))}

    def evaluate(self, batches):
        assert not self.model.training
        assert not torch.is_grad_enabled()
        errors = torch.cat([(self.model(batch["x"]).squeeze(1) - batch["y"]).square() for batch in batches])
        return {"mse": errors.mean().item(), "worst": errors.max().item()}


class Ragged(Noisy):
    """Rows repeated to a length of each row's own, and padded to the longest of a batch; draws noise as well."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.lengths = 1 + torch.arange(len(self)) * 7 % 12

    def __getitem__(self, indices):
        batch, lengths = super().__getitem__(indices), self.lengths[indices]
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        times = batch["x"][:, None] + 0.1 * torch.rand(*mask.shape, 5)
        return {**batch, "x": (times * mask[..., None]).sum(1) / lengths[:, None]}


def rows(count: int, seed: int) -> Noisy:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=generator)
    return Noisy({"x": x, "y": x[:, 0] * x[:, 1] + x[:, 2]})


def train(
    directory=None,
    *,
    task=None,
    count=TRAIN,
    batch_size=BATCH,
    lr=0.05,
    workers=0,
    total=STEPS,
    progress="off",
    budget=None,
    **fields,
):
    """One call of fit, on ragged rows where there is a budget; gives the task and the result."""
    task = task or Toy()
    fields = {"max_epochs": EPOCHS, "monitor": "worst", **fields}
    data, batching = rows(count, 1), batch_size
    if budget is not None:
        data = Ragged(data.tensors)
        batching = ByLength(data.lengths, budget)
    result = fit(
        task,
        train=Loader(data, batching, seed=11, shuffle=True, workers=workers),
        valid=Loader(rows(VALID, 2), 10, shuffle=False),
        optimizer=OptimConfig(lr=lr).build(task.model),
        schedule=ScheduleConfig(warmup=0.2).build(total),
        settings=FitSettings(**fields),
        directory=directory,
        progress=progress,
    )
    return task, result


def outcome(task, result):
    """All that two equal runs share: everything but the clock."""
    history = [{name: value for name, value in record.items() if name != "seconds"} for record in result.history]
    weights = {name: value.tolist() for name, value in task.model.state_dict().items()}
    return history, result.best, result.best_epoch, result.steps, result.stopped_by, weights


# ------------------------------------------------------------------------------------------------- child processes


def child(directory: Path, report: int, limit: int | None, at: int) -> None:
    """Train, saving after every step, and leave with the status that a command would have."""
    core.training.run.SHARE_FOR_SAVING = 1e9

    def starve() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def on_step(step: int) -> None:
        os.write(report, b".")
        if limit is not None and step == at:
            starve()

    if limit is not None and at == 0:
        starve()  # before anything is saved
    status = 0
    try:
        train(directory, task=Toy(on_step), checkpoint_every_minutes=1e-9)
    except Interrupted:
        status = 130
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        status = 2
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)


def run_child(
    directory: Path, *, after: int = 0, number: int | None = None, limit: int | None = None, at: int = 7
) -> int:
    """Fork a training child; after so many of its steps send it a signal. Gives its exit status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(directory, writer, limit, at)
    os.close(writer)
    seen = 0
    while chunk := os.read(reader, 1 if seen < after else 65536):
        seen += len(chunk)
        if number is not None and seen == after:
            os.kill(pid, number)
            number = None
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(directory: Path) -> None:
    """Kill, signal and starve runs in three folders; prints the exit statuses of their processes."""
    import core.training.adapter  # noqa: F401  before the forks: it takes seconds

    draw = random.Random(5)
    statuses: dict[str, list[int]] = {"kill": [], "signal": [], "full": [], "never": []}
    while not statuses["kill"] or statuses["kill"][-1] != 0:
        status = run_child(directory / "kill", after=draw.randint(2, 7), number=signal.SIGKILL)
        statuses["kill"].append(status)
    while not statuses["signal"] or statuses["signal"][-1] == 130:
        number = draw.choice([signal.SIGTERM, signal.SIGINT])
        statuses["signal"].append(run_child(directory / "signal", after=6, number=number))
    statuses["full"].append(run_child(directory / "full", limit=600))
    statuses["never"].append(run_child(directory / "never" / "deep", limit=600, at=0))
    sys.stdout.write(json.dumps(statuses))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
