from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.asr.data.manifest import Utterance
from apps.asr.data.sources import divide, load_corpus, same_text
from core.errors import InputError

SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}


def _utterance(number: int, text: str, speaker: str | None) -> Utterance:
    return Utterance(f"u{number}", Path(f"{number}.wav"), text, speaker)


@given(st.lists(st.integers(0, 9), min_size=20, max_size=80), st.integers(0, 5), st.booleans())
def test_parts_share_no_speaker_or_no_text(draws, seed, with_speakers):
    speakers = with_speakers and len(set(draws)) >= 3
    everything = [
        _utterance(i, f"text {d}" if not speakers else f"{i}", str(d) if speakers else None)
        for i, d in enumerate(draws)
    ]
    if len(set(draws)) < 3:
        with pytest.raises(InputError, match="cannot be divided"):
            divide(everything, SHARES, seed=seed)
        return
    parts = divide(everything, SHARES, seed=seed)
    units = [{u.speaker if speakers else u.text for u in part} for part in parts.values()]
    assert all(units)
    assert sum(map(len, units)) == len(set().union(*units)) == len(set(draws))
    assert sorted(u.key for part in parts.values() for u in part) == sorted(u.key for u in everything)


def test_shares_are_kept_and_depend_on_names_and_seed_only():
    everything = [_utterance(i, f"{i}", f"speaker {i % 200}") for i in range(1000)]
    parts = divide(everything, SHARES)
    assert [len(part) for part in parts.values()] == pytest.approx([700, 150, 150], abs=5)
    again = divide(everything[::-1], SHARES)
    assert {name: {u.key for u in part} for name, part in parts.items()} == {
        name: {u.key for u in part} for name, part in again.items()
    }
    assert {u.key for u in divide(everything, SHARES, seed=1)["test"]} != {u.key for u in parts["test"]}


def test_a_split_column_is_kept_and_a_missing_valid_is_taken_from_train(record, manifest, tmp_path):
    record("a.wav")
    rows = [f"a.wav,words {i},{'test' if i < 5 else 'train'},{i},{i + 1}" for i in range(45)]
    manifest("path,text,split,start,stop", *rows)
    corpus = load_corpus(tmp_path)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 34, "valid": 6, "test": 5}
    assert [u.text for u in corpus.splits["test"]] == [f"words {i}" for i in range(5)]
    assert not corpus.synthetic
    assert str(corpus).endswith("34 train, 6 valid, 5 test")


def test_a_manifest_for_each_split_and_one_without_splits(record, manifest, tmp_path):
    record("a.wav")
    for name, start in (("train_manifest.csv", 0), ("dev.csv", 10), ("test-clean.csv", 20)):
        manifest("path,text,start,stop", f"a.wav,words {start},{start},{start + 1}", name=f"three/{name}")
    shutil.copy(tmp_path / "a.wav", tmp_path / "three/a.wav")
    corpus = load_corpus(tmp_path / "three")
    assert {name: [u.text for u in part] for name, part in corpus.splits.items()} == {
        "train": ["words 0"],
        "valid": ["words 10"],
        "test": ["words 20"],
    }
    path = manifest("path,text,start,stop", *(f"a.wav,words {i},{i},{i + 1}" for i in range(20)), name="all.csv")
    assert sum(map(len, load_corpus(path).splits.values())) == 20
    manifest("path,text", name="three/val.csv")
    with pytest.raises(InputError, match=r"both dev\.csv and val\.csv are valid"):
        load_corpus(tmp_path / "three")


def test_repeated_ids_and_recordings_with_two_texts_are_left_out_and_told(record, manifest):
    for name in "abcd":
        record(f"{name}.wav", 0.05)
    path = manifest(
        "id,path,text,split",
        "1,a.wav,one,train",
        "1,b.wav,two,train",
        "3,c.wav,three,train",
        "4,c.wav,drei,test",
        "5,d.wav,five,test",
        "5,d.wav,five,test",
        "6,a.wav,one,valid",
    )
    corpus = load_corpus(path, on_bad="skip")
    assert Counter((fault.kind, fault.line) for fault in corpus.faults) == {
        ("duplicate-id", 3): 1,
        ("two-texts", 4): 1,
        ("two-texts", 5): 1,
        ("duplicate-row", 7): 1,
    }
    assert {name: [u.key for u in part] for name, part in corpus.splits.items()} == {
        "train": ["1"],
        "valid": ["6"],
        "test": ["5"],
    }
    with pytest.raises(InputError, match=r"line 3\): the same id '1' as line 2 of .* \(and 3 more\); .*on_bad=skip"):
        load_corpus(path)


def test_rows_without_a_split_among_others_are_told(record, manifest):
    record("a.wav")
    path = manifest("path,text,split,start,stop", "a.wav,x,train,0,5", "a.wav,y,,5,9", "a.wav,z,valid,9,12")
    corpus = load_corpus(path, on_bad="skip")
    assert [(fault.kind, fault.line) for fault in corpus.faults] == [("split", 3)]
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 1, "valid": 1}


def test_digests_follow_what_is_said_and_not_where_it_lies(record, manifest, tmp_path):
    record("one/a.wav")
    manifest("path,text,split", "a.wav,x,test", name="one/manifest.csv")
    first = load_corpus(tmp_path / "one").digests
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert load_corpus(tmp_path / "two").digests == first
    manifest("path,text,split", "a.wav,y,test", name="two/manifest.csv")
    assert load_corpus(tmp_path / "two").digests != first
    record("one/a.wav", 0.5)
    assert load_corpus(tmp_path / "one").digests != first


def test_sources_of_which_nothing_can_be_used_are_refused(record, manifest, tmp_path):
    with pytest.raises(InputError, match="no manifest and no transcript"):
        load_corpus(tmp_path)
    with pytest.raises(InputError, match="did you mean"):
        load_corpus("synthetic:songs")
    with pytest.raises(InputError, match="no such file"):
        load_corpus(tmp_path / "gone.csv")
    path = manifest("path,text", "gone.wav,x", "gone.wav,y", name="m/manifest.csv")
    with pytest.raises(InputError, match=r"no row can be used \(2 faults\).*no such recording: 'gone\.wav'"):
        load_corpus(path, on_bad="skip")
    manifest("path,text", name="m/manifest.tsv")
    with pytest.raises(InputError, match=r"both manifest\.csv and manifest\.tsv"):
        load_corpus(tmp_path / "m")


def test_equal_texts_are_recognised():
    assert same_text("  Don't STOP, now! ") == same_text("don't stop now")
    assert same_text("go") != same_text("no")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("asr_fsdd_digits", {"train": 2000, "valid": 250, "test": 250}),
        ("asr_speechocean762", {"train": 2500, "valid": 760, "test": 740}),
        ("asr_asterisk_en", {"train": 269, "valid": 42, "test": 109}),
        ("asr_misc_eval", {"test": 25}),
    ],
)
def test_real_corpora_load_as_they_stand(real_data, name, counts):
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name}")
    corpus = load_corpus(real_data / name)
    assert {split: len(part) for split, part in corpus.splits.items()} == counts
    assert not corpus.faults
