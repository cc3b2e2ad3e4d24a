"""What every ``check`` gives: findings in place of exceptions, printed in one way, and an exit status.

Data of a thousand rows or files have a thousand chances of a fault, and the reader wants all of them at once. An
application adds fields of its own to :class:`Finding` (a column and a row; a recording and a line), and says by
``place`` how they read; ``kind`` is a short fixed name that programs count by. The status is 0 when nothing stands in
the way of training (warnings and notes may remain), 2 when there are errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from core.command.output import say, to_json
from core.errors import InputError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

SHOWN = 3
"""Errors and warnings of one kind and split that :func:`condense` leaves as they are; of notes, one is enough."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found.

    Attributes:
        severity: an ``error`` cannot be trained on or scored; a ``warning`` probably harms; a ``note`` is good to know.
        kind: short fixed name, such as ``"constant"``.
        what: the reason, in plain words.
        where: the file or part concerned.
        split: of the data, which it belongs to.
        mend: what the reader can do about it.

    >>> print(Finding(severity="warning", kind="few", what="40 rows", where="train.csv", mend="gather more"))
    warning: train.csv: 40 rows; gather more
    """

    severity: Severity
    kind: str
    what: str
    where: str | None = None
    split: str | None = None
    mend: str | None = None

    @property
    def place(self) -> str | None:
        """Where, as one reads it; the split alone where nothing nearer is at fault."""
        return self.where or self.split

    def error(self) -> InputError:
        """As the exception that says the same."""
        return InputError(self.what, where=self.place, mend=self.mend)

    def __str__(self) -> str:
        return f"{self.severity}: {self.error()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: every field, those of an application included; ``where`` is the place as one reads it."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "where": self.place}


def from_error(error: InputError, kind: str = "unreadable", *, split: str | None = None) -> Finding:
    """An error that reading raised, as a finding."""
    return Finding(severity="error", kind=kind, what=error.what, where=error.where, split=split, mend=error.mend)


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """What every ``check`` takes besides its data."""

    all: bool = False
    """Show every finding; otherwise three of each kind, and how many more there are."""
    json: bool = False
    """Write one JSON object, with every finding."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found; applications add what they know of the data, and say it by ``facts`` and ``summary``."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing stands in the way of training."""
        return self.count("error") == 0

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def facts(self) -> Mapping[str, Any]:
        """Plain data about what was looked at."""
        return {}

    def summary(self) -> str | None:
        """A line about what was looked at; None where nothing could be read."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        counts = {"errors": self.count("error"), "warnings": self.count("warning")}
        return {"ok": self.ok, **counts, **self.facts(), "findings": [one.to_dict() for one in self.findings]}


def tell(result: CheckResult, data: str, arguments: CheckArguments) -> int:
    """Print what a check of ``data`` found, as lines or JSON; returns the exit status.

    >>> found = Finding(severity="note", kind="size", what="9 features")
    >>> tell(CheckResult((found,)), "table.csv", CheckArguments())
    note: 9 features
    0 errors, 0 warnings, 1 note
    0
    """
    if arguments.json:
        say(to_json({"data": data, **result.to_dict()}))
        return 0 if result.ok else 2
    for finding in result.findings if arguments.all else condense(result.findings):
        say(str(finding))
    summary = result.summary()
    if summary is not None:
        say(summary)
    counts = {word: result.count(word) for word in SEVERITIES}
    say(", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items()))
    return 0 if result.ok else 2


def condense(findings: Iterable[Finding], shown: int = SHOWN) -> Iterator[Finding]:
    """Findings for the eye: errors first, ``shown`` of each kind and split (one note), and a line for the rest of them.

    >>> many = [Finding(severity="note", kind="stereo", what="2 channels", where=f"{name}.wav") for name in "abcde"]
    >>> [str(finding) for finding in condense(many, 1)]
    ['note: a.wav: 2 channels', 'note: 4 more like it (stereo)']
    """
    groups: dict[tuple[Severity, str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.kind, finding.split), []).append(finding)
    for (severity, kind, split), members in sorted(groups.items(), key=lambda item: SEVERITIES.index(item[0][0])):
        limit = 1 if severity == "note" else shown
        # A line "1 more" would only take the place of what it hides.
        cut = len(members) if len(members) <= limit + 1 else limit
        yield from members[:cut]
        if rest := len(members) - cut:
            what = f"{rest} more like it{f' in {split}' if split else ''} ({kind})"
            yield Finding(severity=severity, kind=kind, what=what)
