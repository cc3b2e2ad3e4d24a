from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from apps.asr import check

TINY = ["--preset", "tiny"]


def test_a_sound_corpus_can_be_trained_on(tones, capsys):
    assert check.main(["--data", str(tones), *TINY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith("24 train, 6 valid, 6 test")
    assert lines[-1].startswith("0 errors, ")
    assert any("speakers are in train too" in line for line in lines)


@pytest.fixture
def flawed(write_tones, tone_texts, tmp_path):
    """Five recordings that are too short for their texts, a file that is none, and a row without a text."""
    data = write_tones(tmp_path / "flawed", {"train": tone_texts(8, 0), "valid": tone_texts(3, 1)})
    rows = [f"short-{index}.wav,{'ab' * 20},train,s0" for index in range(5)]
    for index in range(5):
        soundfile.write(data / f"short-{index}.wav", 0.1 * np.sin(np.arange(8000)), 16_000)
    (data / "broken.wav").write_bytes(b"no audio")
    with (data / "manifest.csv").open("a") as file:
        file.write("\n".join([*rows, "broken.wav,ab,train,s0", "valid-0.wav,,valid,s0"]) + "\n")
    return data


def test_what_training_would_refuse_is_an_error_with_its_place(flawed, capsys):
    assert check.main(["--data", str(flawed), *TINY, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert found["errors"] == 7
    errors = [one for one in found["findings"] if one["severity"] == "error"]
    assert sorted(one["kind"] for one in errors) == sorted(["infeasible"] * 5 + ["unreadable", "no-text"])
    place = next(one for one in errors if one["kind"] == "unreadable")
    assert place["file"].endswith("broken.wav")
    assert place["line"] == 18
    assert check.main(["--data", str(flawed), *TINY]) == 2
    short = [line for line in capsys.readouterr().out.splitlines() if "frames" in line or "infeasible" in line]
    assert len(short) == 4
    assert short[-1].startswith("error: 2 more like it")
    assert check.main(["--data", str(flawed), *TINY, "--all"]) == 2
    assert sum("frames" in line for line in capsys.readouterr().out.splitlines()) == 5


def test_settings_decide_what_can_be_learned(tones, capsys):
    assert check.main(["--data", str(tones), *TINY, "--longest", "1"]) == 2
    assert "longer than 1 s" in capsys.readouterr().out
    assert check.main(["--data", str(tones), *TINY, "--longest", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_source_that_cannot_be_read_is_a_finding(tmp_path, capsys):
    assert check.main(["--data", str(tmp_path / "nowhere"), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == 1
    assert found["utterances"] == {}
