"""One thing wrong with a corpus: what, in which recording, manifest and line, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.command import Finding


@dataclass(frozen=True, kw_only=True)
class SpeechFinding(Finding):
    """One thing found in a recording or a row.

    Attributes:
        file: the file at fault: a recording or a manifest.
        manifest: the manifest that names the recording, where ``file`` is one.
        line: of the manifest, counted from 1.
        key: the utterance.

    >>> place = dict(file="a.wav", manifest="m.csv", line=3)
    >>> print(SpeechFinding(severity="warning", kind="quiet", what="very quiet", mend="record it louder", **place))
    warning: a.wav (m.csv, line 3): very quiet; record it louder
    """

    file: str | None = None
    manifest: str | None = None
    line: int | None = None
    key: str | None = None

    @property
    def place(self) -> str | None:
        """File and line; the split alone where no file is at fault."""
        line = None if self.line is None else f"line {self.line}"
        if self.manifest is None or self.manifest == self.file:
            return ", ".join(part for part in (self.file, line) if part) or self.split
        if self.file is None:
            return ", ".join(part for part in (self.manifest, line) if part)
        return f"{self.file} ({', '.join(part for part in (Path(self.manifest).name, line) if part)})"
