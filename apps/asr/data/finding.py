"""One thing wrong with a corpus: what, in which file and line, and how to mend it.

Reading and inspecting give findings in place of exceptions, since a corpus of a thousand recordings has a thousand
chances of a fault and the reader wants all of them at once. ``kind`` is a short fixed name that programs count by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import InputError

Severity = Literal["error", "warning", "note"]

SHOWN = 3
"""Errors and warnings of one kind and split that :func:`condense` leaves as they are; of notes, one is enough."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: an ``error`` cannot be trained on or scored; a ``warning`` probably harms; a ``note`` is good to know.
        kind: short fixed name, such as ``"clipped"``.
        what: the reason, in plain words.
        file: the file at fault: a recording or a manifest.
        manifest: the manifest that names the recording, where ``file`` is one.
        line: of the manifest, counted from 1.
        key: the utterance.
        split: where it belongs.
        mend: what the reader can do about it.

    >>> print(Finding("warning", "clipped", "2.0 % of it is clipped", "a.wav", "m.csv", 3, mend="record it softer"))
    warning: a.wav (m.csv, line 3): 2.0 % of it is clipped; record it softer
    """

    severity: Severity
    kind: str
    what: str
    file: str | None = None
    manifest: str | None = None
    line: int | None = None
    key: str | None = None
    split: str | None = None
    mend: str | None = None

    @property
    def place(self) -> str | None:
        """File and line as one reads them; the split alone where no file is at fault."""
        line = None if self.line is None else f"line {self.line}"
        if self.manifest is None or self.manifest == self.file:
            return ", ".join(part for part in (self.file, line) if part) or self.split
        if self.file is None:
            return ", ".join(part for part in (self.manifest, line) if part)
        return f"{self.file} ({', '.join(part for part in (Path(self.manifest).name, line) if part)})"

    def error(self) -> InputError:
        """As the exception that says the same."""
        return InputError(self.what, where=self.place, mend=self.mend)

    def __str__(self) -> str:
        return f"{self.severity}: {self.error()}"


def from_error(error: InputError, kind: str = "unreadable") -> Finding:
    """An error that reading raised, as a finding; its place is taken as it stands."""
    return Finding("error", kind, error.what, error.where, mend=error.mend)


def condense(findings: Iterable[Finding], shown: int = SHOWN) -> Iterator[Finding]:
    """Findings for the eye: errors first, ``shown`` of each kind and split (one note), and a line for the rest of them.

    >>> many = [Finding("note", "stereo", "2 channels", f"{name}.wav") for name in "abcde"]
    >>> [str(finding) for finding in condense(many, 1)]
    ['note: a.wav: 2 channels', 'note: 4 more like it (stereo)']
    """
    order = {"error": 0, "warning": 1, "note": 2}
    groups: dict[tuple[str, str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.kind, finding.split), []).append(finding)
    for (severity, kind, split), members in sorted(groups.items(), key=lambda item: order[item[0][0]]):
        limit = 1 if severity == "note" else shown
        # A line "1 more" would only take the place of what it hides.
        cut = len(members) if len(members) <= limit + 1 else limit
        yield from members[:cut]
        if rest := len(members) - cut:
            what = f"{rest} more like it{f' in {split}' if split else ''} ({kind})"
            yield Finding(members[0].severity, kind, what)
