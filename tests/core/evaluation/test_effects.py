"""False alarms, coverage and power on simulations; closed forms; what drops out; what cannot be told apart."""

import math

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import special, stats

from core.errors import InputError
from core.evaluation.bootstrap import holm
from core.evaluation.effects import contrast, effect, level, verdict
from core.evaluation.metrics import BINARY, REGRESSION, Metric
from core.evaluation.replicates import Replicates, replicate
from core.evaluation.spread import Spread

MEAN = REGRESSION["mae"]  # of rows around 10 against a truth of 0: their mean
RATE = Metric("rate", lambda t, e: e.sum() / t.sum(), False, "value", lambda t, e, w: (w @ e) / (w @ t))
NOISE = 3 * math.sqrt(0.05 * 0.95)  # over the root of the comparisons
PARTS = ((1.0, 0.0, 0.2), (0.1, 0.0, 1.0), (0.5, 1.0, 0.5), (0.2, 3.0, 0.2), (0.0, 1.0, 0.3))
"""Deviation of the units, of the seeds (as a share of what the units make of the mean), of the rest."""
Arrays = tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]


def rows(
    rng: np.random.Generator,
    n: int,
    seeds: int,
    parts: tuple[float, float, float],
    gap: float = 0.0,
    skew: bool = False,
) -> Arrays:
    """Truth and both arms, whose means differ by the gap in the long run."""
    of_units, of_seeds, of_rest = parts
    unit = rng.exponential(size=n) - 1 if skew else rng.normal(size=n)
    seed = of_seeds * max(of_units, of_rest) / math.sqrt(n) * rng.normal(size=(seeds, 1))
    shift = gap + of_units * unit + seed + of_rest * rng.normal(size=(seeds, n))
    base = 20 + rng.normal(size=n)
    return np.zeros(n), list(base + shift), [base] * seeds


def classes(rng: np.random.Generator, n: int, seeds: int, share: float = 0.3) -> Arrays:
    """Two arms of equal worth in the long run, whose trainings vary in strength."""
    truth = (rng.random(n) < share).astype(np.int64)
    truth[:2] = 1
    hard = rng.normal(size=n)

    def arm() -> list[np.ndarray]:
        strength, own = 1.5 + 0.1 * rng.normal(size=(seeds, 1)), 0.3 * rng.normal(size=n)
        return list(special.ndtr(strength * truth - 0.7 + hard + own + 0.5 * rng.normal(size=(seeds, n))))

    return truth, arm(), arm()


def counts(rng: np.random.Generator, n: int, seeds: int) -> Arrays:
    """Errors of utterances, most of them in a few."""
    length, hard = rng.integers(3, 30, n).astype(float), rng.gamma(0.7, 0.25, n)

    def arm() -> list[np.ndarray]:
        own = np.exp(0.2 * rng.normal(size=n) + 0.05 * rng.normal(size=(seeds, 1)))
        return list(rng.poisson(length * hard * own).astype(float))

    return length, arm(), arm()


