"""The default corpus: sentences spoken by espeak-ng, made on this machine, for trying things out without any data.

    text -> voice at 22 050 Hz -> 16 kHz -> a room -> noise -> level -> 16-bit FLAC

Texts differ between all splits, and so do voices: no voice variant of ``valid`` or ``test`` is heard in training. Rooms
are decaying noise (reverberation times 0.08 to 0.25 s), noise falls by 3 dB an octave and lies 20 to 40 dB below the
speech, peaks lie between -15 and -2 dB. Word error rates on it say how a program works, and nothing about how well a
model hears people.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from apps.asr.data.audio import SAMPLE_RATE, Recording, resampled
from apps.asr.data.espeak import Job, loader, speak
from apps.asr.data.header import soundfile
from apps.asr.data.sentences import sentences
from core.artefact import replace_file
from core.errors import InputError

MARK = "synthetic.json"
"""A file of this name in a folder says that its speech is synthetic, and how it was made."""
VERSION = 2
"""Of the generator: raised with every change of what it writes."""
SIZES = {"train": 288, "valid": 48, "test": 48}
"""Sentences of each split: about 12, 2 and 2 minutes."""


@dataclass(frozen=True)
class Speaker:
    """A voice with its habits: see :class:`.espeak.Job`."""

    voice: str
    rate: int
    pitch: int

    @property
    def name(self) -> str:
        """Says that it is nobody."""
        return f"espeak-{self.voice}"


SPEAKERS = {
    "train": (
        Speaker("en-us", 160, 50),
        Speaker("en-us+m1", 150, 45),
        Speaker("en-us+m2", 170, 40),
        Speaker("en-us+m3", 165, 55),
        Speaker("en-us+m5", 155, 50),
        Speaker("en-us+m6", 175, 48),
        Speaker("en-us+f1", 160, 52),
        Speaker("en-us+f2", 150, 58),
        Speaker("en-us+f4", 170, 50),
        Speaker("en-us+Michael", 165, 45),
        Speaker("en-us+steph", 155, 50),
        Speaker("gmw/en", 160, 50),
        Speaker("gmw/en+adam", 150, 50),
        Speaker("gmw/en+linda", 165, 55),
        Speaker("en-gb-x-rp+paul", 160, 48),
        Speaker("en-gb-scotland+anika", 150, 50),
    ),
    "valid": (Speaker("en-us+m4", 160, 52), Speaker("en-us+f5", 155, 50), Speaker("gmw/en+quincy", 165, 47)),
    "test": (Speaker("en-us+m7", 158, 48), Speaker("en-us+f3", 162, 52), Speaker("gmw/en+belinda", 155, 50)),
}
_README = """# Synthetic speech

