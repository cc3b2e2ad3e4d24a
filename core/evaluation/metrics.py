"""Metrics: what is computed, which way is better, what it needs, and how it is computed on many resamples at once.

Every metric takes ``(truth, prediction)`` in the one form of its table:

========== ======================== ======================================
table      truth                    prediction
========== ======================== ======================================
BINARY     ``(N,)`` of 0 and 1      ``(N,)`` probability of class 1
MULTICLASS ``(N,)`` of 0 … C-1      ``(N, C)`` probabilities
REGRESSION ``(N,)`` numbers         ``(N,)`` numbers
========== ======================== ======================================

The value itself is scikit-learn's. Beside it stands the same metric under integer row weights, for many weightings in
one go: a bootstrap resample is nothing but a weighting, so that a thousand resamples cost a matrix product (means and
ratios of means) or a cumulative sum over rows sorted once (areas under curves, ties by group). The tests hold the two
to each other.

A value that does not exist is nan, never an exception and never a convention's 0: the AUC of a single class, the
average precision without positives, R² of constant truth. Probabilities are clipped at the float64 epsilon in the log
loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn import metrics as sk

from core.errors import InputError

Needs = Literal["score", "probability", "label", "value"]
Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[[Array, Array], float]
Weighted = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Metric:
    """A named metric.

    Attributes:
        name: the key in tables and JSON.
        function: ``(truth, prediction) -> float``, nan where undefined.
        greater_is_better: the direction.
        needs: what is read from the prediction: ``score`` (its order alone), ``probability`` (calibration counts),
            ``label`` (the class decided on), ``value`` (a number in the target's unit).
        weighted: ``(truth (N,), prediction, weights (R, N)) -> (R,)``, the metric under each row of non-negative
        weights;
            None if it can only be computed resample by resample.

    >>> BINARY["auc"](np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """

    name: str
    function: Function
    greater_is_better: bool
    needs: Needs
    weighted: Weighted | None = None

    def __call__(self, truth: Shaped[np.ndarray, "N *K"], prediction: Shaped[np.ndarray, "N *C"]) -> float:
        """The metric's value; nan where it is undefined. Raises `InputError` for arrays of another form."""
        return float(self.function(truth, prediction))


def binary_metrics(threshold: float = 0.5) -> dict[str, Metric]:
    """The binary table; class 1 is decided on where its probability reaches ``threshold``.

    >>> sorted(binary_metrics(0.3))
    ['accuracy', 'auc', 'average_precision', 'balanced_accuracy', 'brier', 'f1', 'log_loss']
    """

    def label(p: Array) -> Array:
        return (p >= threshold).astype(np.int64)

    def scored(name: str, function: Function, weighted: Weighted, needs: Needs, greater: bool = True) -> Metric:
        return Metric(name, _checked(_binary, function), greater, needs, _checked(_binary, weighted))

    return _table(
        scored("auc", _defined_on_two(sk.roc_auc_score), _weighted_auc, "score"),
        scored("average_precision", _average_precision, _weighted_average_precision, "score"),
        scored("log_loss", _log_loss, _mean(_log_loss_rows), "probability", greater=False),
        scored("brier", sk.brier_score_loss, _mean(lambda t, p: (t - p) ** 2), "probability", greater=False),
        scored("accuracy", lambda t, p: sk.accuracy_score(t, label(p)), _mean(lambda t, p: t == label(p)), "label"),
        scored(
            "balanced_accuracy",
            _defined_on_two(lambda t, p: sk.balanced_accuracy_score(t, label(p))),
            lambda t, p, w: _weighted_balanced_accuracy(t, label(p), w),
            "label",
        ),
        scored(
            "f1",
            lambda t, p: sk.f1_score(t, label(p), zero_division=np.nan),
            lambda t, p, w: _weighted_f1(t, label(p), w),
            "label",
        ),
    )


def multiclass_metrics() -> dict[str, Metric]:
    """The table for C > 2 classes: the class decided on is the most probable one.

    ``auc_macro`` is the plain mean over classes of one against the rest, and needs every class among the truth;
    ``balanced_accuracy`` is the mean recall of the classes that occur, of which there must be two.
    """

    def scored(name: str, function: Function, weighted: Weighted, needs: Needs, greater: bool = True) -> Metric:
        return Metric(name, _checked(_multiclass, function), greater, needs, _checked(_multiclass, weighted))

    return _table(
        scored("accuracy", lambda t, p: sk.accuracy_score(t, _top(p)), _mean(lambda t, p: t == _top(p)), "label"),
        scored(
            "balanced_accuracy",
            _defined_on_two(lambda t, p: _balanced_accuracy(t, _top(p))),
            lambda t, p, w: _weighted_balanced_accuracy(t, _top(p), w),
            "label",
        ),
        scored("log_loss", _log_loss, _mean(_log_loss_rows), "probability", greater=False),
        scored("auc_macro", _macro_auc, _weighted_macro_auc, "score"),
    )


def regression_metrics() -> dict[str, Metric]:
    """The regression table; ``rmse`` and ``mae`` have the target's unit.

    ``nrmse`` is the root mean squared error over the (population) standard deviation of the truth, so that 1 is the
    error of predicting the mean, and ``nrmse² = 1 - r2``.
    """

    def scored(name: str, function: Function, weighted: Weighted, greater: bool = False) -> Metric:
        return Metric(name, _checked(_numbers, function), greater, "value", _checked(_numbers, weighted))

    return _table(
        scored("rmse", sk.root_mean_squared_error, lambda t, p, w: np.sqrt(_weighted_mean(w, (t - p) ** 2))),
        scored("mae", sk.mean_absolute_error, _mean(lambda t, p: np.abs(t - p))),
        scored("r2", lambda t, p: sk.r2_score(t, p) if np.ptp(t) > 0 else np.nan, _weighted_r2, greater=True),
        scored(
            "nrmse",
            lambda t, p: sk.root_mean_squared_error(t, p) / t.std() if np.ptp(t) > 0 else np.nan,
            lambda t, p, w: np.sqrt(1 - _weighted_r2(t, p, w)),
        ),
    )


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


# --- the form of the arguments ----------------------------------------------------------------------------------------


def _checked(
    prepare: Callable[[Array, Array], tuple[Array, Array]], function: Callable[..., Any]
) -> Callable[..., Any]:
    return partial(_call, prepare, function)


def _call(prepare: Callable[[Array, Array], tuple[Array, Array]], function: Callable[..., Any], *args: Array) -> Any:
    return function(*prepare(args[0], args[1]), *args[2:])


def _binary(truth: Array, probability: Array) -> tuple[Array, Array]:
    truth, probability = np.asarray(truth), np.asarray(probability, dtype=np.float64)
    _same_rows(truth, probability, dimensions=1)
    if not np.isin(truth, (0, 1)).all():
        raise InputError("binary truth must hold 0 and 1 only", mend="encode the classes first")
    _in_unit_interval(probability)
    return truth.astype(np.int64), probability


def _multiclass(truth: Array, probability: Array) -> tuple[Array, Array]:
    truth, probability = np.asarray(truth), np.asarray(probability, dtype=np.float64)
    _same_rows(truth, probability, dimensions=2)
    codes = truth.astype(np.int64)
    if (codes != truth).any() or (codes < 0).any() or (codes >= probability.shape[1]).any():
        raise InputError(f"multiclass truth must hold class codes from 0 to {probability.shape[1] - 1}")
    _in_unit_interval(probability)
    total = probability.sum(axis=1, keepdims=True)
    if (np.abs(total - 1) > 1e-3).any():
        raise InputError("the probabilities of a row must sum to 1")
    return codes, probability / total  # rows of a float32 softmax miss 1 by more than scikit-learn lets pass


def _numbers(truth: Array, prediction: Array) -> tuple[Array, Array]:
    truth, prediction = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    _same_rows(truth, prediction, dimensions=1)
    if not (np.isfinite(truth).all() and np.isfinite(prediction).all()):
        raise InputError("truth and prediction must be finite numbers")
    return truth, prediction


def _same_rows(truth: Array, prediction: Array, dimensions: int) -> None:
    if truth.ndim != 1 or prediction.ndim != dimensions or len(truth) != len(prediction) or not len(truth):
        wanted = "(N,)" if dimensions == 1 else "(N, C)"
        raise InputError(f"a metric wants truth (N,) and prediction {wanted}, got {truth.shape} and {prediction.shape}")


def _in_unit_interval(probability: Array) -> None:
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InputError("probabilities must lie between 0 and 1")


# --- single values: scikit-learn where it is defined ------------------------------------------------------------------


def _defined_on_two(function: Function) -> Function:
    return lambda t, p: function(t, p) if np.ptp(t) > 0 else np.nan


def _average_precision(truth: Int[np.ndarray, "N"], p: Float[np.ndarray, "N"]) -> float:
    return float(sk.average_precision_score(truth, p)) if truth.any() else float("nan")


def _log_loss(truth: Int[np.ndarray, "N"], p: Float[np.ndarray, "N *C"]) -> float:
    return float(sk.log_loss(truth, p, labels=np.arange(2 if p.ndim == 1 else p.shape[1])))


def _top(p: Float[np.ndarray, "N C"]) -> Int[np.ndarray, "N"]:
    result: Array = p.argmax(axis=1)
    return result


def _balanced_accuracy(truth: Int[np.ndarray, "N"], label: Int[np.ndarray, "N"]) -> float:
    # recall over the classes that occur: scikit-learn's value, without its warning about labels that only the model
    # gives
    return float(sk.recall_score(truth, label, labels=np.unique(truth), average="macro"))


def _macro_auc(truth: Int[np.ndarray, "N"], p: Float[np.ndarray, "N C"]) -> float:
    if len(np.unique(truth)) < p.shape[1]:
        return float("nan")
    return float(np.mean([sk.roc_auc_score(truth == c, p[:, c]) for c in range(p.shape[1])]))


# --- many weightings at once ------------------------------------------------------------------------------------------


def _weighted_mean(w: Float[np.ndarray, "R N"], rows: Shaped[np.ndarray, "N"]) -> Float[np.ndarray, "R"]:
    result: Array = (w @ rows.astype(np.float64)) / w.sum(axis=1)
    return result


def _mean(rows: Callable[[Array, Array], Array]) -> Weighted:
    return lambda t, p, w: _weighted_mean(w, rows(t, p))


def _ratio(above: Float[np.ndarray, "*R"], below: Float[np.ndarray, "*R"]) -> Float[np.ndarray, "*R"]:
    result: Array = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return result


def _log_loss_rows(truth: Int[np.ndarray, "N"], p: Float[np.ndarray, "N *C"]) -> Float[np.ndarray, "N"]:
    of_truth = np.where(truth == 1, p, 1 - p) if p.ndim == 1 else np.take_along_axis(p, truth[:, None], axis=1)[:, 0]
    epsilon = np.finfo(np.float64).eps
    result: Array = -np.log(np.clip(of_truth, epsilon, 1 - epsilon))
    return result


def _steps(
    truth: Shaped[np.ndarray, "N"], score: Float[np.ndarray, "N"], w: Float[np.ndarray, "R N"]
) -> tuple[Float[np.ndarray, "R K"], Float[np.ndarray, "R K"]]:
    """Weight of positives and of negatives at each of the K distinct scores, highest score first."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    w = w[:, order]
    positive = w * truth[order]
    negative = w - positive
    if len(first) == len(score):
        return positive, negative
    return np.add.reduceat(positive, first, axis=1), np.add.reduceat(negative, first, axis=1)


def _weighted_auc(truth: Array, score: Array, w: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    # Mann-Whitney: of all pairs, those with the positive above, ties counted half
    positive, negative = _steps(truth, score, w)
    above = np.cumsum(positive, axis=1) - 0.5 * positive
    return _ratio(np.einsum("rk,rk->r", above, negative), positive.sum(axis=1) * negative.sum(axis=1))


def _weighted_average_precision(truth: Array, score: Array, w: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    positive, negative = _steps(truth, score, w)
    hits = np.cumsum(positive, axis=1)
    taken = hits + np.cumsum(negative, axis=1)
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    return _ratio(np.einsum("rk,rk->r", precision, positive), positive.sum(axis=1))


def _weighted_balanced_accuracy(truth: Array, label: Array, w: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    classes = np.unique(truth)
    of_class = (truth[:, None] == classes).astype(np.float64)
    recall = _ratio(w @ (of_class * (truth == label)[:, None]), w @ of_class)
    present = np.isfinite(recall)
    count = present.sum(axis=1).astype(np.float64)
    total = np.where(present, recall, 0.0).sum(axis=1)
    return _ratio(np.where(count > 1, total, np.nan), count)


def _weighted_f1(truth: Array, label: Array, w: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    return _ratio(2 * w @ (truth * label).astype(np.float64), w @ (truth + label).astype(np.float64))


def _weighted_macro_auc(
    truth: Array, p: Float[np.ndarray, "N C"], w: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, "R"]:
    areas = [_weighted_auc(truth == c, p[:, c], w) for c in range(p.shape[1])]
    result: Array = np.mean(areas, axis=0)
    return result


def _weighted_r2(truth: Array, prediction: Array, w: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    centred = truth - truth.mean()  # a constant far from zero must not eat the digits
    spread = _weighted_mean(w, centred**2) - _weighted_mean(w, centred) ** 2
    spread = np.where(spread > 1e-12 * np.mean(centred**2), spread, 0.0)
    return 1 - _ratio(_weighted_mean(w, (truth - prediction) ** 2), spread)


BINARY: Mapping[str, Metric] = binary_metrics()
"""The binary metrics at threshold one half."""
MULTICLASS: Mapping[str, Metric] = multiclass_metrics()
REGRESSION: Mapping[str, Metric] = regression_metrics()