def test_five_per_cent_of_a_thousand_comparisons_without_effect_are_called_one() -> None:
    alarms = dict.fromkeys(("mean", "auc", "rate"), 0)
    for number in range(1000):
        rng = np.random.default_rng(number)
        seeds, n = (2, 3, 5, 10)[number % 4], (30, 60, 150)[number // 4 % 3]
        kind = ("mean", "mean", "auc", "rate")[number // 12 % 4]
        if kind == "mean":
            found = effect(MEAN, *rows(rng, n, seeds, PARTS[number % 5]), n=200, seed=number)
        elif kind == "auc":
            truth, a, b = classes(rng, n, seeds)
            found = effect(BINARY["auc"], truth, a, b, strata=truth, n=200, seed=number)
        else:
            found = effect(RATE, *counts(rng, n, seeds), n=200, seed=number)
        alarms[kind] += found.p < 0.05
    assert sum(alarms.values()) / 1000 <= 0.05 + NOISE / math.sqrt(1000), alarms
    assert sum(alarms.values()) >= 10, alarms  # a test that never speaks is no test


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_a_real_effect_and_twice_the_smallest_visible_one_is_found(seeds: int) -> None:
    parts, n, repeats = (0.5, 0.5, 1.0), 100, 250
    smallest = np.mean(
        [effect(MEAN, *rows(np.random.default_rng(i), n, seeds, parts), n=200).smallest_effect for i in range(30)]
    )
    covered = found = seen = 0
    for number in range(repeats):
        large = effect(MEAN, *rows(np.random.default_rng(number), n, seeds, parts, 2 * smallest), n=200, seed=number)
        covered += large.low <= 2 * smallest <= large.high
        found += large.p < 0.05
        # the same draws with half the effect: the mean is moved by as much, and nothing else is
        seen += abs(large.value - smallest) > large.value - large.low
    assert covered / repeats >= 0.93
    assert found / repeats > 0.9
    assert seen / repeats > 0.7  # promised: 0.8


def test_studies_of_six_equal_arms_call_any_of_them_in_five_per_cent() -> None:
    studies, alarms = 200, 0
    for number in range(studies):
        rng = np.random.default_rng(number)
        own, rest = (0.5, 0.5) if number % 2 else (0.1, 1.0)
        shared = 20 + rng.normal(size=80)
        arms = [
            shared + own * rng.normal(size=80) + 0.05 * rng.normal(size=(4, 1)) + rest * rng.normal(size=(4, 80))
            for _ in range(6)
        ]
        runs = replicate(MEAN, np.zeros(80), [run for arm in arms for run in arm], n=200, seed=number)
        each = [runs.some(slice(4 * i, 4 * i + 4)) for i in range(6)]
        alarms += holm([contrast(arm, each[0]).p for arm in each[1:]]).min() < 0.05
    assert alarms / studies <= 0.05 + NOISE / math.sqrt(studies)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("n", [30, 300, 2000])
@pytest.mark.parametrize("kind", ["mean", "skewed", "groups", "auc", "rare", "accuracy", "rate", "rmse"])
def test_false_alarms_in_many_settings(kind: str, n: int, seeds: int) -> None:
    repeats, alarms = 300 if n < 2000 else 100, 0
    for number in range(repeats):
        rng = np.random.default_rng((number, n, seeds))
        more: dict[str, np.ndarray] = {}
        parts = PARTS[number % 5] if seeds > 1 else (1.0, 0.0, 0.2)
        metric, (truth, a, b) = MEAN, rows(rng, n, seeds, parts, skew=kind == "skewed")
        if kind == "groups":
            more["groups"] = np.arange(3 * n) // 3
            truth, a, b = np.zeros(3 * n), *([np.repeat(run, 3) for run in arm] for arm in (a, b))
        elif kind in ("auc", "rare"):
            metric, (truth, a, b) = BINARY["auc"], classes(rng, n, seeds, 0.3 if kind == "auc" else 0.03)
            more["strata"] = truth
        elif kind == "accuracy":
            metric, (truth, a, b) = BINARY["accuracy"], classes(rng, n, seeds)
        elif kind == "rate":
            metric, (truth, a, b) = RATE, counts(rng, n, seeds)
        elif kind == "rmse":
            hard, metric = rng.standard_t(3, size=n), REGRESSION["rmse"]
            truth, (a, b) = np.zeros(n), [list(hard * (1 + 0.3 * rng.normal(size=(seeds, n)))) for _ in range(2)]
        alarms += effect(metric, truth, a, b, n=300, seed=number, **more).p < 0.05
    assert alarms / repeats <= 0.05 + NOISE / math.sqrt(repeats)


def test_welch_and_satterthwaite_would_not_do_and_this_does() -> None:
    rng = np.random.default_rng(0)
    alarms = dict.fromkeys(("ours", "welch"), 0)
    of_units, of_seeds = 0.1, 0.9
    for _ in range(4000):
        drawn = of_seeds * rng.chisquare(1)
        distance = abs(rng.normal()) * math.sqrt(of_units + of_seeds)
        units = math.sqrt(of_units)
        alarms["ours"] += Spread(units, units, math.sqrt(drawn), 500.0, 1, 0.0).p(distance) < 0.05
        df = (of_units + drawn) ** 2 / (of_units**2 / 500 + drawn**2)
        alarms["welch"] += 2 * stats.t.sf(distance / math.sqrt(of_units + drawn), df) < 0.05
    assert alarms["welch"] / 4000 > 0.11
    assert 0.02 < alarms["ours"] / 4000 <= 0.05


def test_the_distribution_of_a_sum_of_two_t_against_closed_forms_and_draws() -> None:
    # of one degree of freedom each: Cauchy's, whose scales add up
    assert Spread(1.0, 1.0, 0.5, 1.0, 1, 0.0).p(3.0) == pytest.approx(2 * stats.cauchy.sf(2.0), rel=2e-3)
    # of very many: the normal one
    assert Spread(1.0, 1.0, 1.0, 1e7, 10**7, 0.0).p(3.0) == pytest.approx(2 * stats.norm.sf(3 / math.sqrt(2)), rel=1e-5)
    assert Spread(1.0, 1.0, 0.0, 7.0, 4, 0.0).half(0.99) == pytest.approx(stats.t.ppf(0.995, 7), rel=1e-6)
    rng = np.random.default_rng(0)
    draws = np.abs(0.7 * rng.standard_t(40, 400_000) + 0.5 * rng.standard_t(2, 400_000))
    assert Spread(0.7, 0.7, 0.5, 40.0, 2, 0.0).half(0.95) == pytest.approx(np.quantile(draws, 0.95), rel=0.01)


def test_without_variance_between_units_it_is_the_t_interval_of_the_seeds() -> None:
    shifts = [0.3, 0.5, 0.1, 0.7]
    base = 10 + np.random.default_rng(0).normal(size=50)
    found = effect(MEAN, np.zeros(50), [base + shift for shift in shifts], [base] * 4)
    expected = stats.ttest_1samp(shifts, 0.0)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-5)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-5)
    assert found.differences == pytest.approx(shifts)


