"""The verbs as a user types them: a folder of CSV files in, a model, scores, predictions and a page out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from apps.cli import main as manyformer
from apps.tabular.prediction import evaluate, info, predict, train
from apps.tabular.prediction.predictor import KIND, VERSION, TabularPredictor
from core import artefact

QUICK = ["--preset", "tiny", "--progress", "off", "--batch-size", "32", "--fit.max-epochs", "4"]


def write(folder: Path, task: str, rows: int = 240) -> Path:
    """A folder of splits with a number, a category, an unlucky name, and missing cells."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(50, 10, rows).round(2), "city": rng.choice(["Oslo", "Rome"], rows)})
    score = (frame["age"] - 50) / 10 + (frame["city"] == "Oslo") + rng.normal(0, 0.3, rows)
    frame["<b>name</b>"] = rng.integers(0, 5, rows)
    classes = {"binary": ["no", "yes"], "multiclass": ["low", "mid", "top"]}.get(task)
    frame["y"] = score if classes is None else pd.qcut(score, len(classes), labels=classes).astype(str)
    frame.loc[::17, "age"] = np.nan
    frame.loc[::13, "city"] = None
    folder.mkdir(parents=True)
    cuts = {"train": slice(0, 150), "valid": slice(150, 190), "test": slice(190, rows)}
    for name, part in cuts.items():
        frame[part].to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def trained(request, tmp_path_factory) -> tuple[str, Path, Path]:
    root = tmp_path_factory.mktemp(request.param)
    data, run = write(root / "data", request.param), root / "run"
    assert train.main(["--data", str(data), "--target", "y", "--out", str(run), *QUICK, "--members", "2"]) == 0
    return request.param, data, run


