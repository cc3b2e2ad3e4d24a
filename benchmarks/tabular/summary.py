"""From run files to results: scores with intervals, ranks, paired comparisons, cost. Nothing is trained here.

Definitions, also written into the results file:

- The score of a method on a set is the mean over its seeds; its interval resamples test rows, the same for every seed.
- "Best boosted" is chosen set by set on validation rows, before any test score is looked at.
- A comparison is won or lost where the 95 % interval of the paired difference leaves out zero, tied otherwise.
- A method that failed, or was ended at the wall limit, takes the last rank on that set.
- Ranks and costs are of the methods that have a run on every set of the headline method; another one is compared with
  it set by set, on those that it has.
- Error is 1 - AUC, 1 - accuracy or RMSE; the gain is the percentage of the linear baseline's error that is removed.
- Cost is processor seconds of fitting per point of gain, both averaged over the sets first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tabular.methods import BASELINE, BOOSTED, HEADLINE, METHODS
from benchmarks.tabular.runs import Run
from benchmarks.tabular.scores import METRICS, error, primary
from benchmarks.tabular.sets import TableSet, describe, read_rows
from core.evaluation.bootstrap import Difference, Estimate, bootstrap, holm, paired
from core.evaluation.metrics import Array, Metric
from core.evaluation.ranks import average_ranks, critical_difference, friedman

#: "Small" sets have fewer rows than this in the ``rows`` column of ``index.csv``, which counts every split.
SMALL_ROWS = 10_000


@dataclass(frozen=True)
class Result:
    """A method on a set: its runs, and test predictions of the finished seeds, ``(n, seeds)`` or ``(n, seeds, C)``."""

    runs: Sequence[Run]
    predictions: NDArray[np.float32] | None

    @property
    def finished(self) -> list[dict[str, Any]]:
        """Records of the runs that have predictions."""
        return [run.record for run in self.runs if run.predictions is not None]

    def mean(self, *path: str) -> float | None:
        """Mean over the finished runs of a number in their records; None where any run lacks it."""
        values: list[Any] = [_at(record, path) for record in self.finished]
        return fmean(values) if values and None not in values else None


@dataclass(frozen=True)
class SetResults:
    """A set with its test targets and what every method did on it."""

    table: TableSet
    truth: NDArray[Any]
    methods: dict[str, Result]

    @property
    def metric(self) -> Metric:
        """The primary metric."""
        return primary(self.table.task)

    def score(self, method: str) -> float | None:
        """The primary test score, mean over seeds; None where the method did not finish."""
        predictions = self.methods[method].predictions
        return None if predictions is None else over_seeds(self.metric)(self.truth, predictions)

    @property
    def best_boosted(self) -> str | None:
        """The boosted method with the best mean validation score."""
        sign = 1 if self.metric.greater_is_better else -1
        scores = {name: self.methods[name].mean("valid", self.metric.name) for name in BOOSTED if name in self.methods}
        known = {name: sign * value for name, value in scores.items() if value is not None}
        return max(known, key=lambda name: known[name]) if known else None


def _at(record: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = record
    for key in path:
        value = value[key]
    return value


def over_seeds(metric: Metric) -> Metric:
    """The metric averaged over the seeds of stacked predictions ``(n, seeds, …)``."""

    def function(truth: Array, stacked: Array) -> float:
        return fmean(metric(truth, stacked[:, seed]) for seed in range(stacked.shape[1]))

    def weighted(truth: Array, stacked: Array, weights: Array) -> Array:
        assert metric.weighted is not None
        seeds = [metric.weighted(truth, stacked[:, seed], weights) for seed in range(stacked.shape[1])]
        mean: Array = np.mean(seeds, axis=0)
        return mean

    return Metric(metric.name, function, metric.greater_is_better, metric.needs, weighted if metric.weighted else None)


def gather(data: Path, runs: Sequence[Run]) -> list[SetResults]:
    """Runs by set and method, with the targets read from the data folder."""
    sets: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        sets.setdefault(run.record["key"]["set"], {}).setdefault(run.record["key"]["method"], []).append(run)
    results = []
    for name, methods in sorted(sets.items()):
        table = describe(data, name)
        ordered = {method: _result(methods[method]) for method in METHODS if method in methods}
        results.append(SetResults(table, read_rows(data, table, "test").y, ordered))
    return results


def _result(runs: Sequence[Run]) -> Result:
    ordered = sorted(runs, key=lambda run: run.record["key"]["seed"])
    stored = [run.predictions for run in ordered if run.predictions is not None]
    return Result(ordered, np.stack(stored, axis=1) if stored else None)


def summarise(sets: Sequence[SetResults], resamples: int) -> dict[str, Any]:
    """Everything that the results file holds besides its provenance."""
    names = [name for name in METHODS if any(name in results.methods for results in sets)]
    ours = [results for results in sets if HEADLINE in results.methods] or sets
    ranked = [name for name in names if all(name in results.methods for results in ours)]
    complete = [results for results in sets if set(ranked) <= set(results.methods)]
    incomplete = [results.table.name for results in sets if not set(names) <= set(results.methods)]
    small = [results for results in complete if results.table.rows < SMALL_ROWS]
    return {
        "definitions": __doc__,
        "methods": names,
        "incomplete": incomplete,
        "sets": {results.table.name: describe_set(results, resamples) for results in sets},
        "ranks": {"small": rank(small, ranked), "all": rank(complete, ranked)},
        "versus": versus(sets, names, resamples),
        "cost": cost(complete, ranked),
    }


def describe_set(results: SetResults, resamples: int) -> dict[str, Any]:
    """One set: what it is, and every method's scores and costs on it."""
    return {
        "task": results.table.task,
        "rows": results.table.rows,
        "test_rows": len(results.truth),
        "metric": results.metric.name,
        "greater_is_better": results.metric.greater_is_better,
        "best_boosted": results.best_boosted,
        "methods": {name: describe_result(results, result, resamples) for name, result in results.methods.items()},
    }


