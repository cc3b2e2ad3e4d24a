import json
import math

import pytest

from core.evaluation.bootstrap import Estimate
from core.evaluation.results import Baseline, Result


def estimate(value: float, low: float = 0.1, high: float = 0.9, confidence: float = 0.95) -> Estimate:
    return Estimate(value, low, high, confidence, 0.01, 1000, 1000, 50)


def test_the_object_has_the_promised_form() -> None:
    result = Result(
        task="tabular",
        model="excelformer",
        split="test",
        n=50,
        metrics={"auc": estimate(0.5), "f1": estimate(math.nan, math.nan, math.inf)},
        baseline=Baseline(name="gradient boosting", metrics={"auc": estimate(0.4)}),
        speed={"rows_per_second": math.inf, "repeats": [1.5, math.nan]},
        environment={"torch": "2.9", "threads": 2},
    )
    assert json.loads(result.json()) == {
        "task": "tabular",
        "model": "excelformer",
        "split": "test",
        "n": 50,
        "metrics": {"auc": {"value": 0.5, "ci95": [0.1, 0.9]}, "f1": {"value": None, "ci95": [None, None]}},
        "baseline": {"name": "gradient boosting", "metrics": {"auc": {"value": 0.4, "ci95": [0.1, 0.9]}}},
        "speed": {"rows_per_second": None, "repeats": [1.5, None]},
        "environment": {"torch": "2.9", "threads": 2},
    }


def test_another_confidence_cannot_pass_as_ci95() -> None:
    result = Result(task="t", model="m", split="s", n=1, metrics={"auc": estimate(0.5, confidence=0.9)})
    with pytest.raises(ValueError, match="ci95 of auc"):
        result.json()
