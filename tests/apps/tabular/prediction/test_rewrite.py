"""The verb `rewrite` on a trained ensemble: what it says is so, and the run that comes out is a run like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apps.cli import main as manyformer
from apps.tabular.prediction.predictor import TabularPredictor

QUICK = ["--preset", "tiny", "--progress", "off", "--batch-size", "32", "--fit.max-epochs", "3", "--members", "2"]


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)), columns=[*"abcd"])
    frame["y"] = np.where(frame["a"] * frame["b"] + 0.3 * rng.normal(size=rows) > 0, "yes", "no")
    return frame


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("rewrite")
    for seed, (name, rows) in enumerate({"train": 150, "valid": 60, "test": 90}.items()):
        (root / "data").mkdir(exist_ok=True)
        table(rows, seed).to_csv(root / "data" / f"{name}.csv", index=False)
    words = ["tabular", "train", "--data", str(root / "data"), "--target", "y", "--out", str(root / "run"), *QUICK]
    assert manyformer([*words, "--model.feedforward", "mlp"]) == 0
    return root / "data", root / "run"


def best(run: Path) -> TabularPredictor:
    return TabularPredictor.load(run / "checkpoints" / "best")


def test_the_new_run_is_a_run_whose_costs_and_scores_are_those_that_were_said(trained, tmp_path, capsys):
    data, run = trained
    words = ["rewrite", str(run), "--pass", "low_rank:rank=2,maps=[qkv,up]", "--out", str(tmp_path / "low")]
    assert manyformer([*words, "--json", str(tmp_path / "report.json")]) == 0
    said, report = capsys.readouterr().out, json.loads((tmp_path / "report.json").read_text())
    assert said.startswith("low_rank in each of 2 networks: approximate; outputs moved by ")
    before, after = best(run), best(tmp_path / "low")
    for name, predictor in (("before", before), ("after", after)):
        count = sum(parameter.numel() for parameter in predictor.members[0].parameters())
        assert report["cost"][name]["parameters"] == count
    assert report["cost"]["after"]["parameters"] < report["cost"]["before"]["parameters"]
    assert report["cost"]["after"]["macs"] < report["cost"]["before"]["macs"]
    assert manyformer(["tabular", "evaluate", str(tmp_path / "low"), "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert scores["auc"]["value"] == pytest.approx(report["metrics"]["auc"]["after"], abs=1e-9)
    frame = pd.read_csv(data / "test.csv")
    assert not np.allclose(before.predict_proba(frame), after.predict_proba(frame), atol=1e-6)
    # A second rewrite goes on from the first; the same command on the same data gives the same model.
    again = ["rewrite", str(tmp_path / "low"), "--pass", "low_rank:rank=2,maps=[down]", "--out", str(tmp_path / "low2")]
    assert manyformer(again) == 0
    assert [[each.name for each in member] for member in best(tmp_path / "low2").rewrites] == [["low_rank"] * 2] * 2
    assert manyformer([*words[:-1], str(tmp_path / "twin")]) == 0
    assert np.array_equal(best(tmp_path / "twin").predict_proba(frame), after.predict_proba(frame))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--pass: names no pass"),
        (["--pass", "low_renk"], "no pass 'low_renk'; did you mean 'low_rank'?"),
        (["--pass", "low_rank:renk=2"], "did you mean 'rank'?"),
        (["--pass", "low_rank:rank"], "'rank' is no option; write NAME:OPTION=VALUE"),
        (["--pass", "low_rank:rank=many"], "rank"),
        (["--pass", "low_rank", "--split", "tset"], "there is no split 'tset'; did you mean 'test'?"),
        (["--pass", "low_rank:maps=[gate]"], "no linear map is called 'gate'; there are "),
        (["--pass", "prune", "--metric", "log_los"], "there is no metric 'log_los'; did you mean 'log_loss'?"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(trained, tmp_path, capsys, words, said):
    _, run = trained
    assert manyformer(["rewrite", str(run), *words, "--out", str(tmp_path / "new")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line
    assert not (tmp_path / "new").exists()


def test_folders_that_it_does_not_take(trained, tmp_path, capsys):
    data, run = trained
    for words, said in (
        ([str(tmp_path), "--pass", "low_rank", "--out", str(tmp_path / "new")], "is not a run directory"),
        ([str(run), "--pass", "low_rank", "--out", str(run)], "is the run itself"),
        (["--pass", "low_rank"], "names no run"),
    ):
        assert manyformer(["rewrite", *words]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    for name in ("train", "valid", "test"):
        table(80, seed=9).to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    facts = json.loads((run / "data.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "outcome.json"):
        (other / name).write_bytes((run / name).read_bytes())
    (other / "checkpoints").symlink_to(run / "checkpoints")
    (other / "data.json").write_text(json.dumps({**facts, "data": str(tmp_path / "data")}))
    words = ["rewrite", str(other), "--pass", "low_rank:rank=2", "--out", str(tmp_path / "new")]
    assert manyformer(words) == 2
    assert "split is not the one that the run was trained on any more; give --data" in capsys.readouterr().err
    assert manyformer([*words, "--data", str(data)]) == 0


def test_a_model_whose_rewrites_were_altered_is_refused(trained, tmp_path, capsys):
    _, run = trained
    assert manyformer(["rewrite", str(run), "--pass", "low_rank:rank=2", "--out", str(tmp_path / "low")]) == 0
    capsys.readouterr()
    saved = next((tmp_path / "low" / "checkpoints" / "best").glob("*.json"))
    whole = saved.read_text()
    for old, new in (('"low_rank"', '"high_rank"'), ('.qkv"', '.nothing"')):
        saved.write_text(whole.replace(old, new))
        assert manyformer(["tabular", "evaluate", str(tmp_path / "low")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
