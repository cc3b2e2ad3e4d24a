"""What an analysis finds of each arm and of each comparison, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.evaluation.bootstrap import Estimate
from core.evaluation.effects import Effect, Verdict

COSTS = {"seconds": "Seconds", "peak_mib": "Peak MiB", "parameters": "Parameters"}
"""Fields of a record that cost something -> as a reader sees them."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the runs of an arm cost.

    Attributes:
        mean: over the runs that finished; nan without any.
        ratio: to the baseline, the geometric mean over the seeds that finished in both; nan without any.
        low, high: its interval over seeds (Student's t of the logarithms); nan of fewer than two.
    """

    mean: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Endings:
    """How many seeds of an arm came to which end; of several arms together, seeds that came to it in any of them."""

    finished: int
    diverged: int
    failed: int
    missing: int

    @property
    def runs(self) -> int:
        """How many were run."""
        return self.finished + self.diverged + self.failed

    @property
    def trouble(self) -> str:
        """What did not finish, in words; empty if everything did.

        >>> Endings(finished=3, diverged=2, failed=0, missing=0).trouble
        'diverged in 2 of 5 seeds'
        """
        parts = [
            f"{name} in {count}" for name, count in (("diverged", self.diverged), ("failed", self.failed)) if count
        ]
        return f"{' and '.join(parts)} of {self.runs} seeds" if parts else ""


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm.

    Attributes:
        name, changes: as in :class:`core.study.Arm`.
        endings: of its seeds.
        reasons: why runs did not finish, each once.
        levels: metric -> mean over the seeds, with an interval for another test set and other seeds.
        scores: metric -> seed -> value.
        costs: by the names of `COSTS`.
    """

    name: str
    changes: Mapping[str, Any]
    endings: Endings
    reasons: tuple[str, ...]
    levels: Mapping[str, Estimate]
    scores: Mapping[str, Mapping[int, float]]
    costs: Mapping[str, Cost]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm, or one value of a factor, against its baseline.

    Attributes:
        name, against: what is compared.
        settings: how many settings of the other factors it is averaged over; 1 of plain arms.
        effects: metric -> effect.
        p_adjusted: of the primary metric, by Holm over all comparisons of its kind.
        low, high: its simultaneous interval: all of them hold together with the analysis' confidence (Bonferroni).
        smallest: the smallest true effect that would have been called one with 80 % probability among so many.
        verdict: by ``p_adjusted`` alone.
        endings, endings_against: of the seeds of either.
    """

    name: str
    against: str
    settings: int = 1
    effects: Mapping[str, Effect]
    p_adjusted: float
    low: float
    high: float
    smallest: float
    verdict: Verdict
    endings: Endings
    endings_against: Endings

    @property
    def unstable(self) -> bool:
        """Whether runs of either diverged: a result of its own, whatever the verdict."""
        return bool(self.endings.diverged or self.endings_against.diverged)
