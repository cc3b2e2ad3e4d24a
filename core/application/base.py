"""The contract of an application: how it reads data, makes a network, trains it and scores it.

Whatever is built on training (the verb ``train``, a queue of runs that compares switches, a search for settings) talks
to this and to nothing else of an application. Data flow one way: source -> data -> network -> trained model -> scores.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Shaped
from torch import Tensor, nn

from core.command import RunDirectory
from core.errors import InputError
from core.evaluation.metrics import Metric
from core.optim import OptimConfig, ScheduleConfig
from core.rewrite import Rewrite
from core.training import FitResult, FitSettings, Pace, Progress
from core.training.progress import ProgressName

PROBE_SHARE, PROBE_MINUTES = 0.1, 0.5
"""Wall minutes of the run that :meth:`Application.within` measures: this share of the budget, and at most so many."""
WARM_UP_MINUTES = 0.02
"""The first steps of a process import and allocate: their time says nothing."""
FILLED = 0.95
"""Of a budget, what the estimated epochs may fill."""
_MANY = 10**6


@runtime_checkable
class Config(Protocol):
    """What the config of every application has, besides what is its own."""

    @property
    def fit(self) -> FitSettings:
        """Length of a run."""

    @property
    def optim(self) -> OptimConfig:
        """Optimiser."""

    @property
    def schedule(self) -> ScheduleConfig:
        """Learning rate over the run."""

    @property
    def seed(self) -> int:
        """Decides everything random in training; never how data are divided."""


@runtime_checkable
class Saved(Protocol):
    """A trained model."""

    config: Any
    """The settings that it was trained with."""

    @property
    def networks(self) -> Sequence[nn.Module]:
        """What was trained, one a training."""

    @property
    def rewrites(self) -> Sequence[Sequence[Rewrite]]:
        """Of each network, what was done to it since."""

    def save(self, directory: Path, /) -> None:
        """Write it into a folder."""


C = TypeVar("C", bound=Config)
D = TypeVar("D")
M = TypeVar("M", bound=Saved)


@dataclass(frozen=True, kw_only=True)
class Trained(Generic[M]):
    """What training gives.

    Attributes:
        model: with everything that prediction needs.
        results: one a network that was trained.
        complete: nothing is left to train; False for a run that ended for want of minutes.
        facts: plain data about it, for the outcome of the run.
        history: one record an epoch.
        summary: what a person reads after training.
    """

    model: M
    results: Sequence[FitResult]
    complete: bool
    facts: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    summary: Sequence[str]

    @property
    def best(self) -> float:
        """Mean over the networks of the best validation number; nan where one has none."""
        return float(np.mean([np.nan if result.best is None else result.best for result in self.results]))


@dataclass(frozen=True)
class Measure:
    """One metric with the arrays that it is a function of, one row a unit: ``metric(truth, prediction)``."""

    metric: Metric
    truth: Shaped[np.ndarray, "N ..."]
    prediction: Shaped[np.ndarray, "N ..."]

    @property
    def value(self) -> float:
        """The metric on all rows."""
        return float(self.metric(self.truth, self.prediction))


@dataclass(frozen=True)
class Scored:
    """Scores of a split, in a form from which every paired comparison can be made.

    Attributes:
        measures: by the names of :meth:`Application.metrics`, in their order.
        groups: (N,) rows of one label resemble one another and are resampled together; None where rows are units.
        strata: (N,) rows of every label keep their number in a resample; None where there are none.
    """

    measures: Mapping[str, Measure]
    groups: Shaped[np.ndarray, "N"] | None = None
    strata: Shaped[np.ndarray, "N"] | None = None


class Application(ABC, Generic[C, D, M]):
    """One application. Instances hold nothing: what they work on is passed in.

    Attributes:
        name: in the ``manyformer`` command.
        model_name: of its network, as its authors call it.
        config: the dataclass of all settings.
        presets: by name; the first is what a command without ``--preset`` begins with.
        source: the dataclass of the arguments that say which data; has a field ``data``.
        validation: split by which a choice may be made that is none of training.
    """

    name: ClassVar[str]
    validation: ClassVar[str] = "valid"
    model_name: ClassVar[str]
    config: type[C]
    presets: Mapping[str, Callable[[], C]]
    source: type[Any]

    @abstractmethod
    def load(self, source: Any, config: C) -> D:
        """All splits of the source. How they are divided depends on the data alone, not on ``config.seed``.

        Raises:
            InputError: anything wrong with the data.
        """

    @abstractmethod
    def facts(self, source: Any, data: D) -> dict[str, Any]:
        """What a run on these data claims, fields of the source by their names; see :func:`core.command.claim_data`."""

    def part(self, data: D, share: float) -> D:
        """The data with a share of the training split, the others whole.

        What is in it decides the part: it is the same for every seed, and a smaller one lies within a larger.

        Raises:
            InputError: there are no parts, or too little to divide.
        """
        raise InputError("does not train on a part of its data", where=self.name)

    @abstractmethod
    def build(self, config: C, data: D) -> nn.Module:
        """An untrained network for these data, as training would begin it: quick, and refuses what would be refused.

        Raises:
            InputError: the config asks for what the network cannot be.
        """

    @abstractmethod
    def prototype(self, config: C) -> nn.Module:
        """An untrained network for an input of nominal size: what the config means, and refuses, without data.

        Raises:
            InputError: the config asks for what the network cannot be.
        """

    @abstractmethod
    def fit(
        self, config: C, data: D, *, directory: Path | None = None, progress: ProgressName | Progress = "off"
    ) -> Trained[M]:
        """Train on the split ``train``, watching ``valid``.

        Args:
            config: every setting; ``config.fit.max_minutes`` limits this call.
            data: from :meth:`load`.
            directory: where to keep the state, and resume from; nothing is written where absent.
            progress: as for :func:`core.training.fit`.
        """

    @abstractmethod
    def open(self, run: RunDirectory) -> M:
        """The model of a finished run."""

    @abstractmethod
    def rewritten(self, model: M, networks: Sequence[nn.Module], rewrites: Sequence[Sequence[Rewrite]]) -> M:
        """The model with other networks in it, which came from its own, or from some of them, by these rewrites."""

    @abstractmethod
    def probe(self, model: M, data: D, split: str) -> Callable[[nn.Module], Tensor]:
        """A network's outputs for the first inputs of a split, as the model would feed them, in the network's dtype."""

    @abstractmethod
    def metrics(self, data: D) -> Mapping[str, Metric]:
        """What :meth:`score` measures on such data; the first is the one that a reader asks for first."""

    @abstractmethod
    def score(self, model: M, data: D, split: str) -> Scored:
        """Scores of a split.

        Raises:
            InputError: there is no such split.
        """

    def networks(self, config: C) -> int:
        """How many networks one training trains, one after the other."""
        return 1

    def monitored(self, config: C, data: D) -> str:
        """The validation number that training watches, as the records of its history name it."""
        return "loss"

    def greater_is_better(self, config: C, data: D) -> bool:
        """Whether that number should rise."""
        return False

    def alone(self, config: C) -> C:
        """The config of a single network of those."""
        return config

    def within(self, config: C, data: D, minutes: float) -> C:
        """The config with as many epochs as the minutes allow, so that a schedule comes to its end within them.

        Measured by training one network for a short while, in memory. Decide once and keep the config: measured again,
        the number may be another one.

        Args:
            config: its own number of epochs does not count.
            data: from :meth:`load`.
            minutes: wall minutes of the whole training, evaluations included.
        """
        seconds = 60 * minutes * FILLED / self.networks(config)
        paces = [(share, self._pace(phase, data, minutes)) for share, phase in self.phases(config)]
        step = sum(share * pace.step for share, pace in paces)
        return with_fit(config, max_epochs=epochs_within(seconds, replace(paces[-1][1], step=step)), max_minutes=None)

    def phases(self, config: C) -> Sequence[tuple[float, C]]:
        """Parts of a training whose steps take different times: the share of its steps that each is, and a config all
        of whose steps are of that part. One part unless an application says otherwise."""
        return [(1.0, config)]

    def _pace(self, config: C, data: D, minutes: float) -> Pace:
        """Of short trainings, the first of which warms up."""
        for limit in (WARM_UP_MINUTES, min(PROBE_MINUTES, PROBE_SHARE * minutes)):
            short = with_fit(self.alone(config), max_epochs=_MANY, max_minutes=limit, patience=None)
            (result,) = self.fit(short, data).results
        return result.pace


def with_fit(config: C, **changes: Any) -> C:
    """The config with other :class:`FitSettings`."""
    fit = dataclasses.replace(config.fit, **changes)
    changed: C = dataclasses.replace(config, fit=fit)  # type: ignore[type-var]
    return changed


def epochs_within(seconds: float, pace: Pace) -> int:
    """Epochs with their evaluations that fit into the seconds; at least one.

    >>> epochs_within(60.0, Pace(step=0.1, evaluation=2.0, steps_an_epoch=40))
    10
    """
    return max(1, int(seconds / pace.epoch))
