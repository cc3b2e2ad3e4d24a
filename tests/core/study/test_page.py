"""What the page of a study says, read back from its text."""

import html
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from core.application import Measure, Scored
from core.errors import InputError
from core.evaluation.metrics import BINARY
from core.study.analysis import Analysis, analyse
from core.study.page import PageFacts, page, write_page
from core.study.records import Arm, RunRecord

METRICS = {"auc": BINARY["auc"], "log_loss": BINARY["log_loss"]}
FACTS = PageFacts(
    question="Does <rmsnorm> help?",
    asked="model.norm: layernorm or rmsnorm; model.ff: mlp or glu.",
    task="tabular",
    model="excelformer",
    split="test",
    measured={"Budget": "3 minutes a run", "Digest of test": "a3f0", "Threads": "1", "Machine": "two processors"},
    command="manyformer compare tabular --vary model.norm=layernorm,rmsnorm",
)


def found(*, seeds: int = 3, diverged: tuple[int, ...] = (), forwards: tuple[str, ...] = ("mlp",)) -> Analysis:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 90)
    hard = rng.normal(size=90)
    arms, records = [], []
    for norm, forward in itertools.product(("layernorm", "rmsnorm"), forwards):
        arm = Arm(name=f"model.norm={norm}, model.ff={forward}", changes={"model.norm": norm, "model.ff": forward})
        arms.append(arm)
        for seed in range(seeds):
            if seed in diverged and norm == "rmsnorm":
                gone = RunRecord(arm=arm.name, seed=seed, status="diverged", reason="loss of step 3 is nan", metrics={})
                records.append(gone)
                continue
            worth = 1.0 + (forward == "glu")
            p = 1 / (1 + np.exp(-(worth * (2 * truth - 1) + hard + 0.3 * rng.normal(size=90))))
            scored = Scored({name: Measure(metric, truth, p) for name, metric in METRICS.items()}, strata=truth)
            values = {name: measure.value for name, measure in scored.measures.items()}
            run = RunRecord(
                arm=arm.name,
                seed=seed,
                status="finished",
                seconds=60.0 + seed,
                parameters=1000 + 5 * len(forward),
                peak_mib=300.0,
                metrics=values,
                scored=scored,
            )
            records.append(run)
    return analyse(arms, records, METRICS, n=60)


def words(analysis: Analysis) -> str:
    """The text of the page, without tags, in one line."""
    written = page(analysis, FACTS).html()
    body = written[written.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_asks_answers_and_says_how_it_was_measured() -> None:
    analysis = found()
    text = words(analysis)
    for said in (
        FACTS.question,
        FACTS.asked,
        *analysis.sentences(),
        *FACTS.measured.values(),
        FACTS.command,
        "auc ↑ on test",
    ):
        assert said in text
    assert "The baseline is norm=layernorm, ff=mlp." in text
    assert "6 of 6 finished" in text
    assert "Seeds 0, 1, 2" in text
    assert "No effect seen is not the same as no effect" in text
    for score in analysis.arms[0].scores["auc"].values():
        assert f"{score:.3f}" in text


def test_what_diverged_is_told_in_tile_sentence_table_and_remark() -> None:
    text = words(found(diverged=(1,)))
    assert "Trainings that diverged 1 of 6" in text
    assert "Beware: norm=rmsnorm, ff=mlp diverged in 1 of 3 seeds, the baseline in none." in text
    assert "What happened norm=rmsnorm, ff=mlp loss of step 3 is nan" in text
    assert "1 of the seeds have no score of the arm" in text
    assert "5 of 6 finished" in text


def test_a_grid_shows_its_main_effects() -> None:
    written = page(found(forwards=("mlp", "glu")), FACTS).html()
    assert written.count('alt="Effects on auc with intervals"') == 2
    assert "ff=glu (not ff=mlp)" in written
    assert "averaged over 2 settings of the rest" in written


def test_one_seed_is_no_finding_about_the_switch() -> None:
    text = words(found(seeds=1))
    assert "That is one training of each: another one may turn it." in text
    assert "one seed: the chance of training is not in the interval" in text


def test_an_arm_that_never_ended_still_has_a_page() -> None:
    text = words(found(diverged=(0, 1, 2)))
    assert "norm=rmsnorm, ff=mlp cannot be compared with the baseline: no seed ended in both" in text
    assert "1 could not be compared" in text


def test_costs_that_are_equal_are_said_and_not_drawn() -> None:
    written = page(found(), FACTS).html()
    assert "All arms have the same cost: parameters 1,015" in written
    assert 'alt="auc against parameters"' not in written


def test_the_page_is_whole_safe_and_the_same_bytes(tmp_path: Path) -> None:
    first = write_page(found(), FACTS, tmp_path / "deep" / "index.html")
    second = write_page(found(), FACTS, tmp_path / "again.html")
    assert first.read_bytes() == second.read_bytes()
    written = first.read_text(encoding="utf-8")
    assert "<rmsnorm>" not in written
    assert "<script" not in written
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        write_page(found(), FACTS, tmp_path / "file" / "index.html")
