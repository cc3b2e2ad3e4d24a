from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from apps.asr import evaluate, train
from apps.asr.evaluate import majority
from apps.asr.metrics import edits, error_rate
from apps.asr.recogniser import Recogniser
from apps.asr.tokenizer import CharTokenizer

FIT = ["--preset", "tiny", "--progress", "off", "--fit.max-epochs", "4"]


@pytest.fixture(scope="module")
def run(tones, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "run"
    assert train.main(["--data", str(tones), "--out", str(out), *FIT]) == 0
    return out


def test_evaluate_writes_rates_with_intervals_a_floor_and_a_page(run, tones, tone_texts, tmp_path, capsys):
    target = tmp_path / "scores.json"
    assert evaluate.main([str(run), "--json", str(target), "--report", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    scores = json.loads(target.read_text())
    assert (scores["task"], scores["model"], scores["split"], scores["n"]) == ("asr", "squeezeformer", "test", 6)
    for name in ("wer", "cer"):
        low, high = scores["metrics"][name]["ci95"]
        assert low <= scores["metrics"][name]["value"] <= high
        assert scores["baseline"]["metrics"][name]["value"] > 60
    assert scores["speed"]["threads"] >= 1
    assert scores["speed"]["real_time_factor"] > 0
    assert "from resampling utterances" in said
    references = tone_texts(36, 0)[30:]
    found = Recogniser.load(run / "checkpoints" / "best").transcribe([tones / f"test-{i}.wav" for i in range(6)])
    expected = error_rate(edits(r, h.text) for r, h in zip(references, found, strict=True))
    assert scores["metrics"]["cer"]["value"] == pytest.approx(expected, abs=1e-9)
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<img") >= 5
    assert "Real-time factor" in page
    heard = re.findall(r"<dt>heard</dt><dd>(.*?)</dd>", page)
    expected = found[0].text.split() or ["\N{EN DASH}"]
    assert any(re.sub("<[^>]+>", "", line).split() == expected for line in heard)


def test_another_corpus_has_the_floor_of_the_training_texts_and_a_changed_one_none(
    run, tones, write_tones, tmp_path, capsys
):
    other = write_tones(tmp_path / "other", {"train": ["ab"], "valid": ["ba"], "test": ["ab c", "d"]})
    assert evaluate.main([str(run), "--data", str(other), "--json", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["baseline"]
    facts = json.loads((run / "data.json").read_text())
    changed = {**facts, "digest": {**facts["digest"], "train": "0"}}
    try:
        (run / "data.json").write_text(json.dumps(changed))
        capsys.readouterr()
        assert evaluate.main([str(run)]) == 0
        assert "no baseline" in capsys.readouterr().out
    finally:
        (run / "data.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--split", "tset"], "did you mean 'test'"), (["--data", "nowhere"], "nowhere"), (["--jsno", "x"], "--json")],
)
def test_wrong_arguments_end_in_one_line(run, words, expected, capsys):
    assert evaluate.main([str(run), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error


def test_the_floor_is_the_most_frequent_sentence_or_one_of_middling_length():
    class Known:
        tokenizer = CharTokenizer.fit(["abc"])

    assert majority(["B", "a b c", "b", "a a"], Known) == "b"
    assert majority(["a", "c b", "b a", "a b c a b"], Known) == "b a"
