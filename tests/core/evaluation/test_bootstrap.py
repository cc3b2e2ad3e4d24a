"""Coverage and false alarms on simulations, closed forms, groups, strata, determinism."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import stats

from core.errors import InputError
from core.evaluation.bootstrap import bootstrap, holm, paired
from core.evaluation.metrics import BINARY, MULTICLASS, REGRESSION, Metric

Simulate = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def mean_of(values: np.ndarray) -> float:
    return float(values.mean())


# the mean of per-row numbers with the fast path: |0 - x| averaged
MEAN = REGRESSION["mae"]


def covered(simulate: Simulate, metric: Metric, true: float) -> int:
    hits = 0
    for seed in range(200):
        truth, prediction = simulate(np.random.default_rng(seed))
        estimate = bootstrap(metric, truth, prediction, n=500, seed=seed)
        hits += estimate.low <= true <= estimate.high
    return hits


# of 200 intervals at 95 %, fewer than 180 cover with probability 0.002 and all 200 with 4e-5
@pytest.mark.parametrize(
    ("metric", "simulate", "true"),
    [
        (MEAN, lambda rng: (np.zeros(120), rng.exponential(2.0, 120)), 2.0),
        (REGRESSION["rmse"], lambda rng: (np.zeros(150), rng.normal(0.0, 3.0, 150)), 3.0),
        (BINARY["accuracy"], lambda rng: (np.ones(90, int), (rng.random(90) < 0.9).astype(float)), 0.9),
        (
            BINARY["auc"],
            lambda rng: ((y := rng.integers(0, 2, 150)), stats.norm.cdf(rng.normal(1.2 * y))),
            float(stats.norm.cdf(1.2 / math.sqrt(2))),
        ),
    ],
    ids=["mean", "rmse", "accuracy", "auc"],
)
def test_intervals_cover_as_often_as_they_say(metric: Metric, simulate: Simulate, true: float) -> None:
    assert 180 <= covered(simulate, metric, true) <= 199


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    x = np.random.default_rng(2).normal(size=1000)
    estimate = bootstrap(mean_of, x, n=2000)
    error = x.std() / math.sqrt(1000)
    assert estimate.error == pytest.approx(error, rel=0.06)
    assert (estimate.low, estimate.high) == pytest.approx(
        (x.mean() - 1.96 * error, x.mean() + 1.96 * error), abs=0.2 * error
    )


def test_bca_is_second_order_correct_for_a_skewed_mean() -> None:
    x = np.random.default_rng(8).exponential(size=400)
    estimate = bootstrap(MEAN, np.zeros(400), x, n=20_000)
    # Johnson's expansion of the mean's interval moves both ends up by skew (1 + 2 z²) / (6 n) sd; BCa follows it
    error, skew = x.std() / 20, stats.skew(x)
    centre = (estimate.low + estimate.high) / 2 - x.mean()
    assert centre == pytest.approx(error * skew * (1 + 2 * 1.96**2) / 6 / 20, rel=0.25)


def test_the_fast_path_and_the_plain_loop_agree_to_the_last_resample() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 81)
    p = rng.random(81).round(2)
    slow = Metric("auc", BINARY["auc"].function, True, "score")
    fast, plain = bootstrap(BINARY["auc"], truth, p, n=200), bootstrap(slow, truth, p, n=200)
    assert (fast.low, fast.high) == pytest.approx((plain.low, plain.high), rel=1e-12)


def test_seeds_decide_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    truth, p = rng.integers(0, 2, 300), rng.random(300)
    first = bootstrap(BINARY["auc"], truth, p)
    assert bootstrap(BINARY["auc"], truth, p) == first
    assert bootstrap(BINARY["auc"], truth, p, seed=1) != first
    monkeypatch.setattr("core.evaluation.resampling._CELLS", 7000)
    chunked = bootstrap(BINARY["auc"], truth, p)
    assert (chunked.low, chunked.high) == pytest.approx((first.low, first.high), rel=1e-12)


def test_groups_widen_the_interval_to_what_the_design_says() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(100), 10)
    x = rng.normal(size=100)[groups] + 0.5 * rng.normal(size=1000)
    rows, whole = bootstrap(mean_of, x), bootstrap(mean_of, x, groups=np.array([f"p{g}" for g in groups]))
    # variance of a mean of 100 group means against that of 1000 rows taken as independent
    expected = math.sqrt(x.reshape(100, 10).mean(axis=1).var() / 100 / (x.var() / 1000))
    assert expected > 2.5
    assert whole.error / rows.error == pytest.approx(expected, rel=0.1)
    assert (rows.units, whole.units) == (1000, 100)


def test_strata_keep_a_rare_class_alive() -> None:
    rng = np.random.default_rng(6)
    truth = np.r_[np.ones(2, int), np.zeros(98, int)]
    p = rng.random(100)
    plain, stratified = bootstrap(BINARY["auc"], truth, p), bootstrap(BINARY["auc"], truth, p, strata=truth)
    assert 0 < plain.n - plain.n_valid < 300
    assert f"undefined in {plain.n - plain.n_valid} of 1000" in plain.note
    assert stratified.n_valid == 1000
    assert stratified.note == ""


def test_every_stratum_keeps_its_size() -> None:
    strata = np.repeat(np.array(["a", "b", "c"]), [3, 50, 7])
    seen: set[tuple[int, ...]] = set()
    bootstrap(
        lambda s, x: seen.add(tuple(np.unique(s, return_counts=True)[1])) or x.mean(),
        strata,
        np.arange(60.0),
        strata=strata,
        n=50,
    )
    whole = (3, 50, 7)
    deleted = {tuple(np.subtract(whole, step)) for step in np.eye(3, dtype=int)}
    assert seen == {whole} | deleted


def test_a_metric_that_is_undefined_or_constant_says_so() -> None:
    undefined = bootstrap(BINARY["auc"], np.ones(50, int), np.linspace(0, 1, 50))
    assert math.isnan(undefined.value)
    assert math.isnan(undefined.low)
    assert undefined.n_valid == 0
    perfect = bootstrap(BINARY["accuracy"], np.ones(50, int), np.ones(50))
    assert (perfect.low, perfect.high) == (1.0, 1.0)
    assert "says nothing" in perfect.note
    assert "only 12 independent units" in bootstrap(mean_of, np.arange(12.0)).note


def test_one_row_has_a_value_and_no_interval() -> None:
    estimate = bootstrap(mean_of, np.array([3.0]))
    assert estimate.value == 3.0
    assert math.isnan(estimate.high)


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": np.zeros(3)},
        {"n": 0},
        {"confidence": 1.0},
        {"groups": np.array([0, 0, 1, 1]), "strata": np.array([0, 1, 1, 1])},
    ],
)
def test_wrong_plans_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((InputError, TypeCheckError)):
        bootstrap(mean_of, np.arange(4.0), **wrong)  # type: ignore[arg-type]


def models(rng: np.random.Generator, gap: float, n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    a, b = (truth * strength + shared + 0.7 * rng.normal(size=n) for strength in (1.2 + gap, 1.2))
    return truth, stats.norm.cdf(a), stats.norm.cdf(3 * b)  # other scale, same order


def test_false_alarms_stay_at_five_per_cent() -> None:
    alarms = {"auc": 0, "log_loss": 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth, a, b = models(rng, 0.0)
        alarms["auc"] += paired(BINARY["auc"], truth, a, b, n=400, seed=seed).p < 0.05
        # equal in distribution for the log loss: same scale
        a, b = (np.clip(truth * 0.5 + 0.5 * rng.random(200), 0.01, 0.99) for _ in range(2))
        alarms["log_loss"] += paired(BINARY["log_loss"], truth, a, b, n=400, seed=seed).p < 0.05
    # 26 or more of 300 at a true 5 % has probability 0.004
    assert max(alarms.values()) <= 25, alarms
    assert min(alarms.values()) >= 3, alarms


def test_the_smallest_effect_is_found_four_times_in_five() -> None:
    found = 0
    smallest = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.normal(0.4, 1.0, 49)  # 0.4 = 2.8 standard errors of 1/7: what 80 % power asks for
        result = paired(MEAN, np.zeros(49), 10 + x, np.full(49, 10.0), n=400, seed=seed)
        found += result.p < 0.05
        smallest.append(result.smallest_effect)
    assert 145 <= found <= 175  # 160 ± 2.7 binomial deviations
    assert np.mean(smallest) == pytest.approx(2.8016 / 7, rel=0.03)


def test_interval_and_p_value_agree() -> None:
    for seed in range(60):
        truth, a, b = models(np.random.default_rng(seed), 0.25)
        result = paired(BINARY["auc"], truth, a, b, n=199, seed=seed)
        assert (result.p <= 0.05) == (result.low > 0 or result.high < 0)
        assert result.value == pytest.approx(BINARY["auc"](truth, a) - BINARY["auc"](truth, b))


def test_pairing_sees_what_two_intervals_cannot() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 10, 300)
    hard = rng.normal(0, 5, 300)
    a, b = truth + hard, truth + 1.1 * hard
    result = paired(REGRESSION["rmse"], truth, a, b)
    assert result.p < 0.001
    assert bootstrap(REGRESSION["rmse"], truth, a).high > bootstrap(REGRESSION["rmse"], truth, b).low


def test_swapping_the_models_turns_the_sign_and_nothing_else() -> None:
    truth, a, b = models(np.random.default_rng(9), 0.3)
    one, other = paired(BINARY["auc"], truth, a, b), paired(BINARY["auc"], truth, b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


def test_equal_predictions_differ_by_nothing() -> None:
    truth, a, _ = models(np.random.default_rng(9), 0.3)
    result = paired(BINARY["auc"], truth, a, a.copy())
    assert (result.value, result.p, result.smallest_effect) == (0.0, 1.0, 0.0)
    assert "says nothing" in result.note


def test_groups_make_the_paired_test_honest() -> None:
    alarms = dict.fromkeys(("rows", "groups"), 0)
    groups = np.repeat(np.arange(40), 8)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        error = rng.normal(size=40)[groups]  # one model's luck with a whole patient
        a, b = 10 + error, np.full(320, 10.0)
        alarms["rows"] += paired(MEAN, np.zeros(320), a, b, n=300, seed=seed).p < 0.05
        alarms["groups"] += paired(MEAN, np.zeros(320), a, b, groups=groups, n=300, seed=seed).p < 0.05
    assert alarms["rows"] > 30
    assert alarms["groups"] <= 13


def test_multiclass_probabilities_can_be_paired() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 100)
    good = np.full((100, 3), 0.1) + 0.7 * np.eye(3)[truth]
    poor = np.full((100, 3), 1 / 3)
    result = paired(MULTICLASS["log_loss"], truth, good, poor)
    assert result.value == pytest.approx(math.log(3) * -1 - math.log(0.8), rel=1e-9)


def test_holm_against_the_textbook_and_nan() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04]).tolist() == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    corrected = holm([0.02, math.nan, 0.01])
    assert corrected[[0, 2]].tolist() == pytest.approx([0.02, 0.02])
    assert math.isnan(corrected[1])
    assert holm([]).shape == (0,)
