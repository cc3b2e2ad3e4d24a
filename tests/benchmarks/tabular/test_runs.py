import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.tabular import runs

KEY = runs.RunKey(set="a", method="linear", seed=1, threads=2, minutes=3.0, settings={"c": 1}, versions={"x": "1"})
PREDICTIONS = np.linspace(0, 1, 50, dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    runs.save(tmp_path, KEY, {"status": "finished"}, PREDICTIONS)
    return tmp_path


def test_a_run_comes_back_whole(folder):
    (run,) = runs.load_all(folder)
    np.testing.assert_array_equal(run.predictions, PREDICTIONS)
    assert run.record["key"]["seed"] == 1
    assert not run.stale


@pytest.mark.parametrize(
    "change",
    [{"settings": {"c": 2}}, {"versions": {"x": "2"}}, {"threads": 1}, {"minutes": 4.0}],
    ids=["settings", "versions", "threads", "minutes"],
)
def test_a_run_counts_only_for_the_same_request(folder, change):
    assert runs.is_done(folder, KEY)
    assert not runs.is_done(folder, replace(KEY, **change))


def test_predictions_that_are_not_the_ones_named_are_no_run(folder):
    stored = folder / f"{KEY.stem}.npz"
    stored.write_bytes(stored.read_bytes()[:-10])
    assert runs.load_all(folder) == []
    assert not runs.is_done(folder, KEY)
    stored.unlink()
    assert not runs.is_done(folder, KEY)


def test_a_failed_run_is_tried_again_one_over_the_limit_is_not(folder):
    runs.save(folder, KEY, {"status": "failed", "reason": "x"}, None)
    assert not runs.is_done(folder, KEY)
    runs.save(folder, KEY, {"status": "over_limit", "reason": "x"}, None)
    assert runs.is_done(folder, KEY)


def test_a_run_of_older_code_is_stale(folder):
    path = folder / f"{KEY.stem}.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"source": "0" * 16}))
    assert runs.load(folder, KEY.stem).stale


def test_the_marks_follow_the_code_of_each_method():
    assert runs.method_source("excelformer") == runs.method_source("excelformer_one")
    assert runs.method_source("hgb") != runs.method_source("linear")
