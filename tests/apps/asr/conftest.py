from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from apps.asr.config import AsrConfig
from apps.asr.model import Squeezeformer
from apps.asr.presets import tiny
from apps.asr.recogniser import Recogniser
from apps.asr.tokenizer import CharTokenizer

RATE = 16_000
PITCHES = {"a": 300.0, "b": 520.0, "c": 900.0, "d": 1560.0, "e": 2700.0}
"""A language that a small network learns in a few seconds: each letter is a tone."""
LETTER, GAP, PAUSE = 0.16, 0.06, 0.2


def tone(text: str, seed: int = 0, factor: float = 1.0) -> np.ndarray:
    """A text as tones, one after the other, with a little noise; ``factor`` shifts all of them, as voices do."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(LETTER * RATE)) / RATE
    window = np.hanning(len(time))
    parts = [np.zeros(round(PAUSE * RATE))]
    for letter in text:
        if letter == " ":
            parts.append(np.zeros(round(PAUSE * RATE)))
        else:
            parts += [np.sin(2 * np.pi * factor * PITCHES[letter] * time) * window, np.zeros(round(GAP * RATE))]
    audio = np.concatenate([*parts, np.zeros(round(PAUSE * RATE))])
    return (0.4 * audio + 0.003 * rng.standard_normal(len(audio))).astype(np.float32)


def texts(count: int, seed: int) -> list[str]:
    """Sentences of two to four words of one to three letters."""
    rng = np.random.default_rng(seed)

    def word() -> str:
        return "".join(rng.choice(list(PITCHES), rng.integers(1, 4)))

    return [" ".join(word() for _ in range(rng.integers(2, 5))) for _ in range(count)]


def write(folder: Path, splits: Mapping[str, Sequence[str]]) -> Path:
    """A folder with a recording for each text and a manifest with splits and speakers."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "text", "split", "speaker"])
        for split, sentences in splits.items():
            for index, text in enumerate(sentences):
                speaker = index % 3
                name = f"{split}-{index}.wav"
                soundfile.write(folder / name, tone(text, index, 1 + 0.02 * speaker), RATE)
                writer.writerow([name, text.upper(), split, f"s{speaker}"])
    return folder


@pytest.fixture(scope="session")
def speak() -> Callable[..., np.ndarray]:
    """``speak(text, seed, factor)``: samples of a text in the language of tones."""
    return tone


@pytest.fixture(scope="session")
def write_tones() -> Callable[[Path, Mapping[str, Sequence[str]]], Path]:
    """``write_tones(folder, {"train": texts, ...})``: a corpus on disk."""
    return write


@pytest.fixture(scope="session")
def tone_texts() -> Callable[[int, int], list[str]]:
    """``tone_texts(count, seed)``: sentences of the language of tones."""
    return texts


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of tones: 24 utterances to learn from, 6 to watch, 6 to score."""
    sentences = texts(36, seed=0)
    splits = {"train": sentences[:24], "valid": sentences[24:30], "test": sentences[30:]}
    return write(tmp_path_factory.mktemp("tones") / "corpus", splits)


@pytest.fixture(scope="session")
def babbler() -> Callable[..., Recogniser]:
    """``babbler(config)``: a random network that says something in every frame; tiny unless a config is given."""

    def make(config: AsrConfig | None = None) -> Recogniser:
        config = config or tiny()
        tokenizer = CharTokenizer.fit(["abcde "])
        torch.manual_seed(0)
        model = Squeezeformer(config.features.n_mels, tokenizer.size, config.model)
        with torch.no_grad():
            model.head.weight.normal_()
            model.head.bias[tokenizer.blank] = -1000.0
        return Recogniser(config, tokenizer, model)

    return make