Nobody said any of this: the sentences were spoken by espeak-ng and put into made-up rooms. They are for trying a
program out. Scores on them say nothing about human speech. `manifest.csv` names them; `synthetic.json` says how they
were made.
"""


def cache_folder() -> Path:
    """Where made data is kept: ``$MANYFORMER_CACHE``, ``$XDG_CACHE_HOME/manyformer`` or ``~/.cache/manyformer``."""
    if own := os.environ.get("MANYFORMER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "manyformer"


def cached_corpus(cache: Path | None = None, *, seed: int = 0) -> Path:
    """The folder of the corpus below ``cache`` (default :func:`cache_folder`), spoken when it is not there yet.

    Raises:
        InputError: espeak-ng is absent, or the folder cannot be written.
    """
    loader()
    said = json.dumps(_recipe(seed, SIZES), sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    folder = (cache or cache_folder()) / f"synthetic-sentences-{digest}"
    return folder if folder.is_dir() else make_corpus(folder, seed)


def _recipe(seed: int, sizes: Mapping[str, int]) -> dict[str, object]:
    """Everything that decides the samples."""
    return {
        "synthetic": True,
        "version": VERSION,
        "espeakng-loader": importlib.metadata.version("espeakng-loader"),
        "seed": seed,
        "sizes": dict(sizes),
        "speakers": {split: [asdict(speaker) for speaker in members] for split, members in SPEAKERS.items()},
    }


def make_corpus(folder: Path, seed: int = 0, *, sizes: Mapping[str, int] = SIZES) -> Path:
    """Speak a corpus into ``folder``: ``manifest.csv``, ``audio/*.flac`` and notes that it is synthetic.

    The folder appears in one step when all is written, so it is whole or absent; when someone else was faster, theirs
    stays. The same seed gives the same speech.

    Args:
        folder: where; must not exist.
        seed: of sentences, rooms and noise.
        sizes: sentences of each split.

    Returns:
        The folder.

    Raises:
        InputError: espeak-ng is absent or fails, or the disk is full or read-only.
    """
    planned = _plan(seed, sizes)
    every = [
        Job("these voices differ", *asdict(speaker).values()) for members in SPEAKERS.values() for speaker in members
    ]
    spoken, rate = speak([*every, *(utterance.job for utterance in planned)])
    _check_voices(spoken[: len(every)])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as parent:
            draft = Path(parent) / "corpus"
            _write(draft, planned, spoken[len(every) :], rate, seed)
            replace_file(draft / "README.md", _README)
            replace_file(draft / MARK, json.dumps(_recipe(seed, sizes), indent=1) + "\n")
            _settle(draft, folder)
    except (OSError, soundfile().SoundFileError) as error:
        raise InputError(f"cannot be written ({error})", where=str(folder)) from error
    return folder


@dataclass(frozen=True)
class _Planned:
    key: str
    split: str
    speaker: Speaker
    text: str

    @property
    def job(self) -> Job:
        return Job(self.text, self.speaker.voice, self.speaker.rate, self.speaker.pitch)


def _plan(seed: int, sizes: Mapping[str, int]) -> list[_Planned]:
    texts = sentences(seed)
    return [
        _Planned(f"{split}-{number:04d}", split, SPEAKERS[split][number % len(SPEAKERS[split])], text)
        for split in SPEAKERS
        for number, text in enumerate(islice(texts, sizes[split]))
    ]


def _check_voices(spoken: Sequence[NDArray[np.int16]]) -> None:
    """A voice that was silently replaced by another would say the same sentence with the same samples."""
    if len({samples.tobytes() for samples in spoken}) < len(spoken):
        raise InputError("espeak-ng speaks with fewer voices than it was asked for")


def _write(
    folder: Path, planned: Sequence[_Planned], spoken: Sequence[NDArray[np.int16]], rate: int, seed: int
) -> None:
    (folder / "audio").mkdir(parents=True)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["utt_id", "split", "speaker", "synthetic", "duration", "text", "path"])
        for number, (utterance, samples) in enumerate(zip(planned, spoken, strict=True)):
            audio = resampled(Recording((samples / 32768).astype(np.float32)[:, None], rate))
            recorded = _recorded(audio, np.random.default_rng([seed, number]))
            name = f"audio/{utterance.key}.flac"
            soundfile().write(str(folder / name), recorded, SAMPLE_RATE, subtype="PCM_16")
            seconds = f"{len(recorded) / SAMPLE_RATE:.3f}"
            about = (utterance.split, utterance.speaker.name, "yes", seconds, utterance.text)
            rows.writerow([utterance.key, *about, name])


def _recorded(speech: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """Speech ``(T,)`` as a microphone in a room would hear it ``(T + tail,)``."""
    reverberation, reverberant = draw.uniform(0.08, 0.25), 10 ** (draw.uniform(-22, -12) / 20)
    times = np.arange(int(reverberation * SAMPLE_RATE)) / SAMPLE_RATE
    tail = draw.standard_normal(len(times)) * 10 ** (-3 * times / reverberation)  # 60 dB down at its end
    response = tail * reverberant / np.sqrt((tail**2).sum())
    response[0] = 1.0
    length = next_fast_len(len(speech) + len(response) - 1, real=True)
    heard = irfft(rfft(speech, length) * rfft(response, length), length)
    noise = _pink(length, draw)
    noise *= np.sqrt((heard**2).mean() / (noise**2).mean()) * 10 ** (-draw.uniform(20, 40) / 20)
    mixed: NDArray[np.float64] = heard + noise
    mixed *= 10 ** (draw.uniform(-15, -2) / 20) / np.abs(mixed).max()
    return mixed.astype(np.float32)


def _pink(length: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Noise ``(T,)`` whose power falls by 3 dB an octave from 50 Hz on."""
    spectrum = rfft(draw.standard_normal(length))
    spectrum /= np.sqrt(np.maximum(rfftfreq(length, 1 / SAMPLE_RATE), 50.0))
    return irfft(spectrum, length)


def _settle(draft: Path, folder: Path) -> None:
    """Give the folder its name, unless another process made the same one meanwhile."""
    try:
        draft.rename(folder)
    except OSError:
        if not (folder / MARK).is_file():
            raise