def describe_result(results: SetResults, result: Result, resamples: int) -> dict[str, Any]:
    """A method on a set: scores with intervals, seeds, costs, and what a reader must know about the runs."""
    records = [run.record for run in result.runs]
    stacked = result.predictions
    return {
        "scores": {} if stacked is None else score(results, stacked, resamples),
        "valid": {metric.name: result.mean("valid", metric.name) for metric in METRICS[results.table.task]},
        "seeds": [record["key"]["seed"] for record in records],
        "unfinished": [record["reason"] for record in records if record["status"] != "finished"],
        "stopped_by_limit": sum(bool(record["fit"].get("stopped_by_limit")) for record in result.finished),
        "stale": any(run.stale for run in result.runs),
        "fit_seconds": result.mean("fit", "wall_seconds"),
        "fit_cpu_seconds": result.mean("fit", "cpu_seconds"),
        "predict_seconds_per_1000": result.mean("predict", "thousand_rows_seconds"),
        "one_row_seconds": result.mean("predict", "one_row_seconds"),
        "one_row_failures": sum(record["predict"]["one_row_failures"] for record in result.finished),
        "peak_mib": result.mean("memory", "peak_mib"),
        "commits": sorted({str(record["provenance"]["commit"]) for record in records}),
    }


def score(results: SetResults, stacked: NDArray[np.float32], resamples: int) -> dict[str, Any]:
    """Every metric of the set's task with its interval, and its value seed by seed."""
    scores = {}
    for metric in METRICS[results.table.task]:
        estimate = bootstrap(over_seeds(metric), results.truth, stacked, n=resamples)
        by_seed = [metric(results.truth, stacked[:, seed]) for seed in range(stacked.shape[1])]
        scores[metric.name] = {**plain(estimate), "by_seed": by_seed}
    return scores


def rank(sets: Sequence[SetResults], names: Sequence[str]) -> dict[str, Any] | None:
    """Average ranks with Friedman's test and Nemenyi's critical difference; None without enough sets or methods."""
    if len(sets) < 2 or len(names) < 3:
        return None
    scores = np.array([utilities(results, names) for results in sets])
    return {
        "sets": [results.table.name for results in sets],
        "average": dict(zip(names, average_ranks(scores).tolist(), strict=True)),
        "friedman": plain(friedman(scores)),
        "critical_difference": critical_difference(len(names), len(sets)),
    }


