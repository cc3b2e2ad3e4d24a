"""What an analysis finds in studies whose truth is known; what it refuses; what it says."""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from core.application import Measure, Scored
from core.errors import InputError
from core.evaluation.bootstrap import holm
from core.evaluation.effects import effect
from core.evaluation.metrics import REGRESSION
from core.study.analysis import Analysis, analyse
from core.study.records import Arm, RunRecord
from core.study.results import Comparison

METRICS = {"mae": REGRESSION["mae"], "r2": REGRESSION["r2"]}
TRUTH = np.random.default_rng(9).normal(size=120)
Studied = tuple[list[Arm], list[RunRecord]]


def record(arm: str, seed: int, error: np.ndarray | None, **more: object) -> RunRecord:
    """A run whose predictions miss by that much; None of one that diverged."""
    if error is None:
        return RunRecord(arm=arm, seed=seed, status="diverged", reason="the loss is nan", metrics={}, **more)  # type: ignore[arg-type]
    scored = Scored({name: Measure(metric, TRUTH, TRUTH + error) for name, metric in METRICS.items()})
    values = {name: measure.value for name, measure in scored.measures.items()}
    return RunRecord(arm=arm, seed=seed, status="finished", metrics=values, scored=scored, **more)  # type: ignore[arg-type]


def study(worth: dict[str, float], seeds: Sequence[int] = (0, 1, 2, 3)) -> Studied:
    """Arms ``norm=NAME`` whose error is about their worth."""
    rng = np.random.default_rng(0)
    hard = np.abs(rng.normal(size=120))
    arms = [Arm(name=f"model.norm={name}", changes={"model.norm": name}) for name in worth]
    records = [
        record(
            arm.name,
            seed,
            size * (1 + hard + 0.1 * rng.normal(size=120)) + 0.02 * rng.normal(),
            seconds=10 * size + seed,
            parameters=100,
            peak_mib=50.0 + seed,
        )
        for arm, size in zip(arms, worth.values(), strict=True)
        for seed in seeds
    ]
    return arms, records


def by_name(found: Sequence[Comparison]) -> dict[str, Comparison]:
    return {each.name: each for each in found}


@pytest.fixture(scope="module")
def three() -> Analysis:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.0, "batchnorm": 1.4, "none": 0.8})
    return analyse(arms, records[::-1], METRICS, n=300)


def test_verdicts_are_what_was_put_in(three: Analysis) -> None:
    verdicts = {found.name: found.verdict for found in three.comparisons}
    assert verdicts == {
        "model.norm=rmsnorm": "no effect seen",
        "model.norm=batchnorm": "worse",
        "model.norm=none": "better",
    }
    assert (three.baseline, three.primary, three.units, three.grouped) == ("model.norm=layernorm", "mae", 120, False)
    assert three.greater_is_better == {"mae": False, "r2": True}


def test_effects_are_those_of_the_predictions_paired_by_seed(three: Analysis) -> None:
    _, records = study({"layernorm": 1.0, "rmsnorm": 1.0, "batchnorm": 1.4, "none": 0.8})
    given = {
        arm: [r.scored.measures["mae"].prediction for r in records if r.arm == arm and r.scored]
        for arm in ("model.norm=layernorm", "model.norm=batchnorm")
    }
    alone = effect(METRICS["mae"], TRUTH, given["model.norm=batchnorm"], given["model.norm=layernorm"], n=300)
    found = by_name(three.comparisons)["model.norm=batchnorm"]
    assert found.effects["mae"] == alone
    assert (found.low, found.high) == alone.interval(1 - 0.05 / 3)
    assert found.smallest == alone.smallest(1 - 0.05 / 3) > alone.smallest_effect


def test_p_values_are_adjusted_over_all_comparisons_of_the_primary_metric(three: Analysis) -> None:
    raw = [found.effects["mae"].p for found in three.comparisons]
    assert [found.p_adjusted for found in three.comparisons] == holm(raw).tolist()


def test_costs_are_ratios_paired_by_seed(three: Analysis) -> None:
    arm = next(arm for arm in three.arms if arm.name == "model.norm=batchnorm")
    seconds = arm.costs["seconds"]
    logs = np.log([(14 + seed) / (10 + seed) for seed in range(4)])
    ends = stats.ttest_1samp(logs, 0.0).confidence_interval()
    assert seconds.mean == pytest.approx(15.5)
    assert (seconds.ratio, seconds.low, seconds.high) == pytest.approx(np.exp([logs.mean(), ends.low, ends.high]))
    assert (arm.costs["parameters"].ratio, arm.costs["parameters"].low) == pytest.approx((1.0, 1.0))


