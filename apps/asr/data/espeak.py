"""Spoken text from espeak-ng, through its C interface.

The library comes with the package ``espeakng-loader`` (GPL-3, an extra of its own). It keeps random and filter state
between utterances that no call resets, so :func:`speak` starts a fresh process each time: the same jobs then give the
same samples, whatever was spoken before. Facts of the interface: github.com/espeak-ng/espeak-ng,
``src/include/espeak-ng/speak_lib.h``. Two traps: an unknown voice leaves the last one in place, told only by the
returned status, and an unknown variant (``en-us+nobody``) is told by nothing at all, so the file is looked for.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples through the callback, before espeak_Synth returns
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _PITCH = 1, 3
_SEED = 1
_MEND = 'pip install "manyformer[synthesis]", or name a corpus of recordings'


@dataclass(frozen=True)
class Job:
    """One utterance to speak.

    Attributes:
        text: UTF-8.
        voice: a language, or language+variant: ``en-us``, ``en-us+f3``.
        rate: words a minute, 80 to 450.
        pitch: 0 to 100; 50 is the voice's own.
    """

    text: str
    voice: str
    rate: int = 165
    pitch: int = 50


def loader() -> ModuleType:
    """The package that carries espeak-ng.

    Raises:
        InputError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        what = "speaking sentences needs espeakng-loader, which is not installed"
        raise InputError(what, mend=_MEND) from error


def speak(jobs: Sequence[Job]) -> tuple[list[NDArray[np.int16]], int]:
    """The samples of each job, and samples a second.

    Raises:
        InputError: espeak-ng is absent, does not start, or refuses a voice.

    >>> (hello,), rate = speak([Job("hello", "en-us")])
    >>> rate, 0.2 < len(hello) / rate < 2.0
    (22050, True)
    """
    loader()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "speech.npz"
        command = [sys.executable, "-m", "apps.asr.data.espeak", str(target)]
        said = json.dumps([asdict(job) for job in jobs])
        done = subprocess.run(command, input=said, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode or not target.is_file():
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise InputError(f"espeak-ng failed: {reason}", mend=_MEND)
        with np.load(target, allow_pickle=False) as arrays:
            return [arrays[str(number)] for number in range(len(jobs))], int(arrays["rate"])


class Engine:
    """espeak-ng in this process, which starts it at most once.

    Raises:
        InputError: it does not start.
    """

    def __init__(self) -> None:
        package = loader()
        self._voices = Path(package.get_data_path()) / "voices" / "!v"
        self._library = ctypes.CDLL(str(package.get_library_path()))
        self._chunks: list[NDArray[np.int16]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._collect)  # the library keeps no reference, so we do
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(package.get_data_path()).encode(), _DONT_EXIT)
        if self.rate <= 0:
            raise InputError(f"espeak-ng does not start (status {self.rate})", mend=_MEND)
        synth = self._library.espeak_Synth
        position = [ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint]
        synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *position, ctypes.c_void_p, ctypes.c_void_p]
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_SetSynthCallback(self._callback)
        _check(self._library.espeak_ng_SetRandSeed(_SEED), "the random seed")

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:  # the last call has none
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, job: Job) -> NDArray[np.int16]:
        """Speak one job."""
        variant = job.voice.partition("+")[2]
        if variant and not (self._voices / variant).is_file():
            raise InputError(f"espeak-ng has no variant {variant!r}")
        _check(self._library.espeak_SetVoiceByName(job.voice.encode()), f"voice {job.voice!r}")
        _check(self._library.espeak_SetParameter(_RATE, job.rate, 0), f"rate {job.rate}")
        _check(self._library.espeak_SetParameter(_PITCH, job.pitch, 0), f"pitch {job.pitch}")
        self._chunks.clear()
        text = job.text.encode()
        _check(self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None), "the text")
        if not self._chunks:
            raise InputError(f"espeak-ng says nothing for {job.text!r}")
        return np.concatenate(self._chunks)


def _check(status: int, what: str) -> None:
    if status != 0:  # EE_OK
        raise InputError(f"espeak-ng refuses {what} (status {status})")


def _main() -> None:
    jobs = [Job(**job) for job in json.load(sys.stdin)]
    try:
        engine = Engine()
        spoken = {str(number): engine(job) for number, job in enumerate(jobs)}
    except InputError as error:
        sys.exit(str(error))
    np.savez(sys.argv[1], rate=np.array(engine.rate), allow_pickle=False, **spoken)


if __name__ == "__main__":
    _main()
