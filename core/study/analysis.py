"""What the runs of a study say: which arm helped, by how much, at what cost, and what could not be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.evaluation.metrics import Metric
from core.study.records import Arm, RunRecord


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What :func:`analyse` found.

    Attributes:
        baseline: the arm that all others are compared with.
        primary: the metric that decides.
    """

    baseline: str
    primary: str

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers, strings and None, for a results file."""
        raise NotImplementedError

    def markdown(self) -> str:
        """Two tables in Markdown: the arms, and what each did against the baseline."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The answer: one sentence a comparison, in the order of the arms."""
        raise NotImplementedError


def analyse(
    arms: Sequence[Arm],
    records: Sequence[RunRecord],
    metrics: Mapping[str, Metric],
    *,
    confidence: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Analysis:
    """Compares every arm with the first.

    Args:
        arms: the baseline first; all of them, also those without a run so far.
        records: one a run, in any order; of (arm, seed) pairs that are absent the analysis says that they are.
        metrics: those of :meth:`core.application.Application.metrics`; the first one decides.
        confidence: of the intervals; effects are called at ``1 - confidence``, over all comparisons together.
        n: resamples of the units.
        seed: of the resamples.

    Raises:
        InputError: fewer than two arms, two of one name, a run of an unknown arm, two runs of one arm and seed, a
            finished run without a score, or runs that were scored on different units: they are not paired.
    """
    raise NotImplementedError
