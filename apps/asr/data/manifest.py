"""Manifests to utterances: CSV and TSV tables, and JSON lines as NeMo writes them.

A fault of the whole file (not text, no such column, no row) raises; a fault of one row is a finding, and the row is
left out. Columns, in any case, the first name found counts::

    path | audio_filepath | file                the recording; needed
    text | transcript | sentence                what is said; needed for training
    utt_id | id, split, speaker | client_id     optional; other columns are ignored
    start, stop                                 optional: samples at the file's own rate, stop excluded
    offset, duration                            optional: the same in seconds; duration alone in JSON lines only

Paths are relative to the manifest or, when nothing is there, to ``audio/`` beside it. A relative path may not leave
that folder: a manifest from elsewhere must not read, by a slip or on purpose, what it does not own. Absolute paths are
taken as they are.

JSON lines: one object a line with ``audio_filepath``, ``duration`` in seconds, ``text`` and, for a part of a recording,
``offset`` (github.com/NVIDIA-NeMo/NeMo, ``collections/common/parts/preprocessing/manifest.py``).
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.asr.data.finding import SpeechFinding
from apps.asr.data.header import read_header
from core.errors import InputError, nearest

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
COLUMNS = {
    "path": ("path", "audio_filepath", "file"),
    "text": ("text", "transcript", "sentence"),
    "key": ("utt_id", "id"),
    "split": ("split",),
    "speaker": ("speaker", "client_id"),
    "start": ("start",),
    "stop": ("stop",),
    "offset": ("offset",),
    "duration": ("duration", "duration_s"),
}
"""What a row can say, and the names of the columns that say it."""

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "eval"),
}
_WHOLE_SECONDS = 0.05
"""A declared duration that differs from the file's by less is a rounding of it, not a part of the recording."""


@dataclass(frozen=True)
class Utterance:
    """One recording, or a part of one, and what is said in it.

    Attributes:
        key: unique in a corpus.
        path: the file.
        text: the transcript; None where it is not known.
        speaker: None where it is not known.
        start, stop: the part of the file, in samples at the file's own rate; stop None = the end.
        manifest, line: where it was named; no part of what it is.
        declared: seconds that the manifest says it lasts.

    >>> Utterance.of_file("talks/hello.wav").key
    'hello'
    """

    key: str
    path: Path
    text: str | None = None
    speaker: str | None = None
    start: int = 0
    stop: int | None = None
    manifest: str | None = field(default=None, compare=False)
    line: int | None = field(default=None, compare=False)
    declared: float | None = field(default=None, compare=False)

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Utterance:
        """A whole recording, its file's name as the key."""
        path = Path(path)
        return cls(path.stem, path)

    @property
    def segment(self) -> tuple[Path, int, int | None]:
        """What tells recordings apart."""
        return self.path, self.start, self.stop


@dataclass(frozen=True)
class Manifest:
    """The rows of one manifest: ``(split or None, utterance)`` each, and the rows that cannot be used."""

    path: Path
    rows: tuple[tuple[str | None, Utterance], ...]
    faults: tuple[SpeechFinding, ...] = ()


class RowError(Exception):
    """A fault of one row; what goes into its finding."""

    def __init__(self, kind: str, what: str, mend: str | None = None) -> None:
        super().__init__(what)
        self.kind, self.what, self.mend = kind, what, mend

    def finding(self, path: Path, line: int) -> SpeechFinding:
        """As a finding about a line of a manifest."""
        place = str(path)
        return SpeechFinding(
            severity="error", kind=self.kind, what=self.what, mend=self.mend, file=place, manifest=place, line=line
        )


def split_name(name: str) -> str | None:
    """``train``, ``valid`` or ``test`` from the usual ways to say so; None when it is none of them.

    >>> split_name("dev-clean"), split_name("train_100"), split_name("music")
    ('valid', 'train', None)
    """
    first = name.strip().lower().replace("_", "-").split("-")[0]
    return next((split for split, names in _SPLIT_NAMES.items() if first in names), None)