def test_one_seed_gives_the_t_interval_of_the_units_and_says_so() -> None:
    difference = np.random.default_rng(3).normal(0.2, 1.0, 400)
    found = effect(MEAN, np.zeros(400), [10 + difference], [np.full(400, 10.0)], n=20_000)
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.01)
    assert found.note == "one seed: the chance of training is not in the interval"
    assert found.spread.seeds == 0


def test_what_units_and_seeds_do_together_counts_once() -> None:
    ratio = []
    for number in range(40):
        truth, a, b = rows(np.random.default_rng(number), 400, 5, (0.0, 0.0, 1.0))
        ratio.append(effect(MEAN, truth, a, b, n=400, seed=number).error / math.sqrt(1 / 2000))
    # counted twice, this would be the root of two
    assert 0.95 < np.mean(ratio) < 1.2


def test_no_interval_is_narrower_than_that_of_the_units_alone() -> None:
    truth, a, _ = rows(np.random.default_rng(0), 200, 3, (0.0, 0.0, 1.0))
    a = [run - run.mean() + 20.5 for run in a]  # three seeds that agree by chance
    found = effect(MEAN, truth, a, [np.full(200, 20.0)] * 3, n=1000)
    assert found.spread.seeds < 1e-9
    assert found.high - found.low >= 2 * 1.95 * found.spread.units


def test_interval_and_p_value_agree_and_swapping_turns_the_sign() -> None:
    for number in range(40):
        truth, a, b = rows(np.random.default_rng(number), 60, 3, (1.0, 1.0, 0.5), gap=0.4)
        one, other = effect(MEAN, truth, a, b, n=200), effect(MEAN, truth, b, a, n=200)
        assert (one.p < 0.05) == (one.low > 0 or one.high < 0)
        assert (one.value, one.low, one.p) == pytest.approx((-other.value, -other.high, other.p))
        assert one.interval(0.95) == pytest.approx((one.low, one.high))
        assert one.smallest(0.95) == one.smallest_effect


def test_equal_predictions_differ_by_nothing() -> None:
    truth, a, _ = classes(np.random.default_rng(0), 80, 3)
    found = effect(BINARY["auc"], truth, a, [run.copy() for run in a])
    assert (found.value, found.low, found.high, found.p, found.smallest_effect) == (0.0, 0.0, 0.0, 1.0, 0.0)
    assert "says nothing" in found.note
    shifted = effect(MEAN, np.zeros(8), [np.full(8, 0.1 + 0.2)] * 2, [np.full(8, 0.3)] * 2)  # equal but for rounding
    assert (shifted.value, shifted.p) == (0.0, 1.0)


def test_where_nothing_varies_the_test_of_signs_bounds_the_p_value() -> None:
    found = effect(MEAN, np.zeros(4), [np.full(4, 3.0)] * 2, [np.full(4, 1.0)] * 2)
    assert (found.value, found.error, found.p) == (2.0, 0.0, 0.125)


