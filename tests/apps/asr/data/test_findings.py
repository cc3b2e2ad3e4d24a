from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from apps.asr.data.audio import Recording
from apps.asr.data.findings import inspect
from apps.asr.data.fitness import Limits
from apps.asr.data.measure import measure
from apps.asr.data.sources import load_corpus
from apps.asr.features import LogMel
from apps.asr.subsampling import subsampled_length
from apps.asr.tokenizer import TokenizerConfig, fit_tokenizer

OF_SPLITS = ("few", "split", "no-split")


def _frames(samples: int) -> int:
    return int(subsampled_length(torch.tensor([LogMel().frames(samples)]))[0])


def _inspected(path, limits=None, texts=("abcdefgh ijklmnop",)):
    tokenizer = fit_tokenizer(TokenizerConfig(), list(texts))
    corpus = load_corpus(path, on_bad="skip")
    return inspect(corpus, tokenizer, limits or Limits(output_lengths=_frames))


def _kinds(findings, *left_out):
    return {(f.kind, f.severity, f.line) for f in findings if f.kind not in (*OF_SPLITS, *left_out)}


def _tone(seconds: float, level: float, rate: int = 16_000) -> np.ndarray:
    return (level * np.sin(0.3 * np.arange(round(seconds * rate)))).astype(np.float32)


