"""The record that ``evaluate --json`` writes: one object, the same keys for every task.

    {"task", "model", "split", "n",
     "metrics":  {name: {"value", "ci95": [low, high]}},
     "baseline": {"name", "metrics": {…}},
     "details":  {…},
     "speed": {…}, "environment": {…}}

``details`` is what one task alone has to say; its own page says what is there, and it is empty where there is nothing.
A number that does not exist (nan, infinity) is null: the file is strict JSON. ``ci95`` is always the 95 % interval; a
difference has its ``p`` beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.evaluation.bootstrap import Difference, Estimate
from core.evaluation.report import number


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The plain model beside ours, scored on the same rows."""

    name: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one evaluation found.

    Attributes:
        task: the name in the ``manyformer`` command, such as ``tabular``.
        model: the model's name.
        split: the rows scored, such as ``test``.
        n: how many rows.
        metrics: each with its 95 % interval.
        baseline: the plain model a practitioner would try first.
        details: of this task, by name: plain data, estimates and differences in any depth.
        speed: what was measured, its unit in the key: ``rows_per_second``.
        environment: versions, machine, threads, commit.
    """

    task: str
    model: str
    split: str
    n: int
    metrics: Mapping[str, Estimate]
    baseline: Baseline | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    speed: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, numbers, strings and None."""
        baseline = (
            {} if self.baseline is None else {"name": self.baseline.name, "metrics": _table(self.baseline.metrics)}
        )
        head = {"task": self.task, "model": self.model, "split": self.split, "n": self.n}
        tail = {name: _strict(dict(getattr(self, name))) for name in ("details", "speed", "environment")}
        return {**head, "metrics": _table(self.metrics), "baseline": baseline, **tail}

    def json(self) -> str:
        """The object as indented strict JSON.

        >>> nan = float("nan")
        >>> estimate = Estimate(0.8, nan, nan, 0.95, nan, 1000, 0, 1)
        >>> result = Result(task="tabular", model="excelformer", split="test", n=1, metrics={"auc": estimate})
        >>> json.loads(result.json())["metrics"]
        {'auc': {'value': 0.8, 'ci95': [None, None]}}
        """
        return json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def score_lines(result: Result, differences: Mapping[str, Difference] | None = None) -> list[str]:
    """A line a metric for a terminal: the value, its interval, the baseline's value, p of no difference to it.

    >>> estimate = Estimate(0.8, 0.75, 0.84, 0.95, 0.02, 1000, 1000, 500)
    >>> result = Result(task="tabular", model="excelformer", split="test", n=500, metrics={"auc": estimate})
    >>> print("\\n".join(score_lines(result)))
      auc                   0.800  [0.750, 0.840]
    """
    baseline = {} if result.baseline is None else result.baseline.metrics
    lines = []
    for name, estimate in result.metrics.items():
        line = f"  {name:<18} {number(estimate.value):>8}  [{number(estimate.low)}, {number(estimate.high)}]"
        if name in baseline:
            line += f"   baseline {number(baseline[name].value):>8}"
        if differences and name in differences:
            line += f"   p = {differences[name].p:.2g}"
        lines.append(line)
    return lines


def notes(metrics: Mapping[str, Estimate]) -> list[str]:
    """What a reader must know about the intervals, each remark once, with the metrics it is about."""
    about: dict[str, list[str]] = {}
    for name, estimate in metrics.items():
        if estimate.note:
            about.setdefault(estimate.note, []).append(name)
    return [f"{', '.join(names) if len(names) < len(metrics) else 'all'}: {note}" for note, names in about.items()]


def _table(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: _interval(estimate, name) for name, estimate in metrics.items()}


def _interval(found: Estimate | Difference, name: str) -> dict[str, Any]:
    if found.confidence != 0.95:
        raise ValueError(f"ci95 of {name} would hold a {found.confidence:.0%} interval")
    plain = {"value": _strict(found.value), "ci95": [_strict(found.low), _strict(found.high)]}
    return {**plain, "p": _strict(found.p)} if isinstance(found, Difference) else plain


def _strict(value: Any, name: str = "details") -> Any:
    if isinstance(value, Estimate | Difference):
        return _interval(value, name)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(entry, str(key)) for key, entry in value.items()}
    return [_strict(entry, name) for entry in value] if isinstance(value, list | tuple) else value
