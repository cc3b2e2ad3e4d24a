from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apps.asr import predict
from apps.asr.presets import tiny
from apps.asr.recogniser import TASK
from core.command import RunDirectory


@pytest.fixture(scope="module")
def run(tmp_path_factory, babbler) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    directory = RunDirectory.create(folder, tiny(), task=TASK)
    babbler().save(directory.best)
    return folder


@pytest.fixture
def folder(speak, tmp_path) -> Path:
    """Recordings of several rates and channels, one empty, one very short, and a file that is none."""
    found = tmp_path / "in"
    (found / "deep").mkdir(parents=True)
    soundfile.write(found / "b.wav", speak("ab ba", 1), 16_000)
    soundfile.write(found / "a.flac", np.stack([speak("ce")] * 2, axis=1), 22_050)
    soundfile.write(found / "deep" / "c.ogg", speak("abc", 2), 16_000)
    soundfile.write(found / "d.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(found / "e.wav", np.zeros(300, np.float32), 16_000)
    (found / "notes.txt").write_text("no audio")
    return found


def test_one_file_gives_its_text_and_several_a_line_each(run, folder, capsys):
    assert predict.main([str(run), str(folder / "b.wav")]) == 0
    alone = capsys.readouterr().out.removesuffix("\n")
    assert alone
    assert predict.main([str(run), str(folder)]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [Path(name).name for name, _ in lines] == ["a.flac", "b.wav", "d.wav", "c.ogg", "e.wav"]
    texts = {Path(name).name: text for name, text in lines}
    assert texts["b.wav"] == alone
    assert texts["d.wav"] == texts["e.wav"] == ""


def test_json_has_words_with_times_within_the_recording_and_confidences(run, folder, capsys):
    assert predict.main([str(run), str(folder / "b.wav"), str(folder / "d.wav"), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert [word["text"] for word in first["words"]] == first["text"].split()
    times = [time for word in first["words"] for time in (word["start"], word["stop"])]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= first["seconds"] == pytest.approx(soundfile.info(folder / "b.wav").duration, abs=1e-3)
    assert all(0 < word["confidence"] <= 1 for word in first["words"])
    assert second == {**second, "text": "", "words": [], "confidence": 0.0, "seconds": 0.0}


@pytest.mark.parametrize("suffix", [".txt", ".json", ".csv", ".srt", ".vtt"])
def test_every_form_of_output_holds_the_text(run, folder, tmp_path, suffix, capsys):
    out = tmp_path / f"out{suffix}"
    assert predict.main([str(run), str(folder / "b.wav")]) == 0
    text = capsys.readouterr().out.removesuffix("\n")
    assert predict.main([str(run), str(folder / "b.wav"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"1 transcript written to {out}\n"
    written = out.read_text()
    if suffix == ".json":
        assert json.loads(written)[0]["text"] == text
    elif suffix == ".csv":
        assert next(csv.DictReader(written.splitlines()))["text"] == text
    elif suffix == ".txt":
        assert written == text + "\n"
    else:
        assert all(word in written for word in text.split())


def test_one_output_for_each_recording(run, folder, tmp_path):
    assert predict.main([str(run), str(folder), "--out", str(tmp_path / "out" / "{name}.vtt")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.vtt", "b.vtt", "c.vtt", "d.vtt", "e.vtt"]
    assert (tmp_path / "out" / "d.vtt").read_text() == "WEBVTT\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{folder}", "--out", "x.srt"], "subtitles of 5 recordings cannot share a file"),
        (["{folder}/b.wav", "{folder}/b.wav", "--out", "{{name}}.txt"], "would both be written there"),
        (["{folder}/b.wav", "--out", "x.doc"], "ends in none of"),
        (["{folder}/absent.wav"], "no such file"),
        (["{folder}/notes.txt"], "notes.txt: cannot be decoded"),
        (["{folder}/empty"], "a folder without recordings"),
        ([], "no recording"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, folder, words, expected, capsys, monkeypatch, tmp_path):
    (folder / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert predict.main([str(run), *(word.format(folder=folder) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_before_training_has_finished_there_is_nothing_to_predict_with(tmp_path, folder, capsys):
    RunDirectory.create(tmp_path / "run", tiny(), task=TASK)
    assert predict.main([str(tmp_path / "run"), str(folder)]) == 2
    assert "no model yet" in capsys.readouterr().err
