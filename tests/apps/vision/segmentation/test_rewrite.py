"""The verb `rewrite` on a trained segmentor, pass after pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.cli import main as manyformer
from apps.vision.segmentation import train
from apps.vision.segmentation.segmenter import Segmenter, load_run

QUICK = (
    "--progress off --fit.max-epochs 1 --watch last --adaptation.kind none --source.crop 32 48 --target.crop 32 48 "
    "--model.widths 8 8 8 16 --model.depths 1 1 1 1 --model.heads 1 1 1 2 --model.head-width 8 --model.dilations 1 2"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_set, stripes) -> Path:
    source = [(f"{letter}a-s", "day", "train", stripes(0, 1, 2)) for letter in "abcd"]
    source += [("ev-s", "day", "valid", stripes(0, 1, 2)), ("ft-t", "dusk", "train", None)]
    source += [(f"{letter}e-t", "dusk", "test", stripes(1, 2)) for letter in "gh"]
    return write_set(tmp_path_factory.mktemp("rewrite") / "set", source)


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    out = folder.parent / "run"
    domains = ["--source-domain", "day", "--target-domain", "dusk"]
    assert train.main(["--data", str(folder), *domains, "--out", str(out), *QUICK.split()]) == 0
    return out


def probabilities(run: Path, folder: Path) -> torch.Tensor:
    """Of the test images."""
    return torch.stack(list(load_run(run).probabilities(sorted(folder.glob("images/*e-t.png")))))


@pytest.mark.parametrize("steps", [["fold"], ["rmsnorm"], ["fold", "crmsnorm"], ["lora:rank=2", "merge"]], ids=" ".join)
def test_exact_passes_leave_what_is_seen(run, folder, tmp_path, steps):
    words = [word for step in steps for word in ("--pass", step)]
    assert manyformer(["rewrite", str(run), *words, "--out", str(tmp_path / "new"), "--json", str(tmp_path / "j")]) == 0
    report = json.loads((tmp_path / "j").read_text())
    assert all(each["change64"] <= 1e-10 for each in report["passes"])
    torch.testing.assert_close(
        probabilities(tmp_path / "new", folder), probabilities(run, folder), rtol=1e-4, atol=1e-5
    )
    for each in report["metrics"].values():
        assert each["after"] == each["before"]


@pytest.mark.parametrize("step", ["low_rank:rank=0.5,aware=true", "prune:elements=[sublayers],most=2"])
def test_approximate_passes_say_what_they_cost_and_can_be_loaded(run, folder, tmp_path, step):
    out = tmp_path / "new"
    words = ["rewrite", str(run), "--pass", step, "--metric", "miou", "--out", str(out), "--json", str(tmp_path / "j")]
    assert manyformer(words) == 0
    report = json.loads((tmp_path / "j").read_text())
    assert report["passes"][0]["status"] == "approximate"
    loaded = Segmenter.load(out / "checkpoints" / "best")
    assert sum(p.numel() for p in loaded.model.parameters()) == report["cost"]["after"]["parameters"]
    assert report["cost"]["after"]["macs"] <= report["cost"]["before"]["macs"]
    assert np.isfinite(probabilities(out, folder).numpy()).all()
