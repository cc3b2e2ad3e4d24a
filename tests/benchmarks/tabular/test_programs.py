"""The parts of the timing programs that are not timing."""

import argparse
import json
from dataclasses import asdict

import pytest

from benchmarks.tabular import leak, time_to_best


def test_leaky_encoding_is_seen_and_the_honest_one_is_not():
    options = argparse.Namespace(rows=1000, levels=200, seeds=4)
    default, official = (leak.measure(profile, options) for profile in ("default", "official"))
    assert official["train"]["value"] > 0.7
    assert abs(default["train"]["value"] - 0.5) < 0.05
    assert abs(official["fresh"]["value"] - 0.5) < 0.05


def test_the_leak_program_writes_both_files(tmp_path, capsys):
    out = tmp_path / "leak.json"
    assert leak.main(["--out", str(out), "--rows", "200", "--levels", "20", "--seeds", "3"]) == 0
    assert set(json.loads(out.read_text())["auc"]) == {"default", "official"}
    assert "| official |" in out.with_suffix(".md").read_text()


def steps(exponents):
    from benchmarks.tabular.steptime import GROWTH

    return [
        {**asdict(point), "precision": "fp32", "step": {k: 3e-4 * point.features**e for k, e in exponents.items()}}
        for point in GROWTH
    ]


def test_growth_is_the_exponent_of_the_number_of_features():
    from benchmarks.tabular.steptime import growth

    found = growth(steps({"ours": 1.0, "pytorch_frame": 1.5}))
    assert found["fp32"]["ours"] == pytest.approx({"all": 1.0, "wide": 1.0})
    assert found["fp32"]["pytorch_frame"] == pytest.approx({"all": 1.5, "wide": 1.5})
    assert growth(steps({"ours": 1.0, "pytorch_frame": 1.5})[:3]) == {}


def test_alternation_swaps_who_goes_first():
    from benchmarks.tabular.steptime import alternate

    calls = []
    found = alternate(lambda: calls.append("ours"), lambda: calls.append("theirs"), rounds=4)
    assert calls[-8:] == ["ours", "theirs", "theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]


def test_every_arm_takes_its_turn_at_every_place():
    order = [arm for _, arm, _ in time_to_best.plan(["a", "b", "c"], seeds=1)]
    turns = [order[i : i + 3] for i in range(0, 9, 3)]
    assert all({turn[place] for turn in turns} == set(time_to_best.ARMS) for place in range(3))


@pytest.mark.parametrize(
    ("greater", "target", "seconds"), [(True, 0.8, 2.0), (True, 0.95, None), (False, 0.8, 1.0), (False, 0.6, None)]
)
def test_reached_is_the_first_time_at_least_as_good(greater, target, seconds):
    history = [{"seconds": float(i), "score": score} for i, score in enumerate((0.7, 0.7, 0.9), start=0)]
    if not greater:
        history = [{"seconds": float(i), "score": score} for i, score in enumerate((0.9, 0.8, 0.7))]
    assert time_to_best.reached({"greater_is_better": greater, "history": history}, target) == seconds
