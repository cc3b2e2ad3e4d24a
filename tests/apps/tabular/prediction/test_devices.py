"""``train --devices``: the verb in several processes, launched by itself or by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.tabular.prediction.data.sources import load_splits
from apps.tabular.prediction.predictor import load_run
from apps.tabular.prediction.train import main
from core.command import only_writer

pytestmark = pytest.mark.timeout(600)
COMMON = ["--preset", "tiny", "--data", "bundled:iris", "--fit.max-epochs", "3", "--mixing.kind", "none"]
STILL = ["--model.attention-dropout", "0", "--model.residual-dropout", "0"]


def call(out: Path, *more: str, by: tuple[str, ...] = (sys.executable, "-m")) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    words = [*by, "apps.tabular.prediction.train", "--out", str(out), *COMMON, *STILL, *more, "--progress", "off"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, timeout=280, env=environment)


def assert_equal_but_for_rounding(one: Path, other: Path) -> None:
    frame = load_splits("bundled:iris")["test"].frame
    first, second = (load_run(folder).predict_proba(frame) for folder in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_two_processes_train_the_model_of_one(tmp_path):
    done = call(tmp_path / "two", "--devices", "2", "--members", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("trained 2 networks on 105 rows") == 1
    assert main(["--out", str(tmp_path / "one"), *COMMON, *STILL, "--members", "2", "--progress", "off"]) == 0
    assert_equal_but_for_rounding(tmp_path / "one", tmp_path / "two")
    outcomes = [json.loads((tmp_path / name / "outcome.json").read_text()) for name in ("one", "two")]
    assert [outcome["complete"] for outcome in outcomes] == [True, True]
    assert outcomes[1]["members"][1]["best"] == pytest.approx(outcomes[0]["members"][1]["best"], abs=1e-4)


@pytest.mark.slow
def test_torchrun_is_another_launcher(tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    done = call(tmp_path / "run", "--strategy", "fsdp", by=torchrun)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 1 network") == 1
    assert main(["--out", str(tmp_path / "one"), *COMMON, *STILL, "--progress", "off"]) == 0
    assert_equal_but_for_rounding(tmp_path / "one", tmp_path / "run")
    again = call(tmp_path / "run", "--devices", "2", by=torchrun)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("this run is finished") == 1
    wrong = call(tmp_path / "run", "--devices", "3", by=torchrun)
    assert "--devices: 3 is not the number of processes, 2; leave --devices out under torchrun" in wrong.stderr


@pytest.mark.slow
def test_what_the_first_refuses_is_one_line(tmp_path):
    with only_writer(tmp_path / "taken"):
        done = call(tmp_path / "taken", "--devices", "2")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "another process is writing this run" in done.stderr
    done = call(tmp_path / "absent", "--devices", "2", "--data", "bundled:no_such_table")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--devices", "0"], "--devices: 0 is not a number of processes"),
        (["--strategy", "fsdp"], "--strategy: fsdp divides a model among processes; give --devices 2 or more"),
        (["--strategy", "fsdp", "--devices", "1"], "fsdp divides a model among processes"),
        (["--strategy", "dp"], "'dp'"),
    ],
)
def test_nonsense_is_refused_before_anything_is_started(tmp_path, capsys, words, line):
    assert main(["--out", str(tmp_path / "run"), *COMMON, *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_more_processes_than_gpus_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["--out", str(tmp_path / "run"), *COMMON, "--devices", "2"]) == 2
    assert "2 processes need as many GPUs, and there is 1" in capsys.readouterr().err