def read_manifest(path: str | Path, *, texts: bool = True) -> Manifest:
    """Read one CSV, TSV or JSON-lines manifest.

    Args:
        path: a UTF-8 file (a byte-order mark and Windows line ends are fine) ending in one of :data:`SUFFIXES`.
        texts: each row must have a text; otherwise a missing or empty one is None.

    Raises:
        InputError: nothing of it can be used; names file and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError("not a manifest by its name", where=str(path), mend=f"use one of {', '.join(SUFFIXES)}")
    text = read_text(path)
    lines = _json_rows(path, text) if suffix.startswith(".json") else _table_rows(path, text, suffix, texts)
    rows, faults = [], []
    for line, row in lines:
        try:
            if isinstance(row, RowError):
                raise row
            rows.append(_entry(row, path, line, texts, durations=suffix.startswith(".json")))
        except RowError as error:
            faults.append(error.finding(path, line))
    if not rows and not faults:
        raise InputError("no rows", where=str(path), mend="write one line for each recording")
    return Manifest(path, tuple(rows), tuple(faults))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte-order mark.

    Raises:
        InputError: missing, a folder, unreadable, or in another encoding.
    """
    if path.is_dir():
        raise InputError("a folder where a file is needed", where=str(path))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4]:
        raise InputError("the text is UTF-16 or UTF-32", where=str(path), mend="save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError("the text is not UTF-8", where=f"{path}, line {line}", mend="save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError("holds a zero byte", where=f"{path}, line {line}", mend="is this a text file?")
    if not text.strip():
        raise InputError("the file is empty", where=str(path))
    return text


def _table_rows(path: Path, text: str, suffix: str, texts: bool) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """(line, row) of a CSV or TSV table; a row whose fields do not fit the header is an error in its place."""
    tabs = suffix == ".tsv"
    # Quotation marks in tab-separated transcripts are part of the text, as in Common Voice.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else 0
    )
    header: list[str] | None = None
    line = 0
    try:
        for cells in reader:
            start, line = line + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, path, start, "\t" if tabs else ",", texts)
            elif len(cells) != len(header):
                what = f"{len(cells)} fields where the header has {len(header)}"
                yield start, RowError("fields", what, "quote fields that hold a comma" if not tabs else None)
            else:
                yield start, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        where = f"{path}, line {line + 1}"
        raise InputError(
            f"not well-formed ({error})", where=where, mend="check the quotes from that line on"
        ) from error


