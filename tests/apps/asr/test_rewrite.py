"""The verb `rewrite` on a trained recogniser, pass after pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from apps.asr import train
from apps.asr.data.sources import load_corpus
from apps.asr.recogniser import Recogniser
from apps.cli import main as manyformer

QUICK = ["--preset", "tiny", "--progress", "off", "--fit.max-epochs", "1", "--model.placement", "pre", "--model.reduce"]


@pytest.fixture(scope="module")
def run(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rewrite") / "run"
    words = ["--data", str(tones), "--out", str(out), *QUICK, "None", "--model.nested", "0.5", "1.0"]
    assert train.main(words) == 0
    return out


def logits(run: Path, tones: Path) -> torch.Tensor:
    recogniser = Recogniser.load(run / "checkpoints" / "best")
    return torch.cat([outputs for _, outputs in recogniser.logits(load_corpus(str(tones)).splits["test"])])


@pytest.mark.parametrize(
    "steps",
    [
        ["fold"],
        ["rmsnorm"],
        ["crmsnorm"],
        ["fold", "crmsnorm"],
        ["lora:rank=2", "merge"],
        ["extract:shares=[1.0]", "experts:experts=4,active=4", "merge_experts"],
    ],
    ids=" ".join,
)
def test_exact_passes_leave_what_is_recognised(run, tones, tmp_path, steps):
    words = [word for step in steps for word in ("--pass", step)]
    assert manyformer(["rewrite", str(run), *words, "--out", str(tmp_path / "new"), "--json", str(tmp_path / "j")]) == 0
    report = json.loads((tmp_path / "j").read_text())
    assert all(each["change64"] <= 1e-10 for each in report["passes"])
    torch.testing.assert_close(logits(tmp_path / "new", tones), logits(run, tones), rtol=1e-4, atol=1e-4)
    for each in report["metrics"].values():
        assert each["after"] == each["before"]


@pytest.mark.parametrize(
    "step", ["extract:shares=[0.5]", "low_rank:rank=0.5,aware=true", "prune:elements=[sublayers],most=3"], ids=str
)
def test_approximate_passes_say_what_they_cost_and_can_be_loaded(run, tones, tmp_path, step):
    out = tmp_path / "new"
    assert manyformer(["rewrite", str(run), "--pass", step, "--out", str(out), "--json", str(tmp_path / "j")]) == 0
    report = json.loads((tmp_path / "j").read_text())
    assert report["passes"][0]["status"] == "approximate"
    loaded = Recogniser.load(out / "checkpoints" / "best")
    assert sum(p.numel() for p in loaded.model.parameters()) == report["cost"]["after"]["parameters"]
    assert report["cost"]["after"]["macs"] <= report["cost"]["before"]["macs"]
    assert logits(out, tones).isfinite().all()


def test_a_reduced_model_is_converted_where_its_stream_is_read_by_norms_alone(tones, tmp_path, capsys):
    words = ["--data", str(tones), "--out", str(tmp_path / "run"), *QUICK, "1"]
    assert train.main(words) == 0
    assert manyformer(["rewrite", str(tmp_path / "run"), "--pass", "rmsnorm", "--out", str(tmp_path / "new")]) == 0
    report = json.loads((tmp_path / "new" / "rewrite.json").read_text())
    (decision,) = report["passes"][0]["decisions"]
    assert set(decision["stacks"]) == {"after"}
    assert "time reduction" in decision["left"]["before"]
    assert "time recovery" in decision["left"]["reduced"]
    torch.testing.assert_close(logits(tmp_path / "new", tones), logits(tmp_path / "run", tones), rtol=1e-4, atol=1e-4)
