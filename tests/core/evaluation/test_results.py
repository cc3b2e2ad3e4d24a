import json
import math
from dataclasses import replace

import pytest

from core.evaluation.bootstrap import Difference, Estimate
from core.evaluation.results import Baseline, Result, notes, score_lines


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
        "details": {},
        "speed": {"rows_per_second": None, "repeats": [1.5, None]},
        "environment": {"torch": "2.9", "threads": 2},
    }


def test_another_confidence_cannot_pass_as_ci95() -> None:
    result = Result(task="t", model="m", split="s", n=1, metrics={"auc": estimate(0.5, confidence=0.9)})
    with pytest.raises(ValueError, match="ci95 of auc"):
        result.json()


def test_details_are_plain_data_with_intervals_at_any_depth() -> None:
    difference = Difference(0.1, 0.05, 0.15, 0.95, 0.02, 1000, 1000, 50, 0.012, 0.07, 0.5, 0.4)
    details = {"beside": [{"auc": estimate(0.5), "gain": difference}], "share": None, "epochs": 3, "lost": math.inf}
    result = Result(task="t", model="m", split="s", n=1, metrics={}, details=details)
    assert json.loads(result.json())["details"] == {
        "beside": [
            {"auc": {"value": 0.5, "ci95": [0.1, 0.9]}, "gain": {"value": 0.1, "ci95": [0.05, 0.15], "p": 0.012}}
        ],
        "share": None,
        "epochs": 3,
        "lost": None,
    }
    for wrong in (estimate(0.5, confidence=0.9), replace(difference, confidence=0.9)):
        with pytest.raises(ValueError, match="ci95 of gain"):
            replace(result, details={"beside": {"gain": wrong}}).json()


def test_lines_for_a_terminal_stand_in_columns_and_leave_out_what_is_not_there() -> None:
    metrics = {"auc": estimate(0.5), "f1": estimate(0.25)}
    result = Result(task="t", model="m", split="s", n=50, metrics=metrics)
    assert score_lines(result)[0] == "  auc                   0.500  [0.100, 0.900]"
    beside = replace(result, baseline=Baseline(name="plain", metrics={"auc": estimate(0.4)}))
    difference = Difference(0.1, 0.05, 0.15, 0.95, 0.02, 1000, 1000, 50, 0.012, 0.07, 0.5, 0.4)
    first, second = score_lines(beside, {"auc": difference})
    assert first == score_lines(result)[0] + "   baseline    0.400   p = 0.012"
    assert second == score_lines(result)[1]


def test_a_remark_about_all_metrics_is_made_once() -> None:
    few = Estimate(0.5, 0.1, 0.9, 0.95, 0.01, 1000, 1000, 5)
    assert notes({"a": estimate(0.5)}) == []
    assert notes({"a": few, "b": few}) == [f"all: {few.note}"]
    assert notes({"a": few, "b": estimate(0.5)}) == [f"a: {few.note}"]
