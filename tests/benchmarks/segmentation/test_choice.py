"""Rules over the runs of a study: what the table says is what the runs' histories say."""

import json

import numpy as np
import pytest

from apps.vision.segmentation.config import AdaptationConfig, SegmentationConfig
from benchmarks.segmentation import choice
from core.command import RunDirectory, config_to_dict
from core.study.grid import Varied, key_of
from core.study.plan import Plan, write_plan
from core.study.store import StudyDirectory

SEEDS = (3, 4, 5)


def study(path, *, shown=True, kinds=("none", "target")):
    """Kept runs of three seeds, of two epochs each: the second is better on the source, and on the target by seed."""
    folder = StudyDirectory(path)
    varied = (Varied(field="adaptation.kind", values=kinds),)
    plan = Plan(
        varied=varied,
        seeds=SEEDS,
        task="segmentation",
        source={"data": "/home/me/streets"},
        digests={"test": "d"},
        base=config_to_dict(SegmentationConfig()),
        one_at_a_time=False,
        split="test",
        metric=None,
        minutes_per_run=None,
        threads=1,
    )
    path.mkdir()
    write_plan(folder.plan, plan, {"command": ["cli", "compare", "--data", "/home/me/streets"], "commit": "abc"})
    for arm in plan.arms:
        config = SegmentationConfig(adaptation=AdaptationConfig(kind=arm.changes["adaptation.kind"]))
        for seed in SEEDS:
            run = RunDirectory.create(folder.work(key_of(arm), seed), config, task="segmentation")
            records = [{"epoch": 1, "source_miou": 10.0, "target_miou": 20.0}]
            records.append({"epoch": 2, "source_miou": 9.0, "target_miou": 20.0 + seed})
            for record in records:
                if not shown:
                    del record["target_miou"]
            run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_means_are_over_the_runs_of_an_arm_that_saw_no_label(tmp_path, capsys):
    out = tmp_path / "choice.json"
    assert choice.main([str(study(tmp_path / "study")), "--out", str(out)]) == 0
    payload = json.loads(out.read_text())
    found = {row["rule"]: row for row in payload["rows"]}
    assert {row["arm"] for row in payload["rows"]} == {"adaptation.kind=none"}
    assert [*found] == ["source_miou", "last", choice.RANDOM, choice.LABELS]
    assert {name: found[name]["target_miou"]["value"] for name in found} == {
        "source_miou": 20.0,
        "last": 24.0,
        choice.RANDOM: 22.0,
        choice.LABELS: 24.0,
    }
    assert found["source_miou"]["regret"]["value"] == 4.0
    over = found["source_miou"]["over_last"]
    half = 4.302653 * np.std(SEEDS, ddof=1) / np.sqrt(3)  # Student's t of two degrees of freedom
    assert (over["value"], over["low"], over["high"]) == pytest.approx((-4.0, -4.0 - half, -4.0 + half))
    assert found["last"]["over_last"] is None
    text = out.with_suffix(".md").read_text()
    assert "| adaptation.kind=none | last | 24.0 [21.5, 26.5] | 0.0 [0.0, 0.0] |  |  | 3 |" in text
    assert "/home/me" not in text + out.read_text()
    assert payload["provenance"]["runs"]["seeds"] == [*SEEDS]


@pytest.mark.parametrize(("lacking", "words"), [("target", "no epoch has the target's mIoU"), ("run", "is not a run")])
def test_a_study_without_the_numbers_is_refused_in_a_line(tmp_path, capsys, lacking, words):
    folder = study(tmp_path / "study", shown=lacking != "target")
    if lacking == "run":
        next(folder.glob("work/none-*-4/config.yaml")).unlink()
    assert choice.main([str(folder), "--out", str(tmp_path / "choice.json")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "choice.json").exists()