def test_a_run_holds_what_was_asked_for_and_what_came_out(trained):
    task, _, run = trained
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "environment.json", "data.json", "metrics.jsonl", "outcome.json", "checkpoints")
    }
    outcome = json.loads((run / "outcome.json").read_text())
    assert outcome["complete"]
    assert [member["steps"] for member in outcome["members"]] == [4 * (150 // 32)] * 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["member"], line["epoch"]) for line in lines] == [(m, e) for m in (0, 1) for e in (1, 2, 3, 4)]
    assert json.loads((run / "data.json").read_text())["task"] == task


def test_evaluate_writes_scores_with_intervals_a_baseline_and_a_page(trained, tmp_path, capsys):
    task, _, run = trained
    target = tmp_path / "scores.json"
    assert evaluate.main([str(run), "--json", str(target), "--report", str(tmp_path / "page")]) == 0
    scores = json.loads(target.read_text())
    assert (scores["task"], scores["model"], scores["split"], scores["n"]) == ("tabular", "excelformer", "test", 50)
    name = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}[task]
    low, high = scores["metrics"][name]["ci95"]
    assert low <= scores["metrics"][name]["value"] <= high
    assert scores["baseline"]["metrics"][name]["value"] is not None
    assert f"  {name}" in capsys.readouterr().out
    page = (tmp_path / "page" / "index.html").read_text()
    assert "&lt;b&gt;name&lt;/b&gt;" in page
    assert "<b>name" not in page
    assert page.count("<img") >= 4


def test_a_score_of_the_page_is_the_score_of_the_predictions(trained, tmp_path):
    """What evaluate says is what sklearn finds in the file that predict wrote."""
    from sklearn.metrics import accuracy_score, roc_auc_score, root_mean_squared_error

    task, data, run = trained
    out = tmp_path / "predictions.csv"
    assert predict.main([str(run), str(data / "test.csv"), "--out", str(out)]) == 0
    assert evaluate.main([str(run), "--json", str(tmp_path / "scores.json")]) == 0
    truth, predictions = pd.read_csv(data / "test.csv")["y"], pd.read_csv(out)
    name, value = {
        "binary": lambda: ("auc", roc_auc_score(truth == "yes", predictions["probability_yes"])),
        "multiclass": lambda: ("accuracy", accuracy_score(truth, predictions["prediction"])),
        "regression": lambda: ("rmse", root_mean_squared_error(truth, predictions["prediction"])),
    }[task]()
    stated = json.loads((tmp_path / "scores.json").read_text())["metrics"][name]["value"]
    assert stated == pytest.approx(value, abs=1e-9)


def test_predict_takes_parquet_other_orders_and_extra_columns(trained, tmp_path, capsys):
    task, data, run = trained
    frame = pd.read_csv(data / "test.csv")
    other = tmp_path / "other.parquet"
    frame[frame.columns[::-1]].assign(extra=1).drop(columns="y").to_parquet(other)
    assert predict.main([str(run), str(data / "test.csv"), "--json"]) == 0
    straight = json.loads(capsys.readouterr().out)
    assert predict.main([str(run), str(other), "--json"]) == 0
    captured = capsys.readouterr()
    assert "extra" in captured.err
    for one, two in zip(straight, json.loads(captured.out), strict=True):
        assert {k: v for k, v in one.items() if k != "file"} == pytest.approx(
            {k: v for k, v in two.items() if k != "file"}, abs=1e-12
        )
    if task == "regression":
        assert all(row["low"] <= row["prediction"] <= row["high"] for row in straight)


def test_a_run_from_before_a_field_was_added_predicts_scores_and_trains_on(trained, tmp_path, capsys):
    """Its saved model and its config lack two fields that have their defaults; what a program reads is the same."""
    _, data, finished = trained
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    words = [str(data / "test.csv"), "--json"]
    assert predict.main([str(run), *words]) == 0
    before = capsys.readouterr()
    tree = dict(artefact.load(run / "checkpoints" / "best", kind=KIND, version=VERSION))
    tree["config"] = {name: value for name, value in tree["config"].items() if name != "watch"}
    tree["config"]["model"] = {name: value for name, value in tree["config"]["model"].items() if name != "placement"}
    artefact.save(run / "checkpoints" / "best", tree, kind=KIND, version=VERSION)
    (run / "config.yaml").write_text(yaml.safe_dump(tree["config"]))
    said = "was written before there was model.placement, watch; read with the default\n"
    assert predict.main([str(run), *words]) == 0
    assert capsys.readouterr() == (before.out, f"{run / 'checkpoints' / 'best'}: {said}")
    assert evaluate.main([str(run), "--json", str(tmp_path / "scores.json")]) == 0
    assert capsys.readouterr().err.endswith(f"best: {said}")
    line = ["--data", str(data), "--target", "y", "--out", str(run), *QUICK, "--members", "2"]
    assert train.main(line) == 0
    assert capsys.readouterr().err == f"{run / 'config.yaml'}: {said}"
    assert train.main([*line, "--watch", "loss"]) == 2
    assert "it differs in watch" in capsys.readouterr().err


def test_info_counts_what_the_model_holds(trained, capsys):
    _, _, run = trained
    assert info.main([str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    member = TabularPredictor.load(run / "checkpoints" / "best").members[0]
    assert facts["parameters"] == sum(p.numel() for p in member.parameters())
    assert facts["macs"] > 0
    assert any("softmax" in line for line in facts["blocks"])


def test_info_of_the_official_preset_is_the_published_size(capsys):
    assert info.main(["--preset", "official", "--features", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 1_195_787


def test_the_same_command_again_says_that_it_is_done_and_other_settings_are_refused(trained, capsys):
    _, data, run = trained
    command = ["--data", str(data), "--target", "y", "--out", str(run), *QUICK, "--members", "2"]
    assert train.main(command) == 0
    assert "finished" in capsys.readouterr().out
    assert train.main([*command, "--model.width", "32"]) == 2
    assert "model.width" in capsys.readouterr().err


def test_a_run_is_not_resumed_on_other_rows(trained, tmp_path, capsys):
    task, _, run = trained
    other = write(tmp_path / "other", task, rows=230)
    assert train.main(["--data", str(other), "--target", "y", "--out", str(run), *QUICK, "--members", "2"]) == 2
    assert "other data" in capsys.readouterr().err


def test_a_time_limit_leaves_a_model_and_more_time_goes_on(tmp_path, capsys):
    data = write(tmp_path / "data", "binary")
    command = ["--data", str(data), "--target", "y", "--out", str(tmp_path / "run"), *QUICK, "--members", "2"]
    assert train.main([*command, "--max-minutes", "1e-6"]) == 0
    assert not json.loads((tmp_path / "run" / "outcome.json").read_text())["complete"]
    assert predict.main([str(tmp_path / "run"), str(data / "test.csv")]) == 0
    assert train.main(command) == 0
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["complete"]
    assert train.main([*command[:-6], "--out", str(tmp_path / "straight"), *QUICK, "--members", "2"]) == 0
    ends = [TabularPredictor.load(tmp_path / name / "checkpoints" / "best") for name in ("run", "straight")]
    for one, two in zip(ends[0].members, ends[1].members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def start(command: list[str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "apps.tabular.prediction.train", *command]
    # As many threads as here: sums in another order are other bits.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_resumes_to_the_bits_of_an_unbroken_one(tmp_path, kill):
    data = write(tmp_path / "data", "binary")
    common = ["--data", str(data), "--target", "y", "--members", "2", "--preset", "tiny", "--progress", "off"]
    common += ["--batch-size", "16", "--fit.max-epochs", "30", "--fit.patience", "30"]
    common += ["--fit.checkpoint-every-minutes", "0.004"]
    broken = start([*common, "--out", str(tmp_path / "broken")])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("broken/checkpoints/last/member-*/last/artefact.json")):
        assert broken.poll() is None, broken.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    broken.send_signal(kill)
    _, words = broken.communicate(timeout=60)
    assert broken.returncode == (130 if kill == signal.SIGTERM else -signal.SIGKILL), words
    assert not (tmp_path / "broken" / "outcome.json").exists()
    for name in ("broken", "straight"):
        assert train.main([*common, "--out", str(tmp_path / name)]) == 0
    ends = [TabularPredictor.load(tmp_path / name / "checkpoints" / "best") for name in ("broken", "straight")]
    for one, two in zip(ends[0].members, ends[1].members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_predict_before_training_has_finished_says_so(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert predict.main([str(tmp_path / "run"), "x.csv"]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_a_damaged_or_foreign_model_is_refused_in_one_line(trained, tmp_path, capsys):
    import shutil

    _, data, run = trained
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    tensors = next((broken / "checkpoints" / "best").glob("*.safetensors"))
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    assert predict.main([str(broken), str(data / "test.csv")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "altered" in error
    (broken / "checkpoints" / "best" / "artefact.json").write_text('{"format": "something else"}')
    assert predict.main([str(broken), str(data / "test.csv")]) == 2
    assert "not a model saved by manyformer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--data", "bundled:irs"], "did you mean 'iris'"),
        (["--data", "bundled:iris", "--target", "nothing"], "nothing"),
        (["--model.widht", "8"], "did you mean '--model.width'"),
        (["--model.heads", "5"], "heads"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--max-minutes", "0"], "max-minutes"),
        (["--data", "bundled:iris", "--task", "binary"], "class"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_status_2(words, expected, tmp_path, capsys):
    assert train.main([*QUICK, "--out", str(tmp_path / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_one_command_reaches_the_verbs(capsys):
    assert manyformer(["tabular", "info", "--preset", "tiny"]) == 0
    assert re.search(r"parameters\s+[\d,]+", capsys.readouterr().out)
    assert manyformer(["tabular", "trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
