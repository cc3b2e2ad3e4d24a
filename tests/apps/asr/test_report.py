from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch

from apps.asr.data.sources import load_corpus
from apps.asr.decoding import Word
from apps.asr.evaluate import Evaluation, evaluate
from apps.asr.metrics import scores
from apps.asr.pictures import spectrogram
from apps.asr.recogniser import Transcript
from apps.asr.report import write_report


@pytest.fixture(scope="module")
def evaluation(babbler, tones) -> Evaluation:
    return evaluate(babbler(), load_corpus(tones), "test", None)


def answered(evaluation: Evaluation, texts: list[str]) -> Evaluation:
    """The same, had these texts been heard."""

    def spoken(text: str) -> Transcript:
        words = [Word(word, 0.1 * place, 0.1 * place + 0.05, 0.9) for place, word in enumerate(text.split())]
        return Transcript(text, tuple(words), 0.9, 2.0)

    transcripts = tuple(map(spoken, texts))
    speakers = [one.speaker for one in evaluation.utterances]
    found = scores(evaluation.references, texts, speakers, [2.0] * len(texts))
    result = dataclasses.replace(evaluation.result, metrics=found.metrics)
    return dataclasses.replace(evaluation, transcripts=transcripts, scores=found, result=result)


def page_of(evaluation: Evaluation, tmp_path) -> str:
    path = write_report(evaluation, tmp_path / "run", tmp_path / "page" / "index.html")
    return path.read_text(encoding="utf-8")


def marked(page: str, kind: str) -> list[str]:
    return re.findall(f'<span class="{kind}">(.*?)</span>', page)


def test_the_differences_of_every_wrong_utterance_are_marked(evaluation, tmp_path):
    references = list(evaluation.references)
    texts = [*references[:-1], " ".join(["<b>", *references[-1].split()[1:], "zz"])]
    page = page_of(answered(evaluation, texts), tmp_path)
    lost = references[-1].split()[0]
    errors = page[page.index("<h2>Errors</h2>") : page.index("<h2>Speakers and lengths</h2>")]
    assert marked(errors, "missing") == [lost]
    assert marked(errors, "extra") == ["&lt;b&gt;", "zz"]
    assert "1 of 1 utterances with errors" in errors
    assert "5 of 6 utterances have no error" in page
    assert "<b>" not in page


def test_a_faultless_recogniser_has_no_errors_to_list(evaluation, tmp_path):
    page = page_of(answered(evaluation, list(evaluation.references)), tmp_path)
    assert "There are none." in page
    assert not marked(page, "missing") + marked(page, "extra")
    assert ">0.000<" in page


def test_one_that_hears_nothing_has_a_page_too(evaluation, tmp_path):
    page = page_of(answered(evaluation, [""] * len(evaluation.references)), tmp_path)
    words = [word for reference in evaluation.references for word in reference.split()]
    errors = page[page.index("<h2>Errors</h2>") :]
    assert sorted(marked(errors, "missing")) == sorted(words)
    assert not marked(page, "extra")


def test_synthetic_speech_is_said_to_be_synthetic(evaluation, tmp_path):
    assert "Synthetic speech" not in page_of(evaluation, tmp_path)
    corpus = dataclasses.replace(evaluation.corpus, synthetic=True)
    assert "Synthetic speech" in page_of(dataclasses.replace(evaluation, corpus=corpus), tmp_path)


def test_learning_curves_are_shown_where_there_is_a_history(evaluation, tmp_path):
    assert "<h2>Learning</h2>" not in page_of(evaluation, tmp_path)
    (tmp_path / "run").mkdir()
    records = [{"epoch": e, "train_loss": 9 / e, "loss": 10 / e, "wer": 100 / e, "cer": 50 / e} for e in (1, 2, 3)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "<h2>Learning</h2>" in page_of(evaluation, tmp_path)


def test_words_stand_over_the_stretch_they_were_heard_in():
    features = torch.randn(200, 80).numpy()
    words = [Word("ab", 0.2, 0.5, 0.9), Word("c$d", 1.0, 1.1, 0.3)]
    above, below = spectrogram(features, words).axes
    bars = [list(line.get_xdata()) for line in above.lines]
    assert bars == [[0.2, 0.5], [1.0, 1.1]]
    assert [text.get_text() for text in above.texts] == ["ab", r"c\$d"]
    assert above.lines[0].get_color() != above.lines[1].get_color()
    assert below.get_xlim() == (0, 2.0)
    assert [text.get_rotation() for text in above.texts] == [0, 0]
    crowd = [Word("word", 0.05 * index, 0.05 * index + 0.04, 0.9) for index in range(30)]
    assert {text.get_rotation() for text in spectrogram(features, crowd).axes[0].texts} == {35}
    assert [text.get_text() for text in spectrogram(features, []).axes[0].texts] == ["nothing was recognised"]
