"""Records -> one table of runs that are paired: the same seeds, scored on the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.application import Scored
from core.errors import InputError, nearest
from core.evaluation.metrics import Array, Metric
from core.evaluation.replicates import Replicates, replicate
from core.study.records import Arm, RunRecord


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The runs of a study by arm and seed.

    Attributes:
        arms: the baseline first.
        seeds: of any run, in their order.
        runs: (arm, seed) -> its record, of those that are there.
        scored: of one of the runs; units, groups and strata are those of all.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], RunRecord]
    scored: Scored

    def of(self, arm: str) -> list[RunRecord | None]:
        """The records of an arm, one a seed."""
        return [self.runs.get((arm, seed)) for seed in self.seeds]

    def replicates(self, name: str, metric: Metric, n: int, seed: int) -> dict[str, Replicates]:
        """The metric of all runs, resampled together, by arm."""
        predictions: list[Array | None] = []
        for arm in self.arms:
            for record in self.of(arm.name):
                scored = None if record is None else record.scored
                predictions.append(None if scored is None else scored.measures[name].prediction)
        truth, scored = self.scored.measures[name].truth, self.scored
        all_runs = replicate(metric, truth, predictions, groups=scored.groups, strata=scored.strata, n=n, seed=seed)
        size = len(self.seeds)
        return {arm.name: all_runs.some(slice(i * size, (i + 1) * size)) for i, arm in enumerate(self.arms)}


def pair(arms: Sequence[Arm], records: Sequence[RunRecord], metrics: Mapping[str, Metric]) -> Paired:
    """Checks that runs can be compared, and orders them.

    Raises:
        InputError: as :func:`core.study.analysis.analyse` says.
    """
    names = [arm.name for arm in arms]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"a comparison wants two arms or more of different names, got {names}")
    if not metrics:
        raise InputError("a comparison wants a metric")
    runs: dict[tuple[str, int], RunRecord] = {}
    for record in records:
        if record.arm not in names:
            raise InputError(f"there is no arm {record.arm!r}", where=_place(record), mend=nearest(record.arm, names))
        if (record.arm, record.seed) in runs:
            raise InputError("is there twice", where=_place(record))
        runs[record.arm, record.seed] = record
    finished = [record for record in runs.values() if record.status == "finished"]
    if not finished:
        raise InputError("no run has finished", mend="nothing can be compared yet")
    for record in finished:
        _check(record, finished[0], metrics)
    scored = finished[0].scored
    assert scored is not None
    seeds = tuple(sorted({record.seed for record in records}))
    return Paired(arms=tuple(arms), seeds=seeds, runs=runs, scored=scored)


def _check(record: RunRecord, first: RunRecord, metrics: Mapping[str, Metric]) -> None:
    """Refuses a run without scores, or with those of other units than the first one's."""
    where = _place(record)
    if record.scored is None or first.scored is None:
        raise InputError("finished without a score", where=where)
    for name in metrics:
        ours, theirs = record.scored.measures.get(name), first.scored.measures.get(name)
        if ours is None or theirs is None:
            raise InputError(f"has no score {name!r}", where=where, mend=nearest(name, [*record.scored.measures]))
        if len(ours.prediction) != len(ours.truth):
            raise InputError(f"has {len(ours.prediction)} predictions of {len(ours.truth)} units", where=where)
        if not _same(ours.truth, theirs.truth):
            raise _unpaired(f"the truth of {name!r}", where, first)
    for part in ("groups", "strata"):
        if not _same(getattr(record.scored, part), getattr(first.scored, part)):
            raise _unpaired(f"the {part}", where, first)


def _unpaired(what: str, where: str, first: RunRecord) -> InputError:
    what = f"was scored on other units than {_place(first)}: {what} differ, so the runs are not paired"
    return InputError(what, where=where, mend="score all runs on one split of the same data")


def _same(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is None and other is None
    return one.shape == other.shape and bool(np.all((one == other) | ((one != one) & (other != other))))


def _place(record: RunRecord) -> str:
    return f"{record.arm}, seed {record.seed}"