def _header(cells: list[str], path: Path, line: int, delimiter: str, texts: bool) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    where = f"{path}, line {line}"
    repeated = sorted({name for name in names if names.count(name) > 1 and name})
    if repeated:
        raise InputError(f"column names occur twice: {', '.join(repeated)}", where=where, mend="keep one of each")
    for role in ("path", "text") if texts else ("path",):
        if any(name in names for name in COLUMNS[role]):
            continue
        other = next((d for d in ";\t|," if d != delimiter and d in cells[0]), None)
        if len(cells) == 1 and other is not None:
            mend = "name the file .tsv" if other == "\t" else "save it comma separated"
            raise InputError(f"one column only: the fields seem to be separated by {other!r}", where=where, mend=mend)
        known = " or ".join(repr(name) for name in COLUMNS[role])
        mend = f"name the columns in the first line (found: {', '.join(names)[:200]})"
        raise InputError(f"no column {known}", where=where, mend=mend)
    return names


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    if text.lstrip().startswith("["):
        raise InputError("a JSON list", where=str(path), mend="write one object a line, without brackets and commas")
    for line, content in enumerate(io.StringIO(text, newline=None), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield line, RowError("json", f"not JSON ({error})", "write one object a line")
            continue
        if isinstance(row, dict):
            yield line, {str(name).lower(): value for name, value in row.items()}
        else:
            yield line, RowError("json", "not a JSON object", 'write {"audio_filepath": "...", "text": "..."}')


def _cell(row: Mapping[str, Any], role: str) -> Any:
    """What a row says; None where it has no such column or leaves it empty."""
    for name in COLUMNS[role]:
        if name in row:
            value = row[name]
            return (value.strip() or None) if isinstance(value, str) else value
    return None


def _words(row: Mapping[str, Any], role: str) -> str | None:
    value = _cell(row, role)
    if isinstance(value, int) and not isinstance(value, bool) and role in ("key", "speaker"):
        return str(value)  # identifiers are often written as numbers
    if value is not None and not isinstance(value, str):
        raise RowError("type", f"{role} {str(value)[:50]!r} is not text", "write it in quotation marks")
    return value


def _entry(
    row: Mapping[str, Any], manifest: Path, line: int, texts: bool, *, durations: bool
) -> tuple[str | None, Utterance]:
    named = _words(row, "path")
    if named is None:
        raise RowError("no-path", "names no recording", "fill in the path")
    split = _words(row, "split")
    if split is not None and split_name(split) is None:
        raise RowError("split", f"split {split!r} is not known", nearest(split, ["train", "valid", "test"]))
    path, text = _locate(named, manifest.parent), _transcript(_words(row, "text"), texts)
    declared = _seconds(row, "duration")
    start, stop = _part(row, path, declared, durations)
    key = _words(row, "key") or named + (f"#{start}-{stop or ''}" if start or stop else "")
    utterance = Utterance(key, path, text, _words(row, "speaker"), start, stop, str(manifest), line, declared)
    return split and split_name(split), utterance


def clean_text(raw: str) -> str:
    """A transcript with single blanks.

    Raises:
        RowError: empty, or with characters that no transcript holds.
    """
    if not raw.strip():
        raise RowError("no-text", "the text is empty", "write what is said, or leave the row out")
    text = " ".join(raw.split())
    bad = next((c for c in text if c == "\N{REPLACEMENT CHARACTER}" or unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        mend = "write the text again from its source, as UTF-8"
        raise RowError("encoding", f"the text holds U+{ord(bad):04X}: it was read in a wrong encoding", mend)
    return text


def _transcript(raw: str | None, texts: bool) -> str | None:
    return clean_text(raw or "") if raw or texts else None


def _locate(named: str, folder: Path) -> Path:
    """The file that a manifest in ``folder`` names."""
    if "\0" in named:
        raise RowError("no-path", "the path holds a zero byte", "write the path of a file")
    if Path(named).is_absolute():
        candidates = [Path(named)]
    else:
        plain = os.path.normpath(named)
        if plain == ".." or plain.startswith(".." + os.sep):
            mend = "move the recording below the manifest, or write its absolute path"
            raise RowError("escape", f"{named[:200]!r} leads out of the folder of the manifest", mend)
        candidates = [folder / plain, folder / "audio" / plain]
    try:
        found = next((path for path in candidates if path.is_file()), None)
        aside = found is None and any(path.is_dir() for path in candidates)
    except OSError as error:
        raise RowError("missing-file", f"{named[:50]!r} cannot be a path ({error.strerror})") from error
    if aside:
        raise RowError("folder", f"{named!r} is a folder, not a recording", "name a file")
    if found is None:
        raise RowError("missing-file", f"no such recording: {named[:200]!r}", "correct the path, or leave the row out")
    return found


def _number(row: Mapping[str, Any], role: str) -> float | None:
    value = _cell(row, role)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < 2**53 or isinstance(value, bool):
        raise RowError("segment", f"{role} {str(value)[:50]!r} is not a number that can be used", "correct it")
    return number


def _seconds(row: Mapping[str, Any], role: str) -> float | None:
    return _number(row, role)


def _sample(row: Mapping[str, Any], role: str) -> int | None:
    number = _number(row, role)
    if number is not None and not number.is_integer():
        what = f"{role} {number} is not a whole number of samples"
        raise RowError("segment", what, "count samples at the file's own rate; seconds go under offset and duration")
    return None if number is None else int(number)


def _part(row: Mapping[str, Any], path: Path, declared: float | None, durations: bool) -> tuple[int, int | None]:
    """The part of the recording that a row means, in samples."""
    start, stop, offset = _sample(row, "start"), _sample(row, "stop"), _seconds(row, "offset")
    if offset is not None and (start is not None or stop is not None):
        raise RowError("segment", "both samples (start, stop) and seconds (offset)", "keep one of the two")
    if offset is not None or (durations and declared is not None):
        start, stop = _part_in_seconds(path, offset or 0.0, declared)
    start = start or 0
    if stop is not None and stop <= start:
        raise RowError("segment", f"ends at sample {stop}, where it starts at {start}", "correct start and stop")
    return start, stop


def _part_in_seconds(path: Path, offset: float, duration: float | None) -> tuple[int, int | None]:
    try:
        header = read_header(path)
    except InputError as error:
        raise RowError("unreadable", f"{path.name}: {error.what}", error.mend) from error
    start = round(offset * header.rate)
    left = (header.frames - start) / header.rate
    if duration is None or abs(left - duration) <= _WHOLE_SECONDS or (start == 0 and duration > left):
        return start, None  # to the end; that a file is shorter than declared is found when it is inspected
    return start, start + round(duration * header.rate)
