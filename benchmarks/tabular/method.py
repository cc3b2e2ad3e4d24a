"""What a method is to the benchmark: a name, its settings, and one function that fits and returns a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from benchmarks.tabular.sets import Rows, TableSet

#: Features to a prediction in the layout of :mod:`benchmarks.tabular.scores`.
Predict = Callable[[pd.DataFrame], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One fit: the set, its training and validation rows, and what the run may use.

    ``minutes`` is the wall limit. Methods that can stop by themselves keep to it; the runner ends the others.
    """

    table: TableSet
    train: Rows
    valid: Rows
    seed: int
    threads: int
    minutes: float


@dataclass(frozen=True)
class Fitted:
    """A trained model: ``predict``, and what the fit says of itself (rounds, epochs, whether the limit stopped it)."""

    predict: Predict
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch: wall seconds since the fit began, and the primary score on the validation rows."""

    seconds: float
    score: float


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table of methods.

    Args:
        fit: trains on a job with ``settings``. Encoding the columns belongs to it, so that it is measured too.
        settings: everything that was chosen, JSON-able; a finished run counts only while they are unchanged.
        packages: distributions whose versions decide the result; a finished run counts only while they are unchanged.
        modules: what to import before the clock of the fit starts.
        sources: our own code that decides the result; a row measured with older code is marked.
    """

    name: str
    fit: Callable[[Job, Mapping[str, Any]], Fitted]
    settings: Mapping[str, Any]
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    sources: tuple[str, ...]
