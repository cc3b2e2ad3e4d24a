from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.asr.data import espeak
from apps.asr.data.audio import read_audio
from apps.asr.data.espeak import Job, speak
from apps.asr.data.findings import inspect
from apps.asr.data.sentences import sentences, vocabulary
from apps.asr.data.sources import load_corpus
from apps.asr.data.synthetic import (
    SIZES,
    SPEAKERS,
    _check_voices,
    _pink,
    _recorded,
    cache_folder,
    cached_corpus,
    make_corpus,
)
from core.errors import InputError

SMALL = {"train": 6, "valid": 3, "test": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    pytest.importorskip("espeakng_loader")
    return make_corpus(tmp_path_factory.mktemp("made") / "corpus", 0, sizes=SMALL)


def test_the_corpus_is_whole_says_that_it_is_synthetic_and_has_nothing_wrong(folder):
    corpus = load_corpus(folder)
    assert {name: len(part) for name, part in corpus.splits.items()} == SMALL
    assert corpus.synthetic
    assert "(synthetic speech)" in str(corpus)
    assert all(u.speaker.startswith("espeak-") for part in corpus.splits.values() for u in part)
    assert "synthetic" in (folder / "manifest.csv").read_text().splitlines()[0]
    assert [found.kind for found in inspect(corpus)] == ["few"]  # six sentences to learn from
    assert sorted(path.name for path in folder.parent.iterdir()) == ["corpus"]


def test_the_same_seed_says_the_same_and_another_says_something_else(folder, tmp_path):
    make_corpus(tmp_path / "again", 0, sizes=SMALL)
    make_corpus(tmp_path / "other", 1, sizes=SMALL)
    first, again, other = (
        load_corpus(path).splits["train"] for path in (folder, tmp_path / "again", tmp_path / "other")
    )
    for one, two in zip(first, again, strict=True):
        assert one.text == two.text
        assert one.path.read_bytes() == two.path.read_bytes()
    assert {u.text for u in first}.isdisjoint(u.text for u in other)


def test_voices_and_texts_of_the_splits_are_apart():
    variants = {name: {s.voice.partition("+")[2] or s.voice for s in members} for name, members in SPEAKERS.items()}
    for one, two in itertools.combinations(variants.values(), 2):
        assert one.isdisjoint(two)
    texts = list(itertools.islice(sentences(0), sum(SIZES.values())))
    assert len(set(texts)) == len(texts)
    words = {word for text in texts[: SIZES["train"]] for word in text.split()}
    assert words <= vocabulary()
    assert len(vocabulary() - words) < 5  # training hears nearly every word


def test_each_voice_sounds_different_and_unknown_ones_are_refused():
    pytest.importorskip("espeakng_loader")
    jobs = [Job("hello", s.voice, s.rate, s.pitch) for members in SPEAKERS.values() for s in members]
    spoken, rate = speak(jobs)
    assert rate == 22_050
    assert len({samples.tobytes() for samples in spoken}) == len(jobs) == 22
    for voice in ("nobody", "en-us+nobody"):
        with pytest.raises(InputError, match="nobody"):
            speak([Job("hello", "en-us"), Job("hello", voice)])
    with pytest.raises(InputError, match="fewer voices"):
        _check_voices([spoken[0], spoken[1], spoken[0]])


def test_without_the_speaker_one_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    for call in (espeak.loader, lambda: load_corpus("synthetic:sentences", cache=tmp_path)):
        with pytest.raises(InputError, match=r'pip install "manyformer\[synthesis\]"'):
            call()


def test_the_cache_is_where_it_was_asked_for(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("MANYFORMER_CACHE", raising=False)
    assert cache_folder() == Path("/somewhere/manyformer")
    monkeypatch.setenv("MANYFORMER_CACHE", "/own")
    assert cache_folder() == Path("/own")


def test_what_is_in_the_cache_is_not_made_again(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    made = []
    monkeypatch.setattr("apps.asr.data.synthetic.make_corpus", lambda folder, seed: made.append(folder) or folder)
    path = cached_corpus(tmp_path)
    path.mkdir()
    assert cached_corpus(tmp_path) == path
    assert made == [path]
    monkeypatch.setattr("apps.asr.data.synthetic.VERSION", 10**6)
    assert cached_corpus(tmp_path) != path


def test_a_corpus_that_another_process_made_first_stays(folder):
    before = (folder / "manifest.csv").stat().st_ino
    assert make_corpus(folder, 0, sizes=SMALL) == folder
    assert (folder / "manifest.csv").stat().st_ino == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["corpus"]


def test_a_corpus_that_could_not_be_finished_leaves_nothing(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("apps.asr.data.synthetic.replace_file", full)
    with pytest.raises(InputError, match="No space left"):
        make_corpus(tmp_path / "corpus", sizes=SMALL)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    pytest.importorskip("espeakng_loader")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/corpus: cannot be written"):
        make_corpus(tmp_path / "file" / "corpus", sizes=SMALL)


def test_rooms_and_levels(folder):
    levels = [float(read_audio(u).abs().max()) for part in load_corpus(folder).splits.values() for u in part]
    assert all(10 ** (-15.2 / 20) < level < 10 ** (-1.8 / 20) for level in levels)
    assert max(levels) / min(levels) > 1.5
    silence_after = np.concatenate([np.sin(np.arange(8000)), np.zeros(8000)]).astype(np.float32)
    heard = _recorded(silence_after, np.random.default_rng(0))
    tail = np.sqrt((heard[8000:8800] ** 2).mean())
    floor = np.sqrt((heard[12_000:16_000] ** 2).mean())
    speech = np.sqrt((heard[:8000] ** 2).mean())
    assert speech > 3 * tail > 3.5 * floor  # an echo dies away
    assert 10 ** (-41 / 20) < floor / speech < 10 ** (-16 / 20)


def test_noise_falls_by_3_db_an_octave():
    power = np.abs(np.fft.rfft(_pink(2**16, np.random.default_rng(0)))) ** 2
    octave = [power[(edge := 2**k * 512) : 2 * edge].mean() for k in range(5)]
    np.testing.assert_allclose(np.diff(10 * np.log10(octave)), -3.01, atol=0.4)
