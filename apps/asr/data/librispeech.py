"""Folders laid out as LibriSpeech to utterances.

``{split}/{speaker}/{chapter}/{speaker}-{chapter}-{number}.flac`` and, in each chapter,
``{speaker}-{chapter}.trans.txt`` of lines ``ID TEXT`` (Panayotov et al., "LibriSpeech", ICASSP 2015; openslr.org/12).
"""

from __future__ import annotations

import io
from pathlib import Path

from apps.asr.data.finding import SpeechFinding
from apps.asr.data.manifest import Manifest, RowError, Utterance, clean_text, read_text, split_name
from core.errors import InputError

LISTS = "*.trans.txt"
_AUDIO_SUFFIXES = (".flac", ".wav", ".ogg")


def read_librispeech(folder: str | Path) -> Manifest:
    """Every transcribed recording below a folder laid out as LibriSpeech, its split from the folder above the speaker.

    ``dev-clean`` and ``dev-other`` are both ``valid``, and so on: give one of the folders to keep them apart.

    Raises:
        InputError: no transcript, or none that can be read.
    """
    folder = Path(folder)
    rows: list[tuple[str | None, Utterance]] = []
    faults: list[SpeechFinding] = []
    lists = sorted(folder.rglob(LISTS))
    if not lists:
        raise InputError(f"no {LISTS} file below this folder", where=str(folder))
    for listing in lists:
        split = split_name(listing.absolute().parent.parent.parent.name)
        for line, content in enumerate(io.StringIO(read_text(listing), newline=None), start=1):
            if not content.strip():
                continue
            try:
                rows.append((split, _spoken(content, listing, line)))
            except RowError as error:
                faults.append(error.finding(listing, line))
    return Manifest(folder, tuple(rows), tuple(faults))


def _spoken(content: str, listing: Path, line: int) -> Utterance:
    key, _, said = content.strip().partition(" ")
    text = clean_text(said)
    if "/" in key or len(key) > 200:
        raise RowError("escape", f"{key[:200]!r} is not the name of a recording", "start the line with one")
    path = next((p for s in _AUDIO_SUFFIXES if (p := listing.parent / f"{key}{s}").is_file()), None)
    if path is None:
        raise RowError("missing-file", f"no such recording: {key[:200]}.flac", "correct it, or leave the line out")
    return Utterance(key, path, text, key.partition("-")[0], manifest=str(listing), line=line)
