"""The verb as a user types it: a folder of recordings in, a run out."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from apps.asr import train
from apps.asr.check import check
from apps.asr.data.finding import SpeechFinding
from apps.asr.data.sources import load_corpus
from apps.asr.fitting import prepare
from apps.asr.presets import tiny
from apps.asr.recogniser import Recogniser

QUICK = ["--preset", "tiny", "--progress", "off", "--fit.max-epochs", "2"]


def trained(run: Path) -> Recogniser:
    return Recogniser.load(run / "checkpoints" / "best")


def same_weights(one: Recogniser, two: Recogniser) -> bool:
    first, second = one.model.state_dict(), two.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def run(tones, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("train") / "run"
    assert train.main(["--data", str(tones), "--out", str(out), *QUICK]) == 0
    return out


def test_a_run_holds_what_was_asked_for_and_what_came_out(run):
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "environment.json", "data.json", "metrics.jsonl", "outcome.json", "checkpoints")
    }
    outcome = json.loads((run / "outcome.json").read_text())
    assert outcome["complete"]
    assert outcome["utterances"] == {"train": 24, "valid": 6}
    assert outcome["skipped"] == {}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all({"train_loss", "loss", "wer", "cer"} <= set(line) for line in lines)
    assert outcome["best"] == min(line["cer"] for line in lines)
    facts = json.loads((run / "data.json").read_text())
    assert facts["utterances"] == {"train": 24, "valid": 6, "test": 6}
    assert not facts["synthetic"]


def test_eight_utterances_are_learned_without_an_error(write_tones, tone_texts, tmp_path):
    sentences = tone_texts(8, seed=3)
    data = write_tones(tmp_path / "data", {"train": sentences, "valid": sentences})
    command = ["--data", str(data), "--out", str(tmp_path / "run"), "--preset", "tiny", "--progress", "off"]
    assert train.main([*command, "--fit.max-epochs", "36", "--batch-seconds", "16", "--watch", "wer"]) == 0
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["best"] == 0.0
    files = [data / f"train-{index}.wav" for index in range(8)]
    assert [one.text for one in trained(tmp_path / "run").transcribe(files)] == sentences


def test_the_same_command_is_done_and_other_settings_or_data_are_refused(run, tones, write_tones, tmp_path, capsys):
    command = ["--data", str(tones), "--out", str(run), *QUICK]
    assert train.main(command) == 0
    assert "finished" in capsys.readouterr().out
    assert train.main([*command, "--model.width", "16"]) == 2
    assert "model.width" in capsys.readouterr().err
    other = write_tones(tmp_path / "other", {"train": ["ab", "bc"], "valid": ["ca"]})
    assert train.main(["--data", str(other), "--out", str(run), *QUICK]) == 2
    assert "other data" in capsys.readouterr().err


def test_a_time_limit_leaves_a_model_and_more_time_goes_on_to_the_same_weights(tones, run, tmp_path):
    command = ["--data", str(tones), "--out", str(tmp_path / "run"), *QUICK]
    assert train.main([*command, "--max-minutes", "1e-6"]) == 0
    assert not json.loads((tmp_path / "run" / "outcome.json").read_text())["complete"]
    assert trained(tmp_path / "run").transcribe([torch.zeros(16_000)])[0].seconds == 1.0
    assert train.main(command) == 0
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["complete"]
    assert same_weights(trained(tmp_path / "run"), trained(run))


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_resumes_to_the_bits_of_an_unbroken_one(tones, tmp_path, kill):
    common = ["--data", str(tones), "--preset", "tiny", "--progress", "off", "--fit.max-epochs", "5"]
    common += ["--augment.time-masks", "2", "--augment.speeds", "0.9", "1.1", "--model.dropout", "0.1"]
    common += ["--fit.ema", "0.9", "--fit.checkpoint-every-minutes", "0.002", "--batch-seconds", "12"]
    words = [sys.executable, "-m", "apps.asr.train", *common, "--out", str(tmp_path / "broken")]
    # As many threads as here: sums in another order are other bits.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    broken = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "broken" / "checkpoints" / "last" / "last" / "artefact.json").exists():
        assert broken.poll() is None, broken.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    broken.send_signal(kill)
    _, error = broken.communicate(timeout=60)
    assert broken.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL), error
    assert not (tmp_path / "broken" / "outcome.json").exists()
    for name in ("broken", "straight"):
        assert train.main([*common, "--out", str(tmp_path / name)]) == 0
    assert same_weights(trained(tmp_path / "broken"), trained(tmp_path / "straight"))
    history = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("broken", "straight")]
    for one, two in zip(*history, strict=True):
        assert {**json.loads(one), "seconds": 0} == {**json.loads(two), "seconds": 0}


@pytest.fixture
def flawed(write_tones, tone_texts, tmp_path) -> Path:
    """A corpus with one utterance of each fault that training meets."""
    data = write_tones(tmp_path / "flawed", {"train": tone_texts(10, 0), "valid": tone_texts(4, 1)})
    soundfile.write(data / "short.wav", 0.1 * np.sin(np.arange(8000)), 16_000)
    (data / "broken.wav").write_bytes(b"RIFF no more")
    soundfile.write(data / "long.wav", np.zeros(16_000 * 40, np.float32), 16_000)
    with (data / "manifest.csv").open("a") as file:
        file.write("short.wav,abababababababababab,train,s0\nbroken.wav,ab,train,s0\nlong.wav,ab,train,s0\n")
        file.write("valid-0.wav,,valid,s0\n")
    soundfile.write(data / "foreign.wav", 0.1 * np.sin(np.arange(16_000)), 16_000)
    opposite = np.sin(0.3 * np.arange(16_000))[:, None] * [0.5, -0.5]
    soundfile.write(data / "opposite.wav", opposite, 16_000)
    soundfile.write(data / "silent.wav", np.zeros(16_000, np.float32), 16_000)
    with (data / "manifest.csv").open("a") as file:
        file.write("foreign.wav,xyz,valid,s0\nopposite.wav,ab,train,s0\nsilent.wav,ab,valid,s0\n")
    return data


def test_what_cannot_be_learned_is_refused_or_left_out_and_counted(flawed, tmp_path, capsys):
    command = ["--data", str(flawed), "--out", str(tmp_path / "run"), *QUICK, "--fit.max-epochs", "1"]
    assert train.main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "skip" in error
    assert not (tmp_path / "run").exists()
    assert train.main([*command, "--on-bad", "skip"]) == 0
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert outcome["utterances"] == {"train": 10, "valid": 4}
    kinds = ["no-text", "unreadable", "too-long", "infeasible", "foreign", "cancelling", "silent"]
    assert outcome["skipped"] == dict.fromkeys(kinds, 1)
    assert "left out: 1 no-text" in capsys.readouterr().out


def test_what_check_calls_an_error_is_what_training_leaves_out(flawed):
    corpus = load_corpus(flawed, on_bad="skip")
    errors = [one for one in check(str(flawed), tiny()).findings if one.severity == "error"]
    prepared = prepare(dataclasses.replace(tiny(), on_bad="skip"), corpus)
    assert Counter(one.kind for one in errors) == prepared.skipped
    refused = {one.key for one in errors if isinstance(one, SpeechFinding)}
    kept = {one.key for one in (*prepared.train.utterances, *prepared.valid.utterances)}
    assert kept.isdisjoint(refused)
    assert kept | refused - {None} == {one.key for split in corpus.splits.values() for one in split}


def test_the_tokenizer_knows_the_training_texts_alone(write_tones, tmp_path):
    data = write_tones(tmp_path / "data", {"train": ["ab ba", "aab b"], "valid": ["ba", "ce"]})
    command = ["--data", str(data), "--out", str(tmp_path / "run"), *QUICK, "--fit.max-epochs", "1"]
    assert train.main([*command, "--on-bad", "skip"]) == 0
    assert trained(tmp_path / "run").tokenizer.characters == {" ", "a", "b"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--data", "synthetic:sentence"], "did you mean 'synthetic:sentences'"),
        (["--model.widht", "8"], "did you mean '--model.width'"),
        (["--model.heads", "5"], "heads"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--max-minutes", "0"], "max-minutes"),
        (["--pad-seconds", "0.1"], "pad_seconds"),
        (["--batch-seconds", "0"], "batch_seconds"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_status_2(words, expected, tones, tmp_path, capsys):
    assert train.main(["--data", str(tones), "--out", str(tmp_path / "run"), *QUICK, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "run").exists()
