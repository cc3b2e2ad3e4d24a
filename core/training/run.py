"""A training run as a state machine: what happens in a step, after it, and at the end of an epoch.

Everything a run depends on is in :class:`State`, which is plain numbers, beside the weights and the optimiser. The
engine only feeds batches to :meth:`Run.step`; it keeps no counter that matters. Saving those three and going on from
there therefore gives the unbroken run, at any step.

Where several processes train together (:mod:`.group`) each has a part of every batch, and they go in step: what their
losses were, whether a signal came to one of them, what the clock of the first says, is exchanged once a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from core.clock import stepped
from core.errors import InputError, nearest
from core.training.average import Average
from core.training.exchange import Exchange, Shares
from core.training.group import Group
from core.training.interrupt import Signals
from core.training.loader import Loader
from core.training.progress import Progress
from core.training.randomness import Use, derive, reseed
from core.training.settings import Diverged, FitSettings, Pace, Stop
from core.training.sharding import Sharded, own, whole
from core.training.state import Keeper, Part, State
from core.training.task import Task

# Of a run's time, what saving it may take.
SHARE_FOR_SAVING = 0.02


class _LeftEvaluation(Exception):
    """A signal arrived during an evaluation, which a resumed run starts again."""


class Run:
    """One call of ``fit``.

    Args:
        backward: filled in by the engine: the backward pass of a loss.
        move: filled in by the engine: a batch, moved to the model's device.
        sharded: filled in by the engine where the model is divided among processes.
    """

    def __init__(
        self,
        task: Task,
        train: Loader,
        valid: Loader | None,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float],
        settings: FitSettings,
        signals: Signals,
        progress: Progress,
        group: Group,
        started: float,
    ) -> None:
        self.task, self.train, self.valid = task, train, valid
        self.optimizer, self.schedule, self.settings = optimizer, schedule, settings
        self.signals, self.progress, self.group = signals, progress, group
        self.state = State()
        self.average = None if settings.ema is None else Average(task.model, settings.ema)
        self.best_weights: dict[str, Tensor] | None = None
        self.sharded: Sharded | None = None
        self.part: Part | None = None
        self.keeper: Keeper | None = None
        self.stopped_by: Stop | None = None
        self.backward: Callable[[Tensor], None] = torch.Tensor.backward
        self.move: Callable[[Any], Any] = lambda batch: batch
        self._started, self._base_seconds = started, 0.0
        self._steps = 0
        self._evaluations: list[float] = []
        self.exchange = Exchange(group, signals, self._minutes_are_up, self._save_is_due)
        self._shares = Shares(group, train)
        self._save_next = started + 60 * settings.checkpoint_every_minutes
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.stepped, self.steps = stepped(task.model), settings.max_epochs * len(train)

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def remaining(self) -> int:
        """Batches until the last epoch's end."""
        return (self.settings.max_epochs - self.state.epoch) * len(self.train) - self.state.batch

    def restore(self, state: State, best_weights: dict[str, Tensor] | None) -> None:
        """Go on from ``state``; the model, its average and the optimiser have been restored by the caller.

        ``best_weights`` are None when there are none, or when the present ones are the best.
        """
        self.state, self._base_seconds = state, state.seconds
        self.best_weights = best_weights
        if best_weights is None and state.best is not None:
            with self._averaged():
                self._keep_weights()

    def over(self) -> bool:
        """Whether epochs, patience or minutes are used up."""
        state, settings = self.state, self.settings
        if state.epoch >= settings.max_epochs:
            self.stopped_by = "epochs"
        elif settings.patience is not None and state.stale >= settings.patience:
            self.stopped_by = "patience"
        elif self.exchange.minutes_up:
            self.stopped_by = "minutes"
        return self.stopped_by is not None

    def _spent(self) -> float:
        """Seconds of this call; every call is allowed a step, so that calls of any length come to an end together."""
        return time.monotonic() - self._started if self._steps else 0.0

    def pace(self) -> Pace:
        """How fast this call went, from its beginning until now; saving counts with the steps."""
        steps, evaluating = self._steps, sum(self._evaluations)
        return Pace(
            step=(self._spent() - evaluating) / max(1, steps),
            evaluation=evaluating / max(1, len(self._evaluations)),
            steps_an_epoch=len(self.train),
        )

    def begin(self) -> bool:
        """Prepare, and finish what an interrupted evaluation left; whether to stop."""
        self.task.model.train()
        if self.average is not None:
            self.average.follow_device()
        self.exchange.totals()
        return self._after_step() if self.state.batch == len(self.train) else self._should_stop()

    def step(self, batch: Any) -> bool:
        """One optimiser step on ``batch``, this process's part of it, and what follows it; whether to stop."""
        state, settings = self.state, self.settings
        share = self._shares.of(state.epoch, state.batch)
        self._steps += 1
        reseed(derive(settings.seed, Use.STEP, state.step, self.group.rank))
        factor = self.schedule(state.step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        for module in self.stepped:
            module.at_step(state.step, self.steps)
        with self._autocast(), self._shares.pooled(share):
            losses = self.task.training_loss(batch)
        values = self._whole(losses, share)
        self._check_finite(values["loss"], "loss")
        self.optimizer.zero_grad(set_to_none=True)
        self._go_back(losses["loss"], share)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(state.step)
        state.step += 1
        state.batch += 1
        for name, value in values.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        self.progress.step(state.step, values["loss"])
        return self._after_step()

    def _whole(self, losses: Mapping[str, Tensor], share: float) -> dict[str, float]:
        """The losses of the whole batch: means over its examples."""
        values = [share * float(loss.detach()) for loss in losses.values()]
        return dict(zip(losses, self.exchange.totals(values), strict=True))

    def _go_back(self, loss: Tensor, share: float) -> None:
        """Gradients of the loss of the whole batch, shortened where they are too long."""
        # The engine takes the mean of the processes' gradients: of the parts' losses, weighted by their share.
        self.backward(loss if self.group.size == 1 else loss * (share * self.group.size))
        limit = self.settings.clip_norm
        if limit is not None:
            norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
            self._check_finite(float(whole(norm)), "gradient norm")

    def _minutes_are_up(self) -> bool:
        minutes = self.settings.max_minutes
        return minutes is not None and self._spent() >= 60 * minutes

    def _save_is_due(self) -> bool:
        return self.keeper is not None and time.monotonic() >= self._save_next

    def restore_rates(self) -> None:
        """Give the optimiser's groups the rates they came with."""
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate

    def finish(self) -> None:
        """Leave the model with its best weights, in evaluation mode, and no gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        present_are_best = self.part is not None and self.part.improved
        if self.best_weights is not None and not present_are_best:
            self.task.model.load_state_dict(self.best_weights)
        elif self.average is not None:
            self.average.settle()
        if self.sharded is not None:
            self.sharded.end()
        self.task.model.eval()

    def _after_step(self) -> bool:
        if self.state.batch == len(self.train):
            try:
                self._end_epoch()
            except _LeftEvaluation:
                return True
            self.exchange.totals()
        return self._should_stop()

    def _should_stop(self) -> bool:
        if self.group.size == 1:
            self.exchange.totals()  # at no cost; of several processes the exchange within the step has to do
        if self.exchange.signal is not None:
            return True
        if self.over():
            if self.stopped_by == "minutes":
                self._evaluate_part()
            return True
        if self.exchange.save_due:
            self.save()
        return False

    def save(self) -> None:
        """Save the run, if it has a directory, and never weights that are not finite."""
        if self.keeper is None:
            return
        begun = time.monotonic()
        self.tick()
        self._check_weights()
        self.keeper.save(self)
        now = time.monotonic()
        self._save_next = now + max(60 * self.settings.checkpoint_every_minutes, (now - begun) / SHARE_FOR_SAVING)

    def tick(self) -> None:
        """Bring the state's clock up to date."""
        self.state.seconds = self._base_seconds + time.monotonic() - self._started

    def _end_epoch(self) -> None:
        state = self.state
        with self._averaged():
            record, metrics = self._measure()
            improved = metrics is not None and self._judge(metrics)
        state.history.append(record)
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, {}
        self.progress.evaluated(record, improved)
        if self.keeper is not None:
            self.keeper.record(self, improved)

    def _evaluate_part(self) -> None:
        """Evaluate what the epoch has come to so far; a signal leaves it at that."""
        if self.valid is None or self.state.batch == 0:
            return
        try:
            with self._averaged():
                record, metrics = self._measure()
        except _LeftEvaluation:
            return
        assert metrics is not None
        value = self._monitored(metrics)
        self.part = Part(record, value, self._is_better(value))
        self.progress.evaluated(record, self.part.improved)

    def _measure(self) -> tuple[dict[str, Any], dict[str, float] | None]:
        """The record of the epoch so far, and the validation metrics in it."""
        state = self.state
        self._check_weights()
        record: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step, "seconds": 0.0}
        record |= {f"train_{name}": total / state.batch for name, total in state.sums.items()}
        metrics = None if self.valid is None else self._evaluate(self.valid)
        self.tick()
        return {**record, **(metrics or {}), "seconds": state.seconds}, metrics

    def _evaluate(self, valid: Loader) -> dict[str, float]:
        begun = time.monotonic()
        model = self.task.model
        model.eval()
        reseed(derive(self.settings.seed, Use.EVALUATION, self.state.epoch, 0))
        # Not inference mode: a model may keep what it computes here (a table of positions), and train with it later.
        with torch.no_grad(), self._autocast():
            metrics = self.task.evaluate(self._until_signal(valid))
        model.train()
        self._evaluations.append(time.monotonic() - begun)
        # All processes evaluate the whole split, and believe the first: one rounding less would part their ways.
        return dict(zip(metrics, self.group.first([float(value) for value in metrics.values()]), strict=True))

    def _until_signal(self, valid: Loader) -> Iterator[Any]:
        for batch in valid:
            self.exchange.totals()
            if self.exchange.signal is not None:
                raise _LeftEvaluation
            yield self.move(batch)

    def _judge(self, metrics: dict[str, float]) -> bool:
        """Note whether the monitored metric improved, and keep the weights if so."""
        state, value = self.state, self._monitored(metrics)
        if not self._is_better(value):
            state.stale += 1
            return False
        state.best, state.best_epoch, state.best_step = value, state.epoch + 1, state.step
        state.stale, state.seconds_to_best = 0, state.seconds
        self._keep_weights()
        return True

    def _monitored(self, metrics: dict[str, float]) -> float:
        name = self.settings.monitor
        if name not in metrics:
            raise InputError(f"the task reports no {name!r}", where="monitor", mend=nearest(name, list(metrics)))
        return metrics[name]

    def _is_better(self, value: float) -> bool:
        if self.settings.keep == "last":
            return True
        best, sign = self.state.best, 1 if self.settings.mode == "max" else -1
        return not math.isnan(value) and (best is None or sign * value > sign * best)

    def _averaged(self) -> AbstractContextManager[Any]:
        """The model with the weights that are evaluated and kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _keep_weights(self) -> None:
        weights = self.task.model.state_dict()
        if self.best_weights is None:
            self.best_weights = {name: value.detach().clone() for name, value in weights.items()}
        else:
            for name, value in weights.items():
                self.best_weights[name].copy_(value)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._parameters[0].device.type, dtype=torch.bfloat16)

    def _check_weights(self) -> None:
        """A gradient can overflow where the loss did not: such weights are neither saved nor evaluated."""
        wrong = any(not bool(torch.isfinite(own(parameter)).all()) for parameter in self._parameters)
        if any(self.group.total([wrong])):
            self._check_finite(math.nan, "largest weight")

    def _check_finite(self, value: float, what: str) -> None:
        if math.isfinite(value):
            return
        raise Diverged(
            f"the {what} became {value} at step {self.state.step} (epoch {self.state.epoch + 1})",
            mend="lower the learning rate, lengthen the warm-up, set clip_norm, or check the data for extreme values; "
            "what was saved before is intact",
        )
