"""A queue that is killed at any moment, and asked again, ends with the results of one that nobody touched."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import core
from core.study.journal import ending, read_events

ROOT = Path(core.__file__).parents[1]
TOY = Path(__file__).with_name("study_toy.py")


def results_of(study):
    """All that two equal studies share: everything but the clock and the memory."""
    found = {}
    for log in sorted(study.glob("runs/*.jsonl")):
        end = ending(read_events(log))
        with np.load(log.with_suffix(".npz"), allow_pickle=False) as arrays:
            scores = {name: (arrays[name].dtype.str, arrays[name].tobytes()) for name in arrays.files}
        facts = {name: end[name] for name in ("event", "epochs", "steps", "best", "metrics")}
        found[log.stem] = {**facts, "measures": end["scores"]["measures"], "arrays": scores}
    return found


def times_begun(study):
    return [sum(event["event"] == "started" for event in read_events(log)) for log in study.glob("runs/*.jsonl")]


@pytest.mark.timeout(300)  # it begins as a program that imports everything
def test_a_killed_queue_is_the_unbroken_one(tmp_path):
    """Eight runs; SIGKILL, SIGTERM and Ctrl-C; nothing that was started outlives its queue."""
    line = "--vary model.width=3,4 --vary behaviour=slow --seeds 4 --threads 1"
    words = [sys.executable, TOY, "5", *line.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [-signal.SIGKILL, 130, 130], done.stderr
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    assert len(results_of(plain)) == 8
    assert results_of(killed) == results_of(plain)
    assert times_begun(plain) == [1] * 8
    assert [*killed.glob("work/*")] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_runs_killed_ten_times(tmp_path):
    """The command itself on a real table, killed at random with all it started or alone; by the program's own account
    a run costs less than two seconds besides its training and scoring."""
    line = (
        "compare tabular --preset tiny --data bundled:iris --vary model.norm=layernorm,rmsnorm --threads 1 --seeds 30"
    )
    words = [sys.executable, "-m", "apps.cli", *line.split(), "--out"]
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "stdout": subprocess.DEVNULL}
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    begun = time.monotonic()
    assert subprocess.run([*words, str(plain)], **options).returncode == 0
    seconds = time.monotonic() - begun
    overhead = json.loads((plain / "results.json").read_text())
    assert overhead["overhead_seconds_per_run"] < 2
    assert overhead["call"]["overhead_seconds_per_run"] < 2
    draw = random.Random(8)
    for _ in range(10):
        process = subprocess.Popen([*words, str(killed)], start_new_session=True, **options)
        wait_for_a_run(killed, process)
        time.sleep(draw.uniform(0, seconds / 15))
        assert process.poll() is None, "it ended before it was killed"
        kill = draw.choice([os.kill, os.killpg])
        kill(process.pid, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.wait()
    assert subprocess.run([*words, str(killed)], **options).returncode == 0
    assert len(results_of(plain)) == 60
    assert results_of(killed) == results_of(plain)
    assert max(times_begun(killed)) > 1


def wait_for_a_run(study, process):
    """Until this call has begun a run."""
    before = sum(times_begun(study))
    while sum(times_begun(study)) == before and process.poll() is None:
        time.sleep(0.02)
