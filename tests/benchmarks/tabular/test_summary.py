import numpy as np
import pytest

from benchmarks.tabular import summary
from benchmarks.tabular.runs import Run, method_source
from benchmarks.tabular.sets import TableSet
from core.evaluation.metrics import BINARY, MULTICLASS, REGRESSION

ROWS = 400


def run(method, seed, predictions, valid):
    record = {
        "key": {"set": "s", "method": method, "seed": seed},
        "status": "failed" if predictions is None else "finished",
        "reason": "no memory",
        "source": method_source(method),
        "provenance": {"commit": "c"},
    }
    if predictions is not None:
        record |= {
            "fit": {"wall_seconds": 1.0, "cpu_seconds": 2.0},
            "predict": {"thousand_rows_seconds": 0.1, "one_row_seconds": None, "one_row_failures": 3},
            "memory": {"peak_mib": 100.0},
            "valid": {"rmse": valid},
        }
    return Run(record, predictions)


def results(noise, *, rows=500, seeds=2):
    """A regression set; each method's predictions miss by its own noise. None: the method failed."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=ROWS)
    table = TableSet(name="s", task="regression", target="y", numeric=("x",), categorical=(), classes=(), rows=rows)
    methods = {}
    for name, (miss, valid) in noise.items():
        guesses = [
            None if miss is None else (truth + miss * rng.normal(size=ROWS)).astype(np.float32) for _ in range(seeds)
        ]
        methods[name] = summary._result([run(name, seed, guess, valid) for seed, guess in enumerate(guesses)])
    return summary.SetResults(table, truth, methods)


NOISE = {"linear": (1.0, 1.0), "hgb": (0.5, 0.7), "catboost": (0.52, 0.6), "excelformer": (0.2, 0.2)}


@pytest.mark.parametrize(
    ("metric", "shape"), [(BINARY["auc"], ()), (MULTICLASS["accuracy"], (3,)), (REGRESSION["rmse"], ())]
)
def test_the_mean_over_seeds_under_weights_is_that_of_repeated_rows(metric, shape):
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=40)
    stacked = rng.random((40, 3, *shape))
    if shape:
        stacked /= stacked.sum(axis=-1, keepdims=True)
    mean = summary.over_seeds(metric)
    weights = rng.integers(0, 3, size=(2, 40))
    expected = [
        np.mean([metric(np.repeat(truth, w), np.repeat(stacked[:, seed], w, axis=0)) for seed in range(3)])
        for w in weights
    ]
    np.testing.assert_allclose(mean.weighted(truth, stacked, weights.astype(float)), expected)
    assert mean(truth, stacked) == pytest.approx(np.mean([metric(truth, stacked[:, seed]) for seed in range(3)]))


def test_the_best_boosted_method_is_chosen_on_validation_rows():
    found = results(NOISE)
    assert found.score("hgb") < found.score("catboost")
    assert found.best_boosted == "catboost"


def test_gain_is_the_share_of_the_baselines_error():
    found = results(NOISE)
    expected = 100 * (1 - found.score("excelformer") / found.score("linear"))
    assert summary.gain_over_baseline(found, "excelformer") == pytest.approx(expected)
    assert summary.gain_over_baseline(found, "linear") == 0
    assert expected == pytest.approx(80, abs=3)


def test_cost_divides_mean_seconds_by_mean_gain():
    found = results(NOISE)
    row = summary.cost([found], list(NOISE))["methods"]
    assert row["excelformer"]["cpu_seconds_per_point"] == pytest.approx(2.0 / row["excelformer"]["gain_percent"])
    assert row["linear"]["cpu_seconds_per_point"] is None


def test_what_did_not_finish_is_ranked_last_and_costs_nothing():
    sets = [results(NOISE), results(NOISE | {"hgb": (None, None)})]
    ranking = summary.rank(sets, list(NOISE))
    assert ranking["average"] == {"excelformer": 1.0, "catboost": 2.5, "hgb": 3.0, "linear": 3.5}
    assert summary.cost(sets, list(NOISE))["sets"] == ["s"]


def test_an_incomplete_set_is_in_no_ranking_and_is_named():
    whole = [results(NOISE), results(NOISE, rows=20_000), results(NOISE)]
    part = results({name: NOISE[name] for name in ("linear", "hgb")})
    found = summary.summarise([*whole, part], resamples=50)
    assert found["incomplete"] == ["s"]
    assert len(found["ranks"]["all"]["sets"]) == 3
    assert len(found["ranks"]["small"]["sets"]) == 2


def test_a_method_without_all_of_our_sets_is_in_no_ranking_and_compared_where_it_ran():
    whole = [results(NOISE), results(NOISE)]
    more = results(NOISE | {"pytorch_frame": (0.6, 0.6)})
    found = summary.summarise([*whole, more], resamples=50)
    assert set(found["ranks"]["all"]["average"]) == set(found["cost"]["methods"]) == set(NOISE)
    assert len(found["ranks"]["all"]["sets"]) == 3
    assert found["versus"]["pytorch_frame"]["win"] == 1
    assert "pytorch_frame" in found["methods"]


def test_wins_and_losses_follow_the_direction_of_the_metric():
    found = summary.versus([results(NOISE)], list(NOISE), resamples=200)
    assert {other: row["win"] for other, row in found.items()} == {
        "linear": 1,
        "hgb": 1,
        "catboost": 1,
        "best boosted": 1,
    }
    worse = summary.versus([results(NOISE | {"excelformer": (1.0, 1.0)})], list(NOISE), resamples=200)
    assert worse["hgb"]["loss"] == 1
    assert worse["linear"]["tie"] == 1
    assert found["best boosted"]["sets"]["s"]["other"] == "catboost"


def test_a_failure_is_told_with_its_reason():
    described = summary.describe_set(results(NOISE | {"hgb": (None, None)}), resamples=50)["methods"]
    assert described["hgb"]["unfinished"] == ["no memory", "no memory"]
    assert described["hgb"]["scores"] == {}
    assert described["excelformer"]["one_row_failures"] == 6
    assert described["excelformer"]["one_row_seconds"] is None
    score = described["excelformer"]["scores"]["rmse"]
    assert score["low"] < score["value"] < score["high"]
    assert score["value"] == pytest.approx(np.mean(score["by_seed"]))