SOUNDS = {
    "fine": (_tone(1, 0.5), 16_000, None),
    "silent": (np.zeros(16_000, dtype=np.float32), 16_000, ("silent", "error")),
    "last bits": (_tone(1, 1e-4), 16_000, ("silent", "error")),
    "quiet": (_tone(1, 1e-3), 16_000, ("quiet", "warning")),
    "clipped": (np.clip(_tone(1, 1.3), -1, 1), 16_000, ("clipped", "warning")),
    "full scale": (_tone(1, 1.0), 16_000, None),
    "stereo": (np.stack([_tone(1, 0.5), _tone(1, 0.1)], axis=1), 16_000, ("channels", "note")),
    "telephone": (_tone(1, 0.5, 8000), 8000, ("low-rate", "note")),
    "44.1 kHz": (_tone(1, 0.5, 44_100), 44_100, None),
    "long": (_tone(31, 0.5, 16_000), 16_000, ("too-long", "error")),
    "nothing": (np.zeros(0, dtype=np.float32), 16_000, ("unreadable", "error")),
    "nan": (np.array([0.1, np.nan] * 8000, dtype=np.float32), 16_000, ("unreadable", "error")),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(record, manifest, name):
    samples, rate, told = SOUNDS[name]
    path = record("a.wav", samples, rate, subtype="FLOAT")
    findings = _inspected(manifest("path,text,split", "a.wav,abc,train"), texts=["abc"])
    assert _kinds(findings) == ({(*told, 2)} if told else set())
    for finding in findings:
        if finding.kind not in OF_SPLITS:
            assert finding.file == str(path)
            assert finding.split == "train"
            assert str(finding).startswith(f"{finding.severity}: {path} (manifest.csv, line 2): ")


def test_channels_that_cancel(record, manifest):
    record("a.wav", np.stack([_tone(1, 0.5), -_tone(1, 0.5)], axis=1))
    findings = _inspected(manifest("path,text,split", "a.wav,abc,train"))
    assert ("cancelling", "error", 2) in _kinds(findings)
    assert ("silent", "error", 2) not in _kinds(findings)


def test_the_share_that_is_clipped_counts_runs_only():
    samples = np.zeros((1000, 1), dtype=np.float32)
    samples[[5, 50, 51, 500, 501, 502, 900, 901, 902, 903]] = 1.0
    samples[[700, 702]], samples[701] = 1.0, -1.0
    assert measure(Recording(samples, 16_000)).clipped == 7 / 1000


@pytest.mark.parametrize("cut", [0.0, 0.4, 0.95])
def test_files_cut_off_anywhere_and_other_lengths_than_declared(record, manifest, cut):
    for name in ("a.wav", "b.flac", "c.wav"):
        path = record(name)
        if name != "c.wav":
            path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    rows = ("a.wav,abc,train,1.0", "b.flac,abc,train,1.0", "c.wav,abc,train,1.5", "c.wav,abc,train,1.05")
    findings = _inspected(manifest("path,text,split,duration", *rows))
    assert _kinds(findings, "duplicate-row") == {
        ("unreadable", "error", 2),
        ("unreadable", "error", 3),
        ("duration", "warning", 4),
    }


def test_texts_the_model_cannot_write(record, manifest):
    record("a.wav", 1.0)  # 101 frames, 25 after subsampling
    assert _frames(16_000) == 25
    rows = {
        "ab" * 12 + "a": None,  # 25 tokens, no repeat
        "ab" * 13: "infeasible",
        "a" * 13: None,  # 13 tokens and 12 blanks between them
        "a" * 12 + "bbc": "infeasible",  # 15 tokens, 11 + 1 repeats
        "añb": "foreign",
    }
    for split, severity in (("train", "error"), ("valid", "error"), ("test", "warning")):
        for text, kind in rows.items():
            path = manifest("path,text,split", f"a.wav,{text},{split}")
            findings = [f for f in _inspected(path) if f.kind not in OF_SPLITS]
            assert [(f.kind, f.severity) for f in findings] == ([(kind, severity)] if kind else []), text
    assert "'ñ' (U+00F1)" in str(findings[0])


def test_padding_adds_frames_and_speed_takes_them(record, manifest):
    record("a.wav", 1.0)
    path = manifest("path,text,split", f"a.wav,{'ab' * 12}a,train")
    limits = Limits(output_lengths=_frames)
    assert {k for k, _, _ in _kinds(_inspected(path, limits))} == set()
    assert {k for k, _, _ in _kinds(_inspected(path, replace(limits, fastest=1.1)))} == {"infeasible"}
    assert {k for k, _, _ in _kinds(_inspected(path, replace(limits, fastest=1.1, pad_seconds=0.1)))} == set()


def test_splits_that_share_speakers_texts_and_recordings(record, manifest):
    for name in ("a", "b", "c", "d", "e"):
        record(f"{name}.wav", 0.5)
    rows = ("a.wav,ab,train,ann", "b.wav,cd,train,bob", "c.wav,AB!,test,ann", "d.wav,ef,test,cat", "a.wav,ab,valid,eve")
    # One recording in two splits is one row twice; with an id of its own it is another utterance.
    path = manifest("path,text,split,speaker", *rows, "e.wav,gh,valid,dan")
    findings = {(f.kind, f.split): f for f in inspect(load_corpus(path, on_bad="skip"))}
    assert set(findings) == {
        ("few", "train"),
        ("shared-speakers", "test"),
        ("shared-texts", "test"),
        ("duplicate-row", "valid"),
    }
    assert "1 speaker is in train too (ann)" in findings["shared-speakers", "test"].what
    assert "50.0% of the utterances" in findings["shared-texts", "test"].what
    rows = tuple(f"{row},{number}" for number, row in enumerate(rows))
    path = manifest("path,text,split,speaker,id", *rows)
    findings = {(f.kind, f.split): f for f in inspect(load_corpus(path))}
    assert findings["shared-recording", "valid"].line == 6
    assert findings["shared-recording", "valid"].severity == "warning"
    assert findings["shared-texts", "valid"].severity == "warning"


def test_durations_out_of_line_and_characters_nobody_else_uses(record, manifest):
    for number in range(60):
        record(f"{number}.wav", 0.5 + 0.001 * number if number != 7 else 3.0)
    rows = [f"{n}.wav,hello there{' Ω' if n == 11 else ''}{' hello' * 9 if n == 20 else ''},train" for n in range(60)]
    record("v.wav", 0.5)
    findings = inspect(load_corpus(manifest("path,text,split", *rows, "v.wav,hi,valid")))
    assert _kinds(findings) == {
        ("pace", "warning", 9),
        ("pace", "warning", 22),
        ("rare-characters", "note", 13),
    }
    told = " ".join(f.what for f in findings)
    assert "longer than texts of this length" in told
    assert "shorter than texts of this length" in told
    assert "'ω'" in told


def test_splits_that_training_needs_are_missed(record, manifest):
    record("a.wav")
    found = inspect(load_corpus(manifest("path,text,split", "a.wav,ab,test")))
    assert [(f.kind, f.severity, f.split) for f in found] == [
        ("no-split", "error", "train"),
        ("no-split", "error", "valid"),
    ]


def test_what_is_only_scored_may_be_silent(record, manifest):
    record("a.wav", np.zeros(16_000, dtype=np.float32))
    findings = _inspected(manifest("path,text,split", "a.wav,abc,test"))
    assert _kinds(findings) == {("silent", "warning", 2)}


def test_progress_counts_every_recording(record, manifest):
    record("a.wav", 0.1)
    seen = []
    path = manifest("path,text,split,start,stop", *(f"a.wav,text {n},train,{n},{n + 900}" for n in range(5)))
    inspect(load_corpus(path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_a_clean_real_corpus_has_no_errors(real_data):
    if not (real_data / "asr_misc_eval").is_dir():
        pytest.skip("no asr_misc_eval")
    findings = inspect(load_corpus(real_data / "asr_misc_eval"))
    assert [f for f in findings if f.kind != "no-split"] == []
