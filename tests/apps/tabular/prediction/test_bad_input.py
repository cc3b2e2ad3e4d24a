"""Whatever a person gets wrong ends in one line and status 2, and nothing half-written is left behind."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from apps.tabular.prediction import ExcelFormerClassifier, ExcelFormerRegressor, check, evaluate, info, predict, train
from apps.tabular.prediction.baseline import BoostedTrees
from apps.tabular.prediction.data.sources import open_source, to_table
from apps.tabular.prediction.predictor import KIND, VERSION, TabularPredictor
from core import artefact
from core.command import only_writer
from core.errors import InputError

QUICK = ["--target", "y", "--preset", "tiny", "--progress", "off", "--batch-size", "32", "--fit.max-epochs", "2"]
ROWS = 120


def rows(task: str = "binary") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(50, 10, ROWS).round(2), "city": rng.choice(["Oslo", "Rome"], ROWS)})
    score = (frame["age"] - 50) / 10 + (frame["city"] == "Oslo") + rng.normal(0, 0.3, ROWS)
    classes = {"binary": ["no", "yes"], "multiclass": ["low", "mid", "top"]}.get(task)
    frame["y"] = score if classes is None else pd.qcut(score, len(classes), labels=classes).astype(str)
    return frame


def folder(path: Path, train: pd.DataFrame, test: pd.DataFrame | None = None) -> Path:
    path.mkdir()
    parts = {"train": train[:80], "valid": train[80:100], "test": train[100:] if test is None else test}
    for name, part in parts.items():
        part.to_csv(path / f"{name}.csv", index=False)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("trained")
    data, run = folder(root / "data", rows()), root / "run"
    assert train.main(["--data", str(data), "--out", str(run), *QUICK]) == 0
    return data, run


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return shutil.copytree(trained[1], tmp_path / "run")


def refusal(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


TEXT = {
    "latin-1": (rows().assign(city="Tromsø").to_csv(index=False).encode("latin-1"), "not UTF-8"),
    "utf-16": (rows().to_csv(index=False).encode("utf-16"), "UTF-16"),
    "empty": (b"", "empty"),
    "header": (b"age,city,y\n", "only a header"),
    "missing column": (b"city,y\nOslo,no\n", "missing: 'age'"),
    "text for a number": (b"age,city,y\nold,Oslo,no\n", "row 1 holds 'old'"),
    "infinity": (b"age,city,y\ninf,Oslo,no\n", "infinite"),
    "names twice": (b"age,city,y,age\n1,Oslo,no,2\n", "occur twice: 'age'"),
    "semicolons": (rows().to_csv(index=False, sep=";").encode(), "separated by ';'"),
    "open quote": (b'age,city,y\n1,"Oslo,no\n', "line 2"),
    "endless cell": (b"age,city,y\n1," + b"x" * 140_000 + b",no\n", "more than 131,072 characters"),
    "binary": (b"age,city\x00", "zero byte"),
}


@pytest.mark.parametrize("case", TEXT)
@pytest.mark.parametrize("verb", [predict, evaluate])
def test_an_unusable_file_is_refused_and_the_old_predictions_stay(trained, tmp_path, capsys, verb, case):
    content, expected = TEXT[case]
    file, out = tmp_path / "new.csv", tmp_path / "out.csv"
    file.write_bytes(content)
    out.write_text("old")
    words = [str(file), "--out", str(out)] if verb is predict else ["--data", str(file), "--split", "all"]
    assert verb.main([str(trained[1]), *words]) == 2
    assert expected in refusal(capsys)
    assert out.read_text() == "old"


def test_a_byte_order_mark_and_another_order_change_nothing(trained, tmp_path, capsys):
    outputs = []
    for number, frame in enumerate([rows(), rows()[["y", "city", "age"]]]):
        (tmp_path / f"{number}.csv").write_bytes(frame.to_csv(index=False).encode("utf-8-sig" if number else "utf-8"))
        assert predict.main([str(trained[1]), str(tmp_path / f"{number}.csv"), "--json"]) == 0
        outputs.append([row["prediction"] for row in json.loads(capsys.readouterr().out)])
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("change", "words", "expected"),
    [
        ({"y": "yes"}, [], "one class only ('yes')"),
        ({"y": [None, *["no", "yes"] * 59, "no"]}, [], "row 1 has no target"),
        ({"y": 1.5}, ["--task", "regression"], "always 1.5"),
        ({"y": np.arange(ROWS) * 1e300}, ["--task", "regression"], "row 2 holds '1e+300', not a finite number below"),
        ({"y": np.where(np.arange(ROWS) < 3, np.inf, np.arange(ROWS) + 0.5)}, [], "holds 'inf', not a finite number"),
        ({"y": [f"c{i}" for i in range(ROWS)]}, [], "80 classes in 80 rows"),
        ({}, ["--target", "Y"], "no column 'Y'"),
        ({}, ["--group", "y"], "'y' is the target"),
        ({}, ["--group", "nobody"], "no column 'nobody'"),
        ({}, ["--model.heads", "5"], "heads"),
        ({}, ["--encoding.max-features", "1"], "encoding.max_features"),
    ],
)
def test_what_cannot_be_learned_leaves_no_folder_behind(tmp_path, capsys, change, words, expected):
    """Nor a config that would bind the next try: the same folder then takes a run with other settings."""
    data = folder(tmp_path / "data", rows().assign(**change))
    assert train.main(["--data", str(data), "--out", str(tmp_path / "run"), *QUICK, *words]) == 2
    assert expected in refusal(capsys)
    assert not (tmp_path / "run").exists()


def test_a_class_that_training_lacks_is_named(tmp_path, capsys):
    data = folder(tmp_path / "data", rows().assign(y=["no", "yes"] * 45 + ["maybe"] * 30))
    assert train.main(["--data", str(data), "--out", str(tmp_path / "run"), *QUICK]) == 2
    assert "valid.csv, target 'y': row 11 has the unknown label 'maybe'" in refusal(capsys)


def test_one_class_in_the_test_split_leaves_the_ranking_undefined(tmp_path, capsys):
    data = folder(tmp_path / "data", rows(), rows().query("y == 'yes'"))
    assert train.main(["--data", str(data), "--out", str(tmp_path / "run"), *QUICK]) == 0
    words = ["--json", str(tmp_path / "scores.json"), "--report", str(tmp_path / "page")]
    assert evaluate.main([str(tmp_path / "run"), *words]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"]["auc"]["value"] is None
    assert "undefined" in capsys.readouterr().out


def test_columns_without_a_value_and_a_class_that_occurs_once(tmp_path):
    frame = rows("multiclass").assign(none=None, same=3, rare=[*"ab", *["c"] * (ROWS - 2)])
    frame.loc[0, "y"] = "once"
    data = folder(tmp_path / "data", frame)
    assert train.main(["--data", str(data), "--out", str(tmp_path / "run"), *QUICK]) == 0
    assert evaluate.main([str(tmp_path / "run"), "--report", str(tmp_path / "page")]) == 0


def test_the_plain_model_needs_neither_two_classes_nor_values(tmp_path):
    rows().assign(age=None, city=None).to_csv(tmp_path / "all.csv", index=False)
    source = open_source(tmp_path / "all.csv")
    table = to_table(source.frames["train"], source.schema(target="y"))
    assert BoostedTrees(table).scores(table.frame).shape == (ROWS, 2)
    alone = table.take(np.flatnonzero(table.target == 1))
    assert BoostedTrees(alone).scores(table.frame).tolist() == [[0.0, 1.0]] * ROWS


def test_two_rows_are_too_few_to_split(tmp_path, capsys):
    rows()[:2].assign(y=["no", "yes"]).to_csv(tmp_path / "two.csv", index=False)
    assert train.main(["--data", str(tmp_path / "two.csv"), "--out", str(tmp_path / "run"), *QUICK]) == 2
    assert "too few rows for 3 parts" in refusal(capsys)


@pytest.mark.parametrize("text", ["{", "[]", '{"target": 3}', '{"task": "x"}', '{"categorical": "age"}', "[" * 100_000])
def test_garbage_in_meta_json_is_refused_by_train_and_found_by_check(tmp_path, capsys, text):
    data = folder(tmp_path / "data", rows())
    (data / "meta.json").write_text(text)
    assert train.main(["--data", str(data), "--out", str(tmp_path / "run"), *QUICK]) == 2
    assert "meta.json" in refusal(capsys)
    assert check.main(["--data", str(data), "--target", "y"]) == 2


# ------------------------------------------------------------------------------------------ places to write


@pytest.mark.parametrize("place", ["file", "file/below", "used", "/proc/nowhere"])
def test_an_out_that_cannot_be_a_run_is_refused(trained, tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("used").mkdir()
    Path("used/letter.txt").write_text("mine")
    assert train.main(["--data", str(trained[0]), "--out", place, *QUICK]) == 2
    assert place in refusal(capsys)
    assert Path("file").read_text() == "mine"
    assert os.listdir("used") == ["letter.txt"]


@pytest.mark.parametrize("option", [["--json", "file/x.json"], ["--report", "file"]])
def test_scores_that_cannot_be_written_end_in_one_line(trained, tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert evaluate.main([str(trained[1]), *option]) == 2
    assert "cannot be written" in refusal(capsys)


@pytest.mark.parametrize("words", [["--features", "0"], ["--outputs", "-1"]])
def test_info_of_an_impossible_table_is_refused(capsys, words):
    assert info.main(["--preset", "tiny", *words]) == 2
    assert words[0] in refusal(capsys)


def test_a_run_has_one_writer(trained, tmp_path, capsys):
    with only_writer(tmp_path / "run"):
        assert train.main(["--data", str(trained[0]), "--out", str(tmp_path / "run"), *QUICK]) == 2
    assert "another process is writing this run" in refusal(capsys)
    assert not (tmp_path / "run").exists()
    assert train.main(["--data", str(trained[0]), "--out", str(tmp_path / "run"), *QUICK]) == 0


# --------------------------------------------------------------------------------------------- damaged runs


@pytest.mark.parametrize("content", [b"", b"\x00\xff{]", b"[1]", b"3\n", b"[" * 100_000])
@pytest.mark.parametrize("name", ["data.json", "metrics.jsonl", "environment.json", "config.yaml"])
def test_a_damaged_file_of_a_run_is_named(copy, tmp_path, capsys, name, content):
    if name == "metrics.jsonl" and not content:
        return  # the history of a run that had no time for an epoch
    (copy / name).write_bytes(content)
    words = ["--data", "nowhere.csv"] if name == "config.yaml" else []
    status = evaluate.main([str(copy), "--report", str(tmp_path / "page"), *words])
    assert status == 2
    assert name in refusal(capsys) or name == "config.yaml"


@pytest.mark.parametrize("place", ["checkpoints/best", "checkpoints/last/member-0/last"])
@pytest.mark.parametrize("tree", [None, [1], {"a": 1}, {"fingerprint": [1], "schema": [], "config": 3}])
def test_an_artefact_of_another_form_is_refused(trained, copy, capsys, place, tree):
    last = "last" in place
    artefact.save(copy / place, tree, kind="training-state" if last else KIND, version=VERSION)
    (copy / "outcome.json").unlink()
    words = ["--data", str(trained[0]), "--out", str(copy), *QUICK]
    assert (train.main(words) if last else predict.main([str(copy), str(trained[0] / "test.csv")])) == 2
    assert place in refusal(capsys)


@pytest.mark.parametrize("part", ["schema", "encoder", "members", "target", "calibration"])
@pytest.mark.parametrize("value", [None, [], 3, {"x": 1}])
def test_a_model_with_a_part_replaced_is_refused(trained, copy, capsys, part, value):
    tree = artefact.load(copy / "checkpoints/best", kind=KIND, version=VERSION)
    artefact.save(copy / "checkpoints/best", {**tree, part: value}, kind=KIND, version=VERSION)
    assert predict.main([str(copy), str(trained[0] / "test.csv")]) == 2
    refusal(capsys)


def test_a_wide_file_is_refused_by_its_header(tmp_path, monkeypatch, capsys):
    """Before a single row is made into columns: the rows of this one could not even be."""
    names = [f"f{number}" for number in range(10_000)]
    (tmp_path / "wide.csv").write_text(",".join([*names, "y"]) + "\n" + "no,fields,enough\n")
    words = ["--data", str(tmp_path / "wide.csv"), "--out", str(tmp_path / "run"), *QUICK]
    assert train.main(words) == 2
    error = refusal(capsys)
    assert "wide.csv: 10,001 columns, more than" in error
    assert "encoding.max_features" in error
    assert not (tmp_path / "run").exists()


def test_columns_that_meta_json_leaves_out_do_not_count(tmp_path):
    data = folder(tmp_path / "data", rows().assign(a=1, b=2, c=3))
    words = ["--data", str(data), "--out", str(tmp_path / "run"), *QUICK, "--encoding.max-features", "3"]
    assert train.main(words) == 2
    (data / "meta.json").write_text('{"numeric": ["age"], "categorical": ["city"]}')
    assert train.main(words) == 0


def test_a_word_in_a_number_column_is_answered_by_who_can_mend_it(trained, tmp_path, capsys):
    data, run = trained
    shutil.copytree(data, tmp_path / "data")
    for name in ("valid", "test"):
        frame = pd.read_csv(data / f"{name}.csv").astype({"age": object})
        frame.loc[2, "age"] = "old"
        frame.to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    place, categorical = "column 'age': row 3 holds 'old'", "declare the column categorical"
    assert train.main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *QUICK]) == 2
    error = refusal(capsys)
    assert place in error
    assert categorical in error
    for verb, words in (
        (predict, [str(tmp_path / "data" / "test.csv")]),
        (evaluate, ["--data", str(tmp_path / "data")]),
    ):
        assert verb.main([str(run), *words]) == 2
        error = refusal(capsys)
        assert place in error
        assert "the model was trained on numbers in this column: correct it, or leave it empty" in error
        assert categorical not in error


# ------------------------------------------------------------------------------------------- kills, full disk


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("moment", "written"), [("scoring", set()), ("json", set()), ("page", {"scores.json"})])
def test_a_signal_in_evaluate_leaves_nothing_half_written(
    trained, tmp_path, monkeypatch, capsys, number, moment, written
):
    """The signal is real, and comes while the plain model is fitted, or with a file written but not yet in place."""
    before = signal.getsignal(signal.SIGTERM)
    if moment == "scoring":
        monkeypatch.setattr(BoostedTrees, "scores", lambda *_: signal.raise_signal(number))
    else:
        syncs = []

        def sync(descriptor: int, true=os.fsync) -> None:
            syncs.append(descriptor)
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if ("index.html" if moment == "page" else "scores.json") in name:
                signal.raise_signal(number)
            true(descriptor)

        monkeypatch.setattr(os, "fsync", sync)
    out = tmp_path / "out"
    words = [str(trained[1]), "--json", str(out / "scores.json"), "--report", str(out)]
    assert evaluate.main(words) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert {path.name for path in out.rglob("*") if path.is_file()} == written
    if written:
        assert json.loads((out / "scores.json").read_text())["n"] == 20
    assert signal.getsignal(signal.SIGTERM) is before


def start(data: Path, out: Path, *, before=None, epochs: int = 25) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "apps.tabular.prediction.train", *arguments(data, out, epochs)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=before, **pipes)


def arguments(data: Path, out: Path, epochs: int = 25) -> list[str]:
    words = ["--data", str(data), "--out", str(out), "--target", "y", "--preset", "tiny", "--progress", "off"]
    words += ["--batch-size", "16", "--fit.max-epochs", str(epochs), "--fit.patience", "25", "--members", "2"]
    return [*words, "--fit.checkpoint-every-minutes", "0.0001"]


def small_files(most: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def assert_equal_models(one: Path, two: Path) -> None:
    models = [TabularPredictor.load(path / "checkpoints" / "best") for path in (one, two)]
    for a, b in zip(models[0].members, models[1].members, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_full_disk_in_training_is_said_and_the_run_goes_on_when_there_is_room(trained, tmp_path):
    run = start(trained[0], tmp_path / "run", before=lambda: small_files(60_000), epochs=6)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 2
    assert error.count("\n") == 1
    assert "cannot be written (File too large)" in error
    assert not list(tmp_path.glob("run/**/.*.tmp"))
    for name in ("run", "straight"):
        assert train.main(arguments(trained[0], tmp_path / name, epochs=6)) == 0
    assert_equal_models(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("most", [100, 1700])
def test_a_disk_that_is_full_from_the_start_leaves_no_run(trained, tmp_path, most):
    """Nor a config that would bind the next try, whichever file was the first not to fit."""
    run = start(trained[0], tmp_path / "run", before=lambda: small_files(most), epochs=2)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 2, error
    assert error.count("\n") == 1
    assert "cannot be written (File too large)" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_at_any_moment_leaves_a_run_that_resumes_to_the_same_bits(trained, tmp_path):
    assert train.main(arguments(trained[0], tmp_path / "straight", 60)) == 0
    kills, moments = 0, random.Random(0)
    while kills < 12:
        run = start(trained[0], tmp_path / "run", epochs=60)
        deadline = time.monotonic() + 60
        before = None
        while run.poll() is None and time.monotonic() < deadline:
            # Until it has written something of its own; then a random moment, saves included.
            state = {
                path: path.stat().st_mtime_ns for path in tmp_path.glob("run/checkpoints/last/*/last/artefact.json")
            }
            if before is not None and state != before:
                break
            before = state if before is None else before
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.15))
        if run.poll() is None:
            run.kill()
        _, error = run.communicate(timeout=60)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, error
        kills += 1
    assert train.main(arguments(trained[0], tmp_path / "run", 60)) == 0
    assert kills >= 5
    assert_equal_models(tmp_path / "run", tmp_path / "straight")


# ------------------------------------------------------------------------------------------------ estimators

FEATURES, LABELS = rows()[["age", "city"]], rows()["y"]


def estimator(**changes) -> ExcelFormerClassifier:
    return ExcelFormerClassifier(**{"preset": "tiny", "max_epochs": 2, "random_state": 0, **changes})


def test_fits_in_threads_give_what_they_give_alone():
    def fit(seed: int) -> np.ndarray:
        return estimator(random_state=seed, max_epochs=4).fit(FEATURES, LABELS).predict_proba(FEATURES)

    alone, found = [fit(seed) for seed in range(2)], {}
    state = torch.get_rng_state()
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: fit(seed)})) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[seed], found[seed]) for seed in range(2))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "change",
    [
        {"city": FEATURES["city"].astype("category")},
        {"city": FEATURES["city"].astype("string")},
        {"city": pd.array([True, None] * (ROWS // 2), dtype="boolean")},
        {"city": [1, "a", 2.5, None] * (ROWS // 4)},
        {"city": pd.cut(FEATURES["age"], 3)},
        {"city": pd.period_range("2020", periods=ROWS)},
        {"age": pd.array([1, None] * (ROWS // 2), dtype="Int64")},
        {"target": FEATURES["age"]},
    ],
)
def test_columns_of_every_pandas_type_are_taken(change):
    frame = FEATURES.assign(**change)
    assert set(estimator(max_epochs=1).fit(frame, LABELS).predict(frame)) <= {"no", "yes"}


def test_pyarrow_backed_frames_give_what_numpy_ones_give():
    backed = FEATURES.convert_dtypes(dtype_backend="pyarrow")
    one, two = (estimator().fit(frame, LABELS).predict_proba(frame) for frame in (FEATURES, backed))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_only_the_proportions_of_weights_count(scale):
    weight = np.linspace(0.5, 1.5, ROWS)
    one, two = (
        estimator().fit(FEATURES, LABELS, sample_weight=w).predict_proba(FEATURES) for w in (weight, weight * scale)
    )
    assert one == pytest.approx(two, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"categorical_features": [7]}, "there is no column 7"),
        ({"categorical_features": [False, True]}, "False is no column"),
        ({"overrides": {"model": 3, "model.width": 3}}, "'model' is given as a whole and in part"),
        ({"overrides": {"model.widht": 3}}, "did you mean 'width'"),
        ({"members": 0}, "members"),
    ],
)
def test_wrong_settings_are_named(changes, expected):
    with pytest.raises(InputError, match=expected):
        estimator(**changes).fit(FEATURES, LABELS)


def test_numbers_of_a_grid_are_taken_and_targets_that_overflow_are_not():
    estimator(max_epochs=np.int64(1), overrides={"optim.lr": np.float64(1e-3)}).fit(FEATURES, LABELS)
    with pytest.raises(InputError, match="rescale"):
        ExcelFormerRegressor(preset="tiny").fit(FEATURES, FEATURES["age"] * 1e300)
