"""Scores come back as they were, from a file without pickle; another file is refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from core.application import Measure, Scored
from core.errors import InputError
from core.evaluation.metrics import MULTICLASS, REGRESSION
from core.study.store import read_scored, write_scored

METRICS = {"rmse": REGRESSION["rmse"], "mae": REGRESSION["mae"], "accuracy": MULTICLASS["accuracy"]}


def scored(groups=None):
    rng = np.random.default_rng(3)
    truth, found = rng.normal(size=11), rng.normal(size=11)
    classes, probabilities = rng.integers(0, 3, 11), rng.dirichlet(np.ones(3), 11).astype(np.float32)
    measures = {name: Measure(METRICS[name], truth, found) for name in ("rmse", "mae")}
    return Scored({**measures, "accuracy": Measure(METRICS["accuracy"], classes, probabilities)}, groups, classes)


@pytest.mark.parametrize("groups", [None, np.array(["a", "bb"] * 5 + ["ü"], dtype=object), np.arange(11)])
def test_round_trip(tmp_path, groups):
    before = scored(groups)
    layout = json.loads(json.dumps(write_scored(tmp_path / "a.npz", before)))
    after = read_scored(tmp_path / "a.npz", layout, METRICS)
    assert [*after.measures] == [*before.measures]
    for name, measure in before.measures.items():
        again = after.measures[name]
        assert again.metric is measure.metric
        assert again.value == measure.value
        for one, other in ((again.truth, measure.truth), (again.prediction, measure.prediction)):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    assert (after.groups is None) == (groups is None)
    assert groups is None or after.groups.tolist() == groups.tolist()
    assert np.array_equal(after.strata, before.strata)
    # What several metrics share is there once.
    assert len(zipfile.ZipFile(tmp_path / "a.npz").namelist()) == (4 if groups is None else 5)


@pytest.mark.parametrize("harm", ["alter", "remove"])
def test_another_file_is_refused(tmp_path, harm):
    path = tmp_path / "a.npz"
    layout = write_scored(path, scored())
    if harm == "alter":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"a\.npz.*the run is then done again"):
        read_scored(path, layout, METRICS)
