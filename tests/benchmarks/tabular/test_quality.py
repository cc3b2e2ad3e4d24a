import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.tabular import quality, runs, table
from benchmarks.tabular.sets import describe, read_rows


def options(data, *more):
    return quality._parser().parse_args(["--data", str(data), "--threads", "1", *more])


def test_the_plan_interleaves_the_methods(data):
    keys = list(quality.plan(options(data, "--methods", "linear,hgb", "--sets", "binary_set", "--seeds", "0,4")))
    assert [(key.method, key.seed) for key in keys] == [("linear", 0), ("hgb", 0), ("linear", 4), ("hgb", 4)]
    assert keys[1].settings["patience"] == 50
    assert set(keys[0].versions) == {"scikit-learn"}


def test_wrong_names_are_one_line_and_status_two(data, capsys):
    assert quality.main(["--data", str(data), "--methods", "linaer"]) == 2
    assert capsys.readouterr().err == "no method 'linaer'; did you mean 'linear'?\n"


def test_runs_are_made_once_scored_and_repeated_when_stale(data, tmp_path, capsys):
    arguments = ["--data", str(data), "--out", str(tmp_path), "--threads", "1", "--seeds", "0"]
    arguments += ["--methods", "linear", "--sets", "regression_set"]
    assert quality.main(arguments) == 0
    assert capsys.readouterr().out.count("finished") == 1
    assert quality.main(arguments) == 0
    assert capsys.readouterr().out == ""
    run = runs.load(tmp_path / "runs", "regression_set--linear--0")
    truth = read_rows(data, describe(data, "regression_set"), "test").y
    assert np.sqrt(np.mean((truth - run.predictions) ** 2)) < 0.5 * truth.std()
    assert run.record["provenance"]["threads"] == 1
    assert run.record["predict"]["one_row_failures"] == 0
    assert 0 < run.record["memory"]["before_fit_mib"] <= run.record["memory"]["peak_mib"]
    path = tmp_path / "runs" / "regression_set--linear--0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": "old"}))
    table.main(["--data", str(data), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "q.json")])
    assert (tmp_path / "q.md").read_text().count("]" + table.STALE) == 1
    assert quality.main([*arguments, "--refresh"]) == 0
    assert capsys.readouterr().out.count("finished") == 1


@pytest.fixture
def key(data):
    return next(iter(quality.plan(options(data, "--methods", "linear", "--sets", "binary_set"))))


def test_a_run_that_raises_says_why(data, tmp_path, key):
    assert quality.execute(replace(key, set="no_such_set"), data, tmp_path, grace=1) == "failed"
    run = runs.load(tmp_path, "no_such_set--linear--0")
    assert "FileNotFoundError" in run.record["reason"]
    assert run.predictions is None


def test_a_run_over_its_limit_is_ended(data, tmp_path, key):
    assert quality.execute(replace(key, minutes=0.0), data, tmp_path, grace=0.0001) == "over_limit"
    assert runs.is_done(tmp_path, replace(key, minutes=0.0))