def test_the_front_holds_what_nothing_beats(three: Analysis) -> None:
    assert three.fronts["seconds"] == ("model.norm=none",)  # the cheapest, and the best
    arms, records = study({"a": 1.0, "b": 0.5, "c": 2.0})
    slow = [dataclasses.replace(each, seconds=200.0 if each.arm == "model.norm=b" else 50.0) for each in records]
    assert analyse(arms, slow, METRICS, n=50).fronts["seconds"] == ("model.norm=a", "model.norm=b")


def test_levels_and_scores_of_every_arm(three: Analysis) -> None:
    for arm in three.arms:
        scores = list(arm.scores["mae"].values())
        assert list(arm.scores["mae"]) == [0, 1, 2, 3]
        assert arm.levels["mae"].value == pytest.approx(np.mean(scores))
        assert arm.levels["mae"].low < min(scores) < max(scores) < arm.levels["mae"].high


def test_an_arm_that_diverges_says_so_before_anything_else() -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.0}, seeds=range(5))
    records = [record(r.arm, r.seed, None) if r.arm.endswith("rmsnorm") and r.seed in (1, 3) else r for r in records]
    analysis = analyse(arms, records, METRICS, n=200)
    (found,) = analysis.comparisons
    assert found.unstable
    assert (found.endings.finished, found.endings.diverged, found.endings.runs) == (3, 2, 5)
    assert found.effects["mae"].seeds == 3
    assert found.effects["mae"].failed_a == 2
    (said,) = analysis.sentences()
    assert said.startswith(
        "Beware: norm=rmsnorm diverged in 2 of 5 seeds, the baseline in none. Of the seeds that ended"
    )
    assert "no effect seen (diverged in 2 of 5 seeds)" in analysis.markdown()
    assert analysis.arms[1].reasons == ("the loss is nan",)
    assert list(analysis.arms[1].scores["mae"]) == [0, 2, 4]


def test_an_arm_without_a_run_that_ended_is_not_compared_and_costs_the_others_nothing() -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.3, "batchnorm": 1.0})
    dead = [record(r.arm, r.seed, None) if r.arm.endswith("batchnorm") else r for r in records]
    analysis = analyse(arms, dead, METRICS, n=200)
    found = by_name(analysis.comparisons)
    assert found["model.norm=batchnorm"].verdict == "not comparable"
    assert math.isnan(found["model.norm=batchnorm"].p_adjusted)
    alone = found["model.norm=rmsnorm"]
    assert alone.p_adjusted == alone.effects["mae"].p
    assert "no seed ended in both; norm=batchnorm diverged in 4 of 4 seeds, the baseline ended in 4 seeds" in "".join(
        analysis.sentences()
    )
    assert json.dumps(analysis.to_dict(), allow_nan=False)


def test_a_baseline_without_a_run_that_ended_leaves_nothing_to_compare() -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.3})
    dead = [record(r.arm, r.seed, None) if r.arm.endswith("layernorm") else r for r in records]
    assert [found.verdict for found in analyse(arms, dead, METRICS, n=50).comparisons] == ["not comparable"]


def test_runs_that_are_not_there_yet_are_missing() -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.3})
    analysis = analyse(arms, records[:-2], METRICS, n=100)
    (found,) = analysis.comparisons
    assert (found.endings.finished, found.endings.missing, found.effects["mae"].seeds) == (2, 2, 2)
    one_each = analyse(arms, [records[0], records[4]], METRICS, n=100)
    assert one_each.sentences()[0].endswith("That is one training of each: another one may turn it.")


def grid(interaction: float = 0.0) -> Studied:
    """Norm and feed-forward in every combination; the second feed-forward is better by 0.3 whatever the norm."""
    rng = np.random.default_rng(1)
    base = 1 + np.abs(rng.normal(size=120))
    arms, records = [], []
    for norm, forward in itertools.product(("ln", "rms"), ("mlp", "glu", "moe")):
        arm = Arm(name=f"m.norm={norm}, m.ff={forward}", changes={"m.norm": norm, "m.ff": forward, "lr": 0.1})
        arms.append(arm)
        gap = -0.3 * (forward == "glu") + interaction * (forward == "moe" and norm == "rms")
        for seed in range(3):
            records.append(record(arm.name, seed, base + gap + 0.02 * rng.normal() + 0.1 * rng.normal(size=120)))
    return arms, records


