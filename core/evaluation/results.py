"""The record that ``evaluate --json`` writes: one object, the same keys for every task.

    {"task", "model", "split", "n",
     "metrics":  {name: {"value", "ci95": [low, high]}},
     "baseline": {"name", "metrics": {…}},
     "speed": {…}, "environment": {…}}

A number that does not exist (nan, infinity) is null: the file is strict JSON. ``ci95`` is always the 95 % interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.evaluation.bootstrap import Estimate


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
        speed: what was measured, its unit in the key: ``rows_per_second``.
        environment: versions, machine, threads, commit.
    """

    task: str
    model: str
    split: str
    n: int
    metrics: Mapping[str, Estimate]
    baseline: Baseline | None = None
    speed: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, numbers, strings and None."""
        baseline = (
            {} if self.baseline is None else {"name": self.baseline.name, "metrics": _table(self.baseline.metrics)}
        )
        head = {"task": self.task, "model": self.model, "split": self.split, "n": self.n}
        tail = {"speed": _strict(dict(self.speed)), "environment": _strict(dict(self.environment))}
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


def _table(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    for name, estimate in metrics.items():
        if estimate.confidence != 0.95:
            raise ValueError(f"ci95 of {name} would hold a {estimate.confidence:.0%} interval")
    return {name: {"value": _strict(e.value), "ci95": [_strict(e.low), _strict(e.high)]} for name, e in metrics.items()}


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(entry) for key, entry in value.items()}
    return [_strict(entry) for entry in value] if isinstance(value, list | tuple) else value
