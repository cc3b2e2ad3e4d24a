"""What a training run is asked for, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import InputError

Stop = Literal["epochs", "patience", "minutes"]


class Diverged(InputError):
    """A loss, a gradient or a weight became something that is not finite."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long to train, what to watch, and how."""

    max_epochs: int = 100
    """Passes over the training examples."""
    max_minutes: float | None = None
    """Wall minutes of the run, over all its calls, after which it is saved and ends; raise it to go on."""
    patience: int | None = None
    """Evaluations in a row without improvement after which training stops; none for never."""
    monitor: str = "loss"
    """Metric of the validation split that decides which weights are best."""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger monitored metric is better."""
    keep: Literal["best", "last"] = "best"
    """Which weights the run ends with: those that were best, or the last, whatever the evaluations say."""
    clip_norm: float | None = None
    """Largest 2-norm of the whole gradient; longer ones are shortened to it; none for no limit."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs the forward pass under autocast; weights and optimiser stay float32."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999, which is evaluated and kept in their place;
    none for none."""
    seed: int = 0
    """Decides everything random in training steps, such as dropout."""
    checkpoint_every_minutes: float = 0.5
    """Wall minutes between two saves of the training state; more where saving would take over 2 % of the time."""

    def __post_init__(self) -> None:
        _require(self.max_epochs >= 1, "max_epochs", self.max_epochs)
        _require(self.max_minutes is None or self.max_minutes > 0, "max_minutes", self.max_minutes)
        _require(self.patience is None or self.patience >= 1, "patience", self.patience)
        _require(self.mode in ("min", "max"), "mode", self.mode)
        _require(self.keep in ("best", "last"), "keep", self.keep)
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm)
        _require(self.precision in ("fp32", "bf16"), "precision", self.precision)
        _require(self.ema is None or 0 < self.ema < 1, "ema", self.ema)
        _require(self.checkpoint_every_minutes > 0, "checkpoint_every_minutes", self.checkpoint_every_minutes)


def _require(fits: bool, field_name: str, value: object) -> None:
    if not fits:
        raise InputError(f"{value!r} is out of range", where=field_name)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a call trained, in wall seconds."""

    step: float
    """Of an optimiser step with all that belongs to it, the batch included."""
    evaluation: float
    """Of an evaluation; 0 where there was none."""
    steps_an_epoch: int
    """Optimiser steps of an epoch."""

    @property
    def epoch(self) -> float:
        """Of an epoch and its evaluation."""
        return self.step * self.steps_an_epoch + self.evaluation


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run came to. The task's model holds the best weights, or the last ones without validation."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One record an epoch: epoch (from 1), step, seconds, train_loss (and train_<name>), validation metrics. Where the
    minutes ended within an epoch the last record is of its part until then."""
    best: float | None = None
    """Best value of the monitored metric; none without validation."""
    best_epoch: int | None = None
    """Epoch (from 1) in which the best value was reached."""
    stopped_by: Stop = "epochs"
    """What ended the run."""
    steps: int = 0
    """Optimiser steps of the whole run, over all calls."""
    seconds: float = 0.0
    """Wall seconds of the whole run, over all calls."""
    seconds_to_best: float | None = None
    """Wall seconds until the best evaluation was done."""
    pace: Pace = field(default=Pace(step=0.0, evaluation=0.0, steps_an_epoch=0), compare=False)
    """Of this call; zeros where it had nothing left to do."""