def test_main_effects_of_a_full_grid_average_over_the_other_factors() -> None:
    arms, records = grid(interaction=0.2)
    analysis = analyse(arms, records, METRICS, n=200)
    found = by_name(analysis.main_effects)
    assert [(each.name, each.against, each.settings) for each in analysis.main_effects] == [
        ("m.norm=rms", "m.norm=ln", 3),
        ("m.ff=glu", "m.ff=mlp", 2),
        ("m.ff=moe", "m.ff=mlp", 2),
    ]
    scores = {arm.name: arm.scores["mae"] for arm in analysis.arms}
    for seed in range(3):
        pairs = [(f"m.norm={norm}, m.ff=moe", f"m.norm={norm}, m.ff=mlp") for norm in ("ln", "rms")]
        by_hand = np.mean([scores[a][seed] - scores[b][seed] for a, b in pairs])
        assert found["m.ff=moe"].effects["mae"].differences[seed] == pytest.approx(by_hand)
    assert found["m.ff=glu"].verdict == "better"
    assert found["m.ff=glu"].effects["mae"].value == pytest.approx(-0.3, abs=0.05)
    assert "ff=glu, averaged over 2 settings of the rest, is better than ff=mlp" in "\n".join(analysis.sentences())


def test_a_seed_that_failed_in_one_setting_drops_out_of_the_main_effect() -> None:
    arms, records = grid()
    records[0] = record(records[0].arm, 0, None)
    found = by_name(analyse(arms, records, METRICS, n=100).main_effects)["m.norm=rms"]
    assert (found.effects["mae"].seeds, found.endings_against.diverged, found.endings.diverged) == (2, 1, 0)


def test_arms_that_are_no_full_grid_have_no_main_effects() -> None:
    arms, records = grid()
    kept = {arm.name for arm in arms[:4]}
    some = analyse(arms[:4], [each for each in records if each.arm in kept], METRICS, n=50)
    assert some.main_effects == ()


def test_groups_are_resampled_whole_and_counted() -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.3})
    groups = np.arange(120) // 4
    grouped = [dataclasses.replace(r, scored=Scored(r.scored.measures, groups)) for r in records if r.scored]
    analysis = analyse(arms, grouped, METRICS, n=100)
    assert (analysis.units, analysis.grouped) == (30, True)


def test_the_dictionary_is_strict_json_with_sentences_and_notes(three: Analysis) -> None:
    plain = json.loads(json.dumps(three.to_dict(), allow_nan=False))
    first = plain["comparisons"][0]
    assert first["sentence"] == three.sentences()[0]
    assert first["effects"]["mae"]["note"] == ""
    assert first["effects"]["mae"]["value"] == three.comparisons[0].effects["mae"].value
    assert plain["arms"][0]["scores"]["mae"]["2"] == three.arms[0].scores["mae"][2]
    assert plain["arms"][0]["endings"] == {"finished": 4, "diverged": 0, "failed": 0, "missing": 0}


def test_the_tables_have_a_row_an_arm_and_a_row_a_comparison(three: Analysis) -> None:
    first, second = three.markdown().split("\n\n")
    assert len(first.splitlines()) == 2 + 4
    assert len(second.splitlines()) == 2 + 3
    for table in (first, second):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert "mae ↓" in first
    assert "r2 ↑" in first


def other_truth(run: RunRecord) -> RunRecord:
    scored = Scored({name: Measure(metric, TRUTH + 1, TRUTH) for name, metric in METRICS.items()})
    return dataclasses.replace(run, scored=scored)


def other_groups(run: RunRecord) -> RunRecord:
    assert run.scored is not None
    return dataclasses.replace(run, scored=Scored(run.scored.measures, np.arange(120)))


def fewer_rows(run: RunRecord) -> RunRecord:
    measures = {name: Measure(metric, TRUTH[:-1], TRUTH[:-1]) for name, metric in METRICS.items()}
    return dataclasses.replace(run, scored=Scored(measures))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            other_truth,
            "model.norm=rmsnorm, seed 3: was scored on other units than model.norm=layernorm, seed 0: the truth",
        ),
        (other_groups, "the groups differ"),
        (fewer_rows, "other units"),
        (lambda run: dataclasses.replace(run, scored=None), "finished without a score"),
        (lambda run: dataclasses.replace(run, scored=Scored({})), "has no score 'mae'"),
        (lambda run: dataclasses.replace(run, arm="model.norm=rmsnrm"), "no arm 'model.norm=rmsnrm'; did you mean"),
        (lambda run: dataclasses.replace(run, seed=0), "model.norm=rmsnorm, seed 0: is there twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: Callable[[RunRecord], RunRecord], said: str) -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.3})
    with pytest.raises(InputError, match=re.escape(said)):
        analyse(arms, [*records[:-1], change(records[-1])], METRICS, n=10)


def test_too_little_is_refused() -> None:
    arms, records = study({"layernorm": 1.0, "rmsnorm": 1.3})
    for wrong in (arms[:1], [arms[0], arms[0]]):
        with pytest.raises(InputError, match="two arms or more"):
            analyse(wrong, [], METRICS)
    with pytest.raises(InputError, match="no run has finished"):
        analyse(arms, [record(each.arm, each.seed, None) for each in records], METRICS)
    with pytest.raises(InputError, match="wants a metric"):
        analyse(arms, records, {})
