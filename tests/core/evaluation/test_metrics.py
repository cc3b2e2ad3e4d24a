"""Values against scikit-learn, and the weighted form against the same metric on repeated rows."""

import math

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn import metrics as sk

from core.errors import InputError
from core.evaluation.metrics import BINARY, MULTICLASS, REGRESSION, Metric, binary_metrics


def binary(n: int = 173, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, n)
    probability = 1 / (1 + np.exp(-(truth + rng.normal(size=n))))
    return truth, probability.round(1) if ties else probability


def multiclass(n: int = 151) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, n)
    p = rng.dirichlet(np.ones(4), n) + 0.5 * np.eye(4)[truth]
    return truth, p / p.sum(axis=1, keepdims=True)


def regression(n: int = 97) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    truth = 1e4 + rng.normal(size=n)
    return truth, truth + rng.normal(size=n)


CASES = [(m, binary()) for m in binary_metrics(0.4).values()]
CASES += [(m, multiclass()) for m in MULTICLASS.values()]
CASES += [(m, regression()) for m in REGRESSION.values()]


@pytest.mark.parametrize(("metric", "data"), CASES, ids=lambda x: x.name if isinstance(x, Metric) else "")
def test_weights_equal_repeated_rows(metric: Metric, data: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = data
    weights = np.random.default_rng(0).integers(0, 4, (7, len(truth))).astype(float)
    weights[0] = 1
    assert metric.weighted is not None
    expected = [metric(np.repeat(truth, w.astype(int)), np.repeat(prediction, w.astype(int), axis=0)) for w in weights]
    np.testing.assert_allclose(metric.weighted(truth, prediction, weights), expected, rtol=1e-9)


def test_binary_values_are_those_of_scikit_learn() -> None:
    truth, p = binary()
    label = (p >= 0.5).astype(int)
    expected = {
        "auc": sk.roc_auc_score(truth, p),
        "average_precision": sk.average_precision_score(truth, p),
        "log_loss": sk.log_loss(truth, p),
        "brier": sk.brier_score_loss(truth, p),
        "accuracy": sk.accuracy_score(truth, label),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, label),
        "f1": sk.f1_score(truth, label),
    }
    assert {name: metric(truth, p) for name, metric in BINARY.items()} == pytest.approx(expected, rel=1e-12)


def test_multiclass_values_are_those_of_scikit_learn() -> None:
    truth, p = multiclass()
    expected = {
        "accuracy": sk.accuracy_score(truth, p.argmax(1)),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, p.argmax(1)),
        "log_loss": sk.log_loss(truth, p),
        "auc_macro": sk.roc_auc_score(truth, p, multi_class="ovr", average="macro"),
    }
    assert {name: metric(truth, p) for name, metric in MULTICLASS.items()} == pytest.approx(expected, rel=1e-12)


def test_regression_values() -> None:
    truth, prediction = regression()
    got = {name: metric(truth, prediction) for name, metric in REGRESSION.items()}
    assert got["rmse"] == pytest.approx(math.sqrt(np.mean((truth - prediction) ** 2)))
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(truth, prediction))
    assert got["nrmse"] ** 2 == pytest.approx(1 - got["r2"])


def test_the_threshold_moves_the_label_metrics_and_nothing_else() -> None:
    truth, p = binary(ties=False)
    at = binary_metrics(0.2)
    assert at["f1"](truth, p) == pytest.approx(sk.f1_score(truth, p >= 0.2))
    changed = {name for name in BINARY if at[name](truth, p) != BINARY[name](truth, p)}
    assert changed == {name for name, metric in BINARY.items() if metric.needs == "label"}


def test_what_a_metric_needs_is_true() -> None:
    truth, p = binary(ties=False)
    squeezed = 0.4 + 0.2 * p  # same order, same side of one half, other probabilities
    changed = {name for name, metric in BINARY.items() if metric(truth, squeezed) != pytest.approx(metric(truth, p))}
    assert changed == {name for name, metric in BINARY.items() if metric.needs == "probability"}


@pytest.mark.parametrize(
    ("name", "label"), [("auc", 0), ("auc", 1), ("balanced_accuracy", 1), ("average_precision", 0)]
)
def test_one_class_is_undefined_not_an_error(name: str, label: int) -> None:
    truth, p = np.full(9, label), np.linspace(0.1, 0.9, 9)
    assert math.isnan(BINARY[name](truth, p))
    weighted = BINARY[name].weighted
    assert weighted is not None
    assert np.isnan(weighted(truth, p, np.ones((3, 9)))).all()


def test_a_missing_class_and_constant_truth_are_undefined() -> None:
    p = np.full((4, 3), 1 / 3)
    assert math.isnan(MULTICLASS["auc_macro"](np.array([0, 1, 0, 1]), p))
    assert MULTICLASS["balanced_accuracy"](np.array([0, 1, 0, 1]), p) == 0.5
    for name in ("r2", "nrmse"):
        assert math.isnan(REGRESSION[name](np.full(5, 3.3), np.arange(5.0)))
        weighted = REGRESSION[name].weighted
        assert weighted is not None
        assert np.isnan(weighted(np.full(5, 3.3), np.arange(5.0), np.ones((2, 5)))).all()


def test_float32_probabilities_and_certain_ones_have_a_finite_log_loss() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(5), 400).astype(np.float32)
    truth = rng.integers(0, 5, 400)
    assert MULTICLASS["log_loss"](truth, p) == pytest.approx(-np.log(p[np.arange(400), truth]).mean(), rel=1e-5)
    assert BINARY["log_loss"](np.array([1, 0]), np.array([0.0, 0.0])) == pytest.approx(36.04 / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "truth", "prediction"),
    [
        (BINARY["auc"], [0, 2], [0.1, 0.2]),
        (BINARY["auc"], [0, 1], [0.1, 1.2]),
        (BINARY["auc"], [0, 1], [0.1, math.nan]),
        (BINARY["auc"], [0, 1, 1], [0.1, 0.2]),
        (MULTICLASS["accuracy"], [0, 3], [[0.2, 0.3, 0.5]] * 2),
        (MULTICLASS["accuracy"], [0, 1], [[0.2, 0.3, 0.6]] * 2),
        (MULTICLASS["accuracy"], [0, 1], [0.2, 0.3]),
        (REGRESSION["rmse"], [0.0, math.inf], [0.1, 0.2]),
        (REGRESSION["rmse"], [], []),
    ],
)
def test_wrong_input_is_named(metric: Metric, truth: list[float], prediction: list[float]) -> None:
    with pytest.raises((InputError, TypeCheckError)):
        metric(np.array(truth), np.array(prediction))
