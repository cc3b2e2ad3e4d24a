"""``train --devices``: a step of adaptation, with its teacher and batch norm over the processes, divided among them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from apps.vision.segmentation.segmenter import load_run
from apps.vision.segmentation.train import main
from core.command.outcome import read_history

pytestmark = pytest.mark.timeout(600)
# Nothing that a process draws for its own part of a batch: no crops, flips, jitter; one image of the target.
STILL = ["--source.crop", "72", "96", "--target.crop", "72", "96", "--source.flip", "0", "--target.flip", "0"]
STILL += ["--source.tries", "0", "--no-rare-classes", "--no-photometric"]
STILL += ["--adaptation.augment.jitter", "0", "--adaptation.augment.blur", "0"]
ADAPT = ["--adaptation.mix-start", "0", "--adaptation.mix-ramp", "0", "--adaptation.threshold", "0.34"]
ADAPT += ["--adaptation.distance", "0"]


@pytest.fixture
def decided(write_set, stripes, tmp_path):
    """Of each source image one class is labelled: there is one way to mix it, and the teacher labels the rest."""
    source = [(f"{k}{n}-s", "day", "train", stripes(k, 255)) for k in range(3) for n in range(4)]
    source += [(f"v{k}-s", "day", "valid", stripes(k, 1, 2)) for k in range(3)]
    target = [("a-t", "dusk", "train", None), ("b-t", "dusk", "test", stripes(1, 2))]
    return write_set(tmp_path / "set", [*source, *target])


@pytest.mark.parametrize(("kind", "strategy"), [("adapt", "ddp"), ("adapt", "fsdp"), ("none", "fsdp")])
def test_two_processes_train_the_segmentor_of_one(decided, tmp_path, kind, strategy):
    words = ["--data", str(decided), "--source-domain", "day", "--target-domain", "dusk", "--preset", "tiny"]
    words += ["--batch", "4", "--epoch-images", "12", "--fit.max-epochs", "3", "--optim.lr", "1e-3"]
    words += [*STILL, *ADAPT, "--adaptation.kind", kind, "--progress", "off"]
    two = [sys.executable, "-m", "apps.vision.segmentation.train", "--devices", "2", "--strategy", strategy]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*two, "--out", str(tmp_path / "two"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert main(["--out", str(tmp_path / "one"), *words]) == 0
    one, other = (read_history(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(other) == 3
    expected = {"train_loss", "source_miou", "target_entropy"}
    expected |= {"train_mixed", "train_confident", "target_agreement"} if kind == "adapt" else set()
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys() >= expected
        for name in first.keys() - {"seconds"}:
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-3), name
    assert kind == "none" or one[-1]["train_confident"] > 0.01
    images = np.random.default_rng(0).integers(0, 256, (1, 72, 96, 3), dtype=np.uint8)
    labels = [next(iter(load_run(tmp_path / name).predict(images))) for name in ("one", "two")]
    assert np.mean(labels[0].labels == labels[1].labels) > 0.99