def utilities(results: SetResults, names: Sequence[str]) -> list[float]:
    """Primary scores as greater-is-better numbers; what did not finish comes last, together."""
    sign = 1 if results.metric.greater_is_better else -1
    scores = [results.score(name) for name in names]
    worst = min((sign * score for score in scores if score is not None), default=0.0) - 1
    return [worst if score is None else sign * score for score in scores]


def versus(sets: Sequence[SetResults], names: Sequence[str], resamples: int) -> dict[str, Any]:
    """The headline method against each other one, and against the boosted method chosen on validation rows."""
    others = [name for name in names if name != HEADLINE]
    result = {other: compare(sets, {results.table.name: other for results in sets}, resamples) for other in others}
    chosen = {results.table.name: results.best_boosted for results in sets}
    result["best boosted"] = compare(sets, {name: other for name, other in chosen.items() if other}, resamples)
    return {other: comparison for other, comparison in result.items() if comparison["sets"]}


def compare(sets: Sequence[SetResults], others: Mapping[str, str], resamples: int) -> dict[str, Any]:
    """Paired differences set by set, headline minus other, with the count of wins, ties and losses."""
    rows: dict[str, Any] = {}
    for results in sets:
        other = others.get(results.table.name)
        difference = _difference(results, other, resamples) if other else None
        if difference is not None:
            sign = 1 if results.metric.greater_is_better else -1
            rows[results.table.name] = {"other": other, **plain(difference), "outcome": outcome(difference, sign)}
    corrected = holm([math.nan if row["p"] is None else row["p"] for row in rows.values()])
    for row, p in zip(rows.values(), corrected.tolist(), strict=True):
        row["p_holm"] = None if math.isnan(p) else p
    counts = {name: sum(row["outcome"] == name for row in rows.values()) for name in ("win", "tie", "loss")}
    return {**counts, "sets": rows}


def _difference(results: SetResults, other: str, resamples: int) -> Difference | None:
    methods = results.methods
    if HEADLINE not in methods or other not in methods:
        return None
    ours, theirs = methods[HEADLINE].predictions, methods[other].predictions
    if ours is None or theirs is None:
        return None
    return paired(over_seeds(results.metric), results.truth, ours, theirs, n=resamples)


def outcome(difference: Difference, sign: int) -> str:
    """Won, tied or lost; ``sign`` is 1 where greater is better."""
    low, high = sorted((sign * difference.low, sign * difference.high))
    return "win" if low > 0 else "loss" if high < 0 else "tie"


def cost(sets: Sequence[SetResults], names: Sequence[str]) -> dict[str, Any]:
    """Processor seconds per point of gain over the linear baseline, on the sets where every method finished."""
    usable = [results for results in sets if all(results.score(name) is not None for name in names)]
    if not usable or BASELINE not in names:
        return {"sets": [], "methods": {}}
    rows = {}
    for name in names:
        gain = fmean(gain_over_baseline(results, name) for results in usable)
        seconds = fmean(results.methods[name].mean("fit", "cpu_seconds") or 0.0 for results in usable)
        rows[name] = {
            "gain_percent": gain,
            "fit_cpu_seconds": seconds,
            "cpu_seconds_per_point": seconds / gain if gain > 0 else None,
            "peak_mib": max(results.methods[name].mean("memory", "peak_mib") or 0.0 for results in usable),
        }
    return {"sets": [results.table.name for results in usable], "methods": rows}


def gain_over_baseline(results: SetResults, name: str) -> float:
    """Share of the baseline's error that the method removes, in percent; negative where it adds to it."""
    base, score = results.score(BASELINE), results.score(name)
    assert base is not None
    assert score is not None
    reference = error(results.metric, base)
    return 100 * (reference - error(results.metric, score)) / reference if reference else 0.0


def plain(record: Estimate | Difference | Any) -> dict[str, Any]:
    """A dataclass as JSON-able data: what is not finite becomes None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(record).items()
    }
