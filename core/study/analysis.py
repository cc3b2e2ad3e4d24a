"""What the runs of a study say: which arm helped, by how much, at what cost, and what could not be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from core.command import to_json
from core.evaluation.bootstrap import holm
from core.evaluation.effects import contrast, level, verdict
from core.evaluation.metrics import Metric
from core.evaluation.replicates import Replicates
from core.study.factors import Factor, factors_of
from core.study.pairing import Paired, pair
from core.study.records import Arm, RunRecord
from core.study.results import COSTS, ArmResult, Comparison, Cost, Endings
from core.study.words import labels, markdown, sentence

Runs = Mapping[str, Mapping[str, Replicates]]
"""Metric -> arm -> its runs, resampled together."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What :func:`analyse` found.

    Attributes:
        baseline: the arm that all others are compared with.
        primary: the metric that decides.
        greater_is_better: metric -> direction, the primary one first.
        confidence: of the intervals.
        seeds: of any run.
        units: rows, or groups of rows, that were resampled.
        grouped: whether they are groups.
        arms: in their order, the baseline first.
        comparisons: of every other arm with the baseline.
        main_effects: of a full grid of several factors, every value against the factor's first one, averaged over the
            settings of the other factors; they are a family of comparisons of their own.
        fronts: cost -> the arms that no other arm beats in the primary metric at the same cost or less, by their means.
    """

    baseline: str
    primary: str
    greater_is_better: Mapping[str, bool]
    confidence: float
    seeds: tuple[int, ...]
    units: int
    grouped: bool
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    main_effects: tuple[Comparison, ...]
    fronts: Mapping[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers, strings and None, for a results file."""
        plain: dict[str, Any] = json.loads(to_json(self))
        for kind in ("comparisons", "main_effects"):
            for found, values in zip(getattr(self, kind), plain[kind], strict=True):
                values["sentence"] = sentence(found, self.primary, self.labels())
                for name, effect in found.effects.items():
                    values["effects"][name]["note"] = effect.note
        return plain

    def labels(self) -> dict[str, str]:
        """Shorter names of what is compared, where they stay apart."""
        compared = [*self.comparisons, *self.main_effects]
        return labels(list(dict.fromkeys([*(arm.name for arm in self.arms), *_names(compared)])))

    def markdown(self) -> str:
        """Two tables in Markdown: the arms, and what each did against the baseline."""
        return markdown(self.arms, [*self.comparisons, *self.main_effects], self.greater_is_better, self.confidence)

    def sentences(self) -> list[str]:
        """The answer: one sentence a comparison, in the order of the arms; then one a main effect."""
        return [sentence(found, self.primary, self.labels()) for found in (*self.comparisons, *self.main_effects)]


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    return [name for found in comparisons for name in (found.name, found.against)]


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
            finished run without a score, none that finished, or runs that were scored on different units: they are
            not paired.
    """
    paired = pair(arms, records, metrics)
    primary = next(iter(metrics))
    runs = {name: paired.replicates(name, metric, n, seed) for name, metric in metrics.items()}
    greater = {name: metric.greater_is_better for name, metric in metrics.items()}
    plain = [_Pair(arm.name, arms[0].name, (arm.name,), (arms[0].name,)) for arm in arms[1:]]
    main = [_main(factor, value) for factor in factors_of(arms) for value in factor.values[1:]]
    found = tuple(_arm(arm, paired, runs, confidence) for arm in arms)
    first = next(iter(runs[primary].values()))
    return Analysis(
        baseline=arms[0].name,
        primary=primary,
        greater_is_better=greater,
        confidence=confidence,
        seeds=paired.seeds,
        units=int(first.sizes.sum()),
        grouped=paired.scored.groups is not None,
        arms=found,
        comparisons=_compare(plain, paired, runs, greater, confidence),
        main_effects=_compare(main, paired, runs, greater, confidence),
        fronts={cost: _front(found, primary, greater[primary], cost) for cost in ("seconds", "parameters")},
    )


# --- comparisons ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """Two names, and the arms that either stands for, in the same order of the other factors' settings."""

    name: str
    against: str
    arms: tuple[str, ...]
    arms_against: tuple[str, ...]


def _main(factor: Factor, value: str) -> _Pair:
    first = factor.values[0]
    names = (f"{factor.field}={value}", f"{factor.field}={first}")
    return _Pair(*names, factor.arms[value], factor.arms[first])


