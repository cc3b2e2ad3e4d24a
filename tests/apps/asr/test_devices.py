"""``train --devices``: a recogniser, with batch norm over the processes, divided among them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from apps.asr.recogniser import load_run
from apps.asr.train import main
from core.command.outcome import read_history

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("strategy", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_two_processes_train_the_recogniser_of_one(tones, tmp_path, strategy):
    words = ["--data", str(tones), "--preset", "tiny", "--fit.max-epochs", "2", "--augment.time-masks", "0"]
    words += ["--model.attention-dropout", "0", "--batch-seconds", "12", "--fit.ema", "0.9", "--progress", "off"]
    # A small rate: a bias before a batch norm, which has no gradient but rounding, then goes nowhere.
    words += ["--optim.lr", "1e-4"]
    two = [sys.executable, "-m", "apps.asr.train", "--devices", "2", "--strategy", strategy]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*two, "--out", str(tmp_path / "two"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("trained on 24 utterances") == 1
    assert main(["--out", str(tmp_path / "one"), *words]) == 0
    one, other = (read_history(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for first, second in zip(one, other, strict=True):
        for name in ("train_loss", "loss"):
            assert second[name] == pytest.approx(first[name], rel=1e-3)
    assert load_run(tmp_path / "two").tokenizer.size == load_run(tmp_path / "one").tokenizer.size
