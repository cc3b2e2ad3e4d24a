"""Reliability by hand, temperatures that are known, and the finite-sample promise of conformal intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy import stats
from sklearn.calibration import calibration_curve

from core.errors import InputError
from core.evaluation.calibration import (
    ConformalInterval,
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability,
    top_label,
    wilson,
)


def sample(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 1.3, n)
    return (rng.random(n) < p).astype(int), p


def test_equal_width_bins_are_scikit_learns() -> None:
    truth, p = sample(700)
    observed, predicted = calibration_curve(truth, p, n_bins=8, strategy="uniform")
    curve = reliability(truth, p, bins=8, strategy="width")
    np.testing.assert_allclose(curve.observed, observed)
    np.testing.assert_allclose(curve.predicted, predicted)


def test_equal_mass_bins_are_equally_full_and_keep_ties_together() -> None:
    truth, p = sample(700)
    assert set(reliability(truth, p, bins=10).count.tolist()) == {70}
    tied = p.round(1)
    curve = reliability(truth, tied, bins=10)
    assert curve.count.sum() == 700
    for value in np.unique(tied):  # a bin's mean lies within its own values: no value was cut in two
        assert np.sum(np.isclose(curve.predicted, value)) <= 1
    edges = np.r_[0, np.cumsum(curve.count)]
    ordered = np.sort(tied)
    assert all(ordered[e - 1] < ordered[e] for e in edges[1:-1])


def test_wilson_is_scipys() -> None:
    for k, n in [(0, 7), (3, 7), (7, 7), (40, 55)]:
        expected = stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
        low, high = wilson(np.array([k / n]), np.array([n]), 0.9)
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_calibrated_probabilities_have_a_small_error_and_skewed_ones_a_known_one() -> None:
    truth, p = sample(50_000)
    assert expected_calibration_error(truth, p) < 0.012
    assert expected_calibration_error(truth, 0.5 * p) == pytest.approx(0.5 * p.mean(), abs=0.012)
    constant = np.full(1000, 0.3)
    assert expected_calibration_error(np.r_[np.ones(500, int), np.zeros(500, int)], constant) == pytest.approx(0.2)


def test_intervals_hold_the_diagonal_when_calibrated() -> None:
    inside = total = 0
    for seed in range(40):
        curve = reliability(*sample(1000, seed), bins=10)
        inside += int(np.sum((curve.low <= curve.predicted) & (curve.predicted <= curve.high)))
        total += len(curve.count)
    assert stats.binomtest(inside, total, 0.95).pvalue > 0.001


def test_top_label_feeds_reliability() -> None:
    correct, confidence = top_label(np.array([0, 1, 2]), np.array([[0.6, 0.4, 0.0], [0.5, 0.3, 0.2], [0.0, 0.1, 0.9]]))
    assert correct.tolist() == [True, False, True]
    assert reliability(correct, confidence, bins=1).observed.tolist() == [pytest.approx(2 / 3)]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2, (40_000, 3))
    p = apply_temperature(logits, temperature)
    truth = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1).clip(max=2)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.03)
    binary = rng.normal(0, 2, 40_000)
    labels = rng.random(40_000) < apply_temperature(binary, temperature)
    assert fit_temperature(binary, labels) == pytest.approx(temperature, rel=0.05)


def test_two_classes_are_the_same_as_one_logit_and_log_probabilities_as_logits() -> None:
    rng = np.random.default_rng(8)
    logit = rng.normal(0, 4, 300)
    truth = (rng.random(300) < 0.5 + 0.3 * np.sign(logit)).astype(int)
    pair = np.stack([np.zeros(300), logit], axis=1)
    expected = fit_temperature(logit, truth)
    assert fit_temperature(pair, truth) == pytest.approx(expected, rel=1e-6)
    assert fit_temperature(np.log(apply_temperature(pair, 1.0)), truth) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(apply_temperature(pair, 1.7)[:, 1], apply_temperature(logit, 1.7), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.floats(0.1, 100))
def test_temperature_never_hurts_and_never_changes_the_class(seed: int, classes: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (37, classes))
    truth = rng.integers(0, classes, 37)
    temperature = fit_temperature(logits, truth)
    calibrated = apply_temperature(logits, temperature)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), logits.argmax(axis=1))

    def loss(t: float) -> float:
        z = logits / t
        return float(np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(37), truth]))

    assert loss(temperature) <= loss(1.0) + 1e-9


def test_extreme_temperatures_stay_in_bounds() -> None:
    logits = np.array([[0.1, 0.0], [0.0, 0.1]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.02, rel=1e-3)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(50.0, rel=1e-3)


@pytest.mark.parametrize(("coverage", "n"), [(0.9, 9), (0.9, 19), (0.7, 9), (0.95, 59), (0.8, 24), (0.99, 99)])
def test_the_rank_is_exact_where_floating_point_is_not(coverage: float, n: int) -> None:
    from fractions import Fraction

    rank = math.ceil((n + 1) * Fraction(str(coverage)))
    residual = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert ConformalInterval.fit(residual, np.zeros(n), coverage=coverage).quantile == rank


def test_too_few_rows_give_an_infinite_interval_and_say_so() -> None:
    interval = ConformalInterval.fit(np.arange(18.0), np.zeros(18), coverage=0.95)
    assert math.isinf(interval.quantile)
    assert interval.note == "18 calibration rows cannot bound a 95% interval: it takes 19"
    low, high = interval.apply(np.zeros(2))
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()
    enough = ConformalInterval.fit(np.arange(19.0), np.zeros(19), coverage=0.95)
    assert (enough.quantile, enough.note) == (18.0, "")


@pytest.mark.parametrize("n", [19, 37])
def test_coverage_is_the_finite_sample_one(n: int) -> None:
    # for continuous residuals the coverage over calibration sets and new rows is exactly ceil((n+1) 0.9) / (n+1)
    rng = np.random.default_rng(n)
    trials, hits = 20_000, 0
    noise = rng.standard_t(3, (trials, n + 1))
    for row in noise:
        low, high = ConformalInterval.fit(row[:n], np.zeros(n), coverage=0.9).apply(np.zeros(1))
        hits += int(low[0] <= row[n] <= high[0])
    expected = math.ceil(round((n + 1) * 0.9, 9)) / (n + 1)
    assert hits / trials == pytest.approx(expected, abs=3.5 * math.sqrt(expected * (1 - expected) / trials))


def test_a_scale_follows_the_noise_and_keeps_the_coverage() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 3.0, 8000)
    truth = scale * rng.normal(size=8000)
    fit, new = slice(0, 4000), slice(4000, None)
    scaled = ConformalInterval.fit(truth[fit], np.zeros(4000), scale[fit])
    plain = ConformalInterval.fit(truth[fit], np.zeros(4000))
    for interval, s in ((scaled, scale[new]), (plain, None)):
        low, high = interval.apply(np.zeros(4000), s)
        assert np.mean((low <= truth[new]) & (truth[new] <= high)) == pytest.approx(0.9, abs=0.02)
    low, high = scaled.apply(np.zeros(4000), scale[new])
    noisy = scale[new] > 2.5
    assert np.mean((low <= truth[new])[noisy] & (truth[new] <= high)[noisy]) == pytest.approx(0.9, abs=0.03)
    low, high = plain.apply(np.zeros(4000))
    assert np.mean((low <= truth[new])[noisy] & (truth[new] <= high)[noisy]) < 0.8


def test_scale_is_used_as_it_was_fitted() -> None:
    scaled = ConformalInterval.fit(np.arange(30.0), np.zeros(30), np.ones(30))
    with pytest.raises(InputError, match="fitted with a scale"):
        scaled.apply(np.zeros(3))
    with pytest.raises(InputError, match="positive"):
        scaled.apply(np.zeros(2), np.array([1.0, 0.0]))


def test_wrong_input_is_named() -> None:
    for truth, p in [([0, 2], [0.1, 0.2]), ([0, 1], [0.1, 1.1]), ([0, 1], [0.1]), ([0, 1], [0.1, math.nan])]:
        with pytest.raises((InputError, TypeCheckError)):
            reliability(np.array(truth), np.array(p))
    with pytest.raises(InputError, match="finite"):
        fit_temperature(np.array([1.0, math.inf]), np.array([0, 1]))
    with pytest.raises(InputError, match="no logit"):
        fit_temperature(np.zeros((2, 2)), np.array([0, 2]))
    with pytest.raises(InputError, match="finite"):
        ConformalInterval.fit(np.array([math.nan]), np.zeros(1))