def _compare(
    pairs: Sequence[_Pair], paired: Paired, runs: Runs, greater: Mapping[str, bool], confidence: float
) -> tuple[Comparison, ...]:
    effects = [
        {
            name: contrast(
                Replicates.mean([arms[arm] for arm in each.arms]),
                Replicates.mean([arms[arm] for arm in each.arms_against]),
                confidence,
            )
            for name, arms in runs.items()
        }
        for each in pairs
    ]
    primary = next(iter(runs))
    adjusted = holm([of_pair[primary].p for of_pair in effects]).tolist()
    # a comparison that cannot be made takes nothing from the others
    together = 1 - (1 - confidence) / max(1, int(np.isfinite(adjusted).sum()))
    found = []
    for each, of_pair, p in zip(pairs, effects, adjusted, strict=True):
        effect = of_pair[primary]
        low, high = effect.interval(together)
        found.append(
            Comparison(
                name=each.name,
                against=each.against,
                settings=len(each.arms),
                effects=of_pair,
                p_adjusted=p,
                low=low,
                high=high,
                smallest=effect.smallest(together),
                verdict=verdict(effect.value, p, greater_is_better=greater[primary], alpha=1 - confidence),
                endings=_endings(paired, each.arms),
                endings_against=_endings(paired, each.arms_against),
            )
        )
    return tuple(found)


def _endings(paired: Paired, arms: Sequence[str]) -> Endings:
    """Of a seed the worst end that it came to in any of the arms."""
    counts = dict.fromkeys(("diverged", "failed", "missing", "finished"), 0)
    for seed in paired.seeds:
        ends = {"missing" if (run := paired.runs.get((arm, seed))) is None else run.status for arm in arms}
        counts[next(end for end in counts if end in ends)] += 1
    return Endings(**counts)


# --- arms -------------------------------------------------------------------------------------------------------------


def _arm(arm: Arm, paired: Paired, runs: Runs, confidence: float) -> ArmResult:
    records = [record for record in paired.of(arm.name) if record is not None]
    baseline = paired.arms[0].name
    return ArmResult(
        name=arm.name,
        changes=dict(arm.changes),
        endings=_endings(paired, [arm.name]),
        reasons=tuple(dict.fromkeys(record.reason for record in records if record.reason)),
        levels={name: level(arms[arm.name], confidence) for name, arms in runs.items()},
        scores={
            name: {
                seed: float(value)
                for seed, value, ran in zip(
                    paired.seeds, arms[arm.name].values.tolist(), arms[arm.name].ran.tolist(), strict=True
                )
                if ran
            }
            for name, arms in runs.items()
        },
        costs={
            name: _cost(_costs(paired, arm.name, name), _costs(paired, baseline, name), confidence) for name in COSTS
        },
    )


def _costs(paired: Paired, arm: str, name: str) -> Float[np.ndarray, "S"]:
    ended = [record if record is not None and record.status == "finished" else None for record in paired.of(arm)]
    return np.array([np.nan if record is None else float(getattr(record, name)) for record in ended])


def _cost(ours: Float[np.ndarray, "S"], theirs: Float[np.ndarray, "S"], confidence: float) -> Cost:
    both = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0) & (theirs > 0)
    ended = ours[np.isfinite(ours)]
    logs = np.log(ours[both] / theirs[both])
    middle, half = (float(logs.mean()) if len(logs) else np.nan), np.nan
    if len(logs) > 1:
        error = float(logs.std(ddof=1)) / np.sqrt(len(logs))
        half = float(stdtrit(len(logs) - 1, (1 + confidence) / 2)) * error
    ends = (float(np.exp(middle - half)), float(np.exp(middle + half)))
    return Cost(
        mean=float(ended.mean()) if len(ended) else np.nan, ratio=float(np.exp(middle)), low=ends[0], high=ends[1]
    )


def _front(arms: Sequence[ArmResult], metric: str, greater: bool, cost: str) -> tuple[str, ...]:
    """The arms that no other one equals or beats in both, and beats in one, cheapest first."""
    points = [(arm.costs[cost].mean, (-1 if greater else 1) * arm.levels[metric].value, arm.name) for arm in arms]
    known = sorted(point for point in points if np.isfinite(point[:2]).all())

    def beaten(point: tuple[float, float, str]) -> bool:
        return any(x <= point[0] and y <= point[1] and (x, y) != point[:2] for x, y, _ in known)

    return tuple(point[2] for point in known if not beaten(point))
