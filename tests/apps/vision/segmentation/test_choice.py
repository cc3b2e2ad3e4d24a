"""Which epoch each rule picks of a history that is written out here, and what that costs."""

import json

import pytest
from scipy.stats import spearmanr

from apps.vision.segmentation.choice import choice, choice_of, rank_correlation
from apps.vision.segmentation.config import AdaptationConfig, SegmentationConfig
from core.errors import InputError

TARGET = [12.0, 25.0, 20.0, 18.0]
HISTORY = [
    {"epoch": 1, "source_miou": 10.0, "target_agreement": 80.0, "target_entropy": 1.0, "target_information": 0.5},
    {"epoch": 2, "source_miou": 30.0, "target_agreement": 70.0, "target_entropy": 0.4, "target_information": 0.9},
    {"epoch": 3, "source_miou": 30.0, "target_agreement": 90.0, "target_entropy": 0.6},
    {"epoch": 4, "source_miou": 20.0, "target_agreement": 90.0, "target_entropy": 0.2, "target_information": 0.7},
]
HISTORY = [{**record, "target_miou": miou} for record, miou in zip(HISTORY, TARGET, strict=True)]


def test_every_rule_picks_the_first_of_its_best_epochs():
    found = choice(HISTORY)
    assert (found.epochs, found.best_epoch, found.best, found.chance) == (4, 2, 25.0, 18.75)
    picked = {each.rule: (each.epoch, each.target_miou, each.regret) for each in found.picked}
    assert picked == {
        "source_miou": (2, 25.0, 0.0),  # 3 is as good, and later
        "target_agreement": (3, 20.0, 5.0),
        "target_entropy": (4, 18.0, 7.0),  # the smallest
        "last": (4, 18.0, 7.0),
    }  # target_information: an epoch lacks it


def test_the_order_of_epochs_is_held_against_that_of_the_labels():
    found = {each.rule: each.correlation for each in choice(HISTORY).picked}
    for rule, sign in {"source_miou": 1, "target_agreement": 1, "target_entropy": -1}.items():
        expected = sign * spearmanr([record[rule] for record in HISTORY], TARGET).statistic
        assert found[rule] == pytest.approx(expected, abs=1e-12)
    assert found["last"] == pytest.approx(0.2)  # ranks 1 2 3 4 and 1 4 3 2: 1 - 6 * 8 / 60


def test_an_order_that_says_nothing_is_none():
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) is None
    (first,) = choice(HISTORY[:1]).picked[:1]
    assert (first.epoch, first.regret, first.correlation) == (1, 0.0, None)


def test_epochs_and_rules_without_numbers_are_left_out():
    more = [*HISTORY, {"epoch": 5, "source_miou": 99.0}, {"epoch": 6, "source_miou": 99.0, "target_miou": None}]
    assert choice(more) == choice(HISTORY)
    holed = [{**HISTORY[0], "source_miou": float("nan")}, *HISTORY[1:]]
    assert "source_miou" not in {each.rule for each in choice(holed).picked}
    assert choice([]) is None
    assert choice([{"epoch": 1, "source_miou": 3.0}]) is None


def test_plain_data_of_it():
    facts = json.loads(json.dumps(choice(HISTORY).to_dict()))
    assert facts["best"] == {"epoch": 2, "target_miou": 25.0}
    assert facts["random"] == {"target_miou": 18.75}
    assert facts["rules"]["last"] == {
        "epoch": 4,
        "target_miou": 18.0,
        "regret": 7.0,
        "rank_correlation": pytest.approx(0.2),
    }


def test_of_a_run_and_not_of_one_that_learned_from_the_labels(tmp_path):
    lines = "".join(json.dumps(record) + "\n" for record in HISTORY)
    (tmp_path / "metrics.jsonl").write_text(lines)
    assert choice_of(tmp_path, SegmentationConfig()) == choice(HISTORY)
    oracle = SegmentationConfig(adaptation=AdaptationConfig(kind="target"))
    assert choice_of(tmp_path, oracle) is None
    assert choice_of(tmp_path / "nothing", SegmentationConfig()) is None
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(InputError, match="is no history of a run"):
        choice_of(tmp_path, SegmentationConfig())