def test_seeds_that_failed_drop_out_of_the_pairs_and_are_counted() -> None:
    truth, a, b = rows(np.random.default_rng(0), 60, 5, (1.0, 1.0, 1.0))
    found = effect(MEAN, truth, [a[0], None, a[2], a[3], None], [b[0], b[1], None, b[3], b[4]], n=300)
    alone = effect(MEAN, truth, [a[0], a[3]], [b[0], b[3]], n=300)
    assert (found.value, found.low, found.high, found.p) == (alone.value, alone.low, alone.high, alone.p)
    assert (found.seeds, found.failed_a, found.failed_b) == (2, 2, 1)
    assert "2 of the seeds have no score of the arm" in found.note
    assert "1 of the seeds have no score of the baseline" in found.note


def test_without_a_pair_there_is_nothing_to_compare() -> None:
    truth, a, b = rows(np.random.default_rng(0), 60, 2, (1.0, 1.0, 1.0))
    found = effect(MEAN, truth, [a[0], None], [None, b[1]], n=50)
    assert all(math.isnan(x) for x in (found.value, found.low, found.p, found.smallest_effect))
    assert verdict(found.value, found.p, greater_is_better=True) == "not comparable"
    undefined = effect(BINARY["auc"], np.ones(9, int), [np.linspace(0, 1, 9)], [np.linspace(0, 1, 9)], n=50)
    assert math.isnan(undefined.p)
    assert math.isnan(effect(MEAN, np.zeros(1), [np.ones(1)], [np.ones(1) * 2], n=50).p)  # one unit


def test_groups_are_the_units() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(50), 8)
    a = [10 + rng.normal(size=50)[groups]] * 2
    by_rows, by_groups = (
        effect(MEAN, np.zeros(400), a, [np.full(400, 10.0)] * 2, groups=labels) for labels in (None, groups)
    )
    assert (by_rows.units, by_groups.units) == (400, 50)
    assert by_groups.spread.units / by_rows.spread.units == pytest.approx(math.sqrt(8), rel=0.1)


def test_few_rows_that_tell_the_arms_apart_are_few_degrees_of_freedom() -> None:
    truth, right, other = np.ones(2000, int), np.ones(2000), np.ones(2000)
    other[:4] = 0.0
    found = effect(BINARY["accuracy"], truth, [right], [other])
    assert 4 < found.spread.units_df < 12
    assert found.p > 0.05  # all four on one side: 0.125 by the test of signs
    few, a, b = classes(np.random.default_rng(0), 2000, 2, share=0.0)  # two positives
    assert effect(BINARY["auc"], few, a, b, strata=few, n=100).spread.units_df < 2


def test_a_metric_without_a_fast_form_gives_the_same() -> None:
    truth, a, b = classes(np.random.default_rng(1), 50, 2)
    slow = Metric("auc", BINARY["auc"].function, True, "score")
    one, other = (effect(metric, truth, a, b, strata=truth, n=60) for metric in (BINARY["auc"], slow))
    assert (one.low, one.high, one.p) == pytest.approx((other.low, other.high, other.p), rel=1e-9)


def test_means_of_replicates_are_replicates_of_means() -> None:
    truth, a, b = rows(np.random.default_rng(2), 40, 3, (1.0, 1.0, 1.0))
    whole = replicate(MEAN, truth, [*a, None, *b], n=30)
    mean = Replicates.mean([whole.some(slice(0, 3)), whole.some(slice(4, 7))])
    assert mean.values == pytest.approx([(MEAN(truth, x) + MEAN(truth, y)) / 2 for x, y in zip(a, b, strict=True)])
    assert (mean - mean).drawn == pytest.approx(np.zeros((3, 30)))
    assert whole.ran.tolist() == [True] * 3 + [False] + [True] * 3
    assert level(whole.some(slice(0, 4))).value == pytest.approx(np.mean([MEAN(truth, x) for x in a]))


def test_verdicts_follow_the_adjusted_p_and_the_direction() -> None:
    assert verdict(0.1, 0.05, greater_is_better=True) == "better"
    assert verdict(0.1, 0.049, greater_is_better=False) == "worse"
    assert verdict(-9.0, 0.051, greater_is_better=False) == "no effect seen"


def test_wrong_input_is_refused() -> None:
    ones = np.ones(4)
    with pytest.raises(InputError, match="2 seeds of one arm and 1 of the other"):
        effect(MEAN, ones, [ones, ones], [ones])
    with pytest.raises(InputError, match="no run has a prediction"):
        effect(MEAN, ones, [None], [None])
    with pytest.raises((InputError, TypeCheckError)):
        effect(MEAN, ones, [ones], [np.ones(3)])
