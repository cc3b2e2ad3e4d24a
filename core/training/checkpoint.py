"""A run on disk: the state to go on from, the best weights, and a line an epoch.

::

    DIRECTORY/last            weights, their average, optimiser, position, best weights so far: all that a resumed run
                              needs
    DIRECTORY/best            the best weights alone, for whoever wants the model while it still trains
    DIRECTORY/metrics.jsonl   the history, one JSON object a line

``last`` is complete in itself and replaced in one step, so it never depends on what happens to ``best``. It also
carries the run's fingerprint: every setting that decides the weights. A setting outside it may differ on a later call,
because the run so far would have been the same: ``max_epochs``, ``max_minutes``, ``patience``,
``checkpoint_every_minutes``, worker processes; and, but for rounding, the number of processes that train together, and
how they divide the work: tensors are saved whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.artefact import load, replace_file, save
from core.artefact.disk import cannot_write, remove_quietly
from core.errors import InputError
from core.training.group import Group
from core.training.run import Run
from core.training.sharding import gathered
from core.training.state import Part, State

KIND = "training-state"
KIND_BEST = "training-best"
VERSION = 1

# Writing the best weights may take this share of the run's time; improvements beyond it wait for the next save.
_SHARE_FOR_BEST = 0.02


class Checkpoints:
    """Keeps one run in one directory.

    Of several processes that train together all read it, and the first writes; all go through the same calls, as what
    is divided among them must be put together.

    Raises:
        InputError: from any method, when the directory cannot be written (the previous state stays intact).
    """

    def __init__(self, directory: Path, group: Group) -> None:
        self.directory, self._group = directory, group
        self._writes = group.rank == 0
        self.last, self.best, self.metrics = directory / "last", directory / "best", directory / "metrics.jsonl"
        self._best_is_due = False
        self._seconds_for_best = 0.0

    def resume(self, run: Run) -> None:
        """Bring ``run`` to where the directory's run stands, if there is one.

        Raises:
            InputError: the directory holds a run with other settings, or is damaged.
        """
        if (self.last / "artefact.json").exists():
            tree: Any = load(self.last, kind=KIND, version=VERSION)
            try:
                _compare(tree["fingerprint"], fingerprint(run), self.directory)
                run.task.model.load_state_dict(tree["model"])
                groups = run.optimizer.state_dict()["param_groups"]
                run.optimizer.load_state_dict({"state": tree["optimizer"], "param_groups": groups})
                if run.average is not None:
                    run.average.restore(tree["average"])
                run.restore(State(**tree["state"]), tree["best"])
            except (KeyError, TypeError, AttributeError, RuntimeError) as error:
                # Whole as a file, but of another form than ours.
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                what, mend = f"holds no state of a training ({reason})", "choose another directory"
                raise InputError(what, where=str(self.last), mend=mend) from error
            # What lies in `best` may come from after this state: a killed run goes on writing it.
            self._best_is_due = run.best_weights is not None
        run.keeper = self

    def begin(self, run: Run) -> None:
        """Rewrite the metrics file as of this state: epochs that will be repeated are dropped from it."""
        if self._writes:
            replace_file(self.metrics, "".join(map(_line, run.state.history)))

    def save(self, run: Run) -> None:
        """Write ``last``, after ``best`` if that is due: a finished ``last`` implies the right ``best``."""
        if self._best_is_due:
            self._write_best_so_far(run)
        state = run.state
        weights_are_best = state.best_step == state.step
        tree = {
            "fingerprint": fingerprint(run),
            "state": dataclasses.asdict(state),
            "model": _tensors(run.task.model),
            "optimizer": run.optimizer.state_dict()["state"],
            "best": None if weights_are_best else run.best_weights,
        }
        if run.average is not None:
            tree["average"] = run.average.values
        self._save(self.last, tree, KIND)

    def record(self, run: Run, improved: bool) -> None:
        """Append the newest record, and write the best weights if that is cheap enough."""
        self._append(run.state.history[-1])
        self._best_is_due |= improved
        (is_cheap,) = self._group.first([self._seconds_for_best <= _SHARE_FOR_BEST * run.state.seconds])
        if self._best_is_due and is_cheap:
            self._write_best_so_far(run)

    def conclude(self, run: Run, part: Part) -> None:
        """Write down an evaluation in mid-epoch, with the weights ``run`` has finished with if they are the best.

        A later call, which goes on without it, puts both files back to what its state says.
        """
        self._append(part.record)
        if part.improved:
            self._write_best(run, _tensors(run.task.model), part.value, part.record["epoch"])

    @contextmanager
    def saved_or_nothing(self) -> Iterator[None]:
        """A run that fails before its first save leaves nothing behind, nor the folders that were made for it."""
        made = [folder for folder in (self.directory, *self.directory.parents) if not folder.exists()]
        try:
            yield
        except BaseException:
            if self._writes and not (self.last / "artefact.json").exists():
                self._clear(made)
            raise

    def _clear(self, made: Sequence[Path]) -> None:
        for folder in (self.last, self.best):
            for file in (*folder.glob("artefact*"), *folder.glob(".artefact*")):
                remove_quietly(file)
        remove_quietly(self.metrics)
        for folder in (self.last, self.best, *made):
            with suppress(OSError):
                folder.rmdir()

    def _save(self, folder: Path, tree: dict[str, Any], kind: str) -> None:
        kept = gathered(tree, keep=self._writes)
        if self._writes:
            save(folder, kept, kind=kind, version=VERSION)

    def _append(self, record: Mapping[str, Any]) -> None:
        if not self._writes:
            return
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(_line(record))
        except OSError as error:
            raise cannot_write(self.metrics, error) from error

    def _write_best_so_far(self, run: Run) -> None:
        assert run.best_weights is not None
        self._write_best(run, run.best_weights, run.state.best, run.state.best_epoch)
        self._best_is_due = False

    def _write_best(self, run: Run, weights: Mapping[str, Tensor], value: float | None, epoch: int | None) -> None:
        started = time.monotonic()
        tree = {"model": dict(weights), "metric": run.settings.monitor, "value": value, "epoch": epoch}
        self._save(self.best, tree, KIND_BEST)
        self._seconds_for_best += time.monotonic() - started


def saved_step(directory: Path) -> int | None:
    """Steps of the state that was saved last in ``directory`` or in a folder within it; None where there is none."""
    # Another process may be replacing them.
    with suppress(OSError):
        files = sorted(directory.rglob("artefact.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files:
            document = json.loads(file.read_text())
            if document.get("kind") == KIND:
                return int(document["tree"]["state"]["step"])
    return None


def fingerprint(run: Run) -> dict[str, Any]:
    """What decides the weights of a run, by names a person knows."""
    settings, train, valid = run.settings, run.train, run.valid
    weights = _tensors(run.task.model)
    shapes = json.dumps([(name, list(value.shape), str(value.dtype)) for name, value in weights.items()])
    marks: dict[str, Any] = {
        "seed": settings.seed,
        "order seed": train.seed,
        **train.batching.marks(),
        "shuffle": train.shuffle,
        "training examples": len(train.dataset),
        "validation examples": len(valid.dataset) if valid else None,
        "parameters": sum(parameter.numel() for parameter in run.task.model.parameters()),
        "model layout": hashlib.sha256(shapes.encode()).hexdigest()[:12],
        "monitor": settings.monitor,
        "keep": settings.keep,
        "mode": settings.mode,
        "clip_norm": settings.clip_norm,
        "precision": settings.precision,
        "ema": settings.ema,
    }
    if run.stepped:
        marks["steps in all, which the model follows"] = run.steps
    for number, (group, rate) in enumerate(zip(run.optimizer.param_groups, run.base_rates, strict=True)):
        name = group.get("name", number)
        marks[f"parameters of {name}"] = sum(parameter.numel() for parameter in group["params"])
        marks |= {f"{key} of {name}": _plain(value) for key, value in group.items() if key not in _NOT_HYPER}
        marks[f"lr of {name}"] = float(rate)
    marks["schedule"] = [float(run.schedule(0)), *(float(run.schedule(2**power)) for power in range(21))]
    return marks


_NOT_HYPER = ("params", "param_names", "name", "lr", "initial_lr")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> None:
    for name in [*before, *(name for name in now if name not in before)]:
        if before.get(name) == now.get(name):
            continue
        change = f"{name} was {before.get(name)} when this run began and is {now.get(name)}"
        mend = "give the former value, or another directory"
        if name == "schedule":
            change = "the learning-rate schedule is not the one this run began with"
            mend = "one that depends on the number of epochs needs the former max_epochs; or give another directory"
        raise InputError(change, where=str(directory), mend=mend)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


def _line(record: Mapping[str, Any]) -> str:
    """One line of JSON; a number that JSON has no word for becomes null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    return json.dumps(finite) + "\n"
