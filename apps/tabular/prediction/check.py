"""``python -m apps.tabular.prediction.check``: everything wrong with a table, before any training.

Exit status 0 when nothing stands in the way of training (warnings and notes may remain), 2 when there are errors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.tabular.prediction.data.files import read_table
from apps.tabular.prediction.data.findings import (
    Finding,
    column_findings,
    feature_findings,
    from_error,
    split_findings,
    target_findings,
    value_findings,
)
from apps.tabular.prediction.data.infer import encode_target, infer_kind
from apps.tabular.prediction.data.sources import DEFAULT_DATA, Source, open_source, read_meta, split_files, to_table
from apps.tabular.prediction.data.table import Column, Schema, Table, TargetTask
from core.command import parse_arguments, run, say, to_json
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """Report everything wrong with a table before training: file, column, row, reason, and how to mend it."""

    data: str = DEFAULT_DATA
    """A folder with train (and valid, test) files, one file, or bundled:NAME."""
    target: str | None = None
    """Target column, where meta.json does not name it."""
    task: TargetTask | None = None
    """What to predict, where it should not be inferred."""
    group: str | None = None
    """Column whose equal values must stay in one split."""
    json: bool = False
    """Write one JSON object."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found. ``schema`` and ``rows`` are there as far as the data could be read."""

    findings: tuple[Finding, ...]
    schema: Schema | None
    rows: dict[str, int]

    @property
    def ok(self) -> bool:
        """Nothing stands in the way of training."""
        return all(finding.severity != "error" for finding in self.findings)

    def count(self, severity: str) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ok": self.ok,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "rows": self.rows,
            "schema": None if self.schema is None else self.schema.to_dict(),
            "findings": list(self.findings),
        }


def check(
    data: str | Path,
    *,
    target: str | None = None,
    task: TargetTask | None = None,
    group: str | None = None,
) -> CheckResult:
    """Look at a source (see :func:`.data.sources.load_splits` for the arguments) and report; raises nothing of its own.

    >>> check("bundled:wine").ok
    True
    """
    source, findings = _open(data)
    rows = {} if source is None else {name: len(frame) for name, frame in source.frames.items()}
    if source is None or "train" not in source.frames:
        return CheckResult(tuple(findings), None, rows)
    try:
        schema = source.schema(target=target, task=task, group=group)
    except InputError as error:
        frame, label = source.frames["train"], source.labels["train"]
        named = {target or source.meta.get("target"), group}
        columns = [Column(name, infer_kind(frame[name])) for name in frame.columns if name not in named]
        return CheckResult((*findings, from_error(error), *column_findings(frame, columns, label)), None, rows)
    tables: dict[str, Table] = {}
    for name, frame in source.frames.items():
        found = list(_frame_findings(source, name, schema, group))
        findings += found
        if not any(finding.severity == "error" for finding in found):
            tables[name] = to_table(frame, schema, group=group, where=source.labels[name])
    if "train" in tables:
        findings += target_findings(tables["train"], source.labels["train"])
        findings += split_findings(tables, source.labels)
        if not any(finding.severity == "error" for finding in findings):
            findings += feature_findings(tables["train"], source.labels["train"])
    return CheckResult(tuple(findings), schema, rows)


def _open(data: str | Path) -> tuple[Source | None, list[Finding]]:
    """As :func:`open_source`, but every file that cannot be read is a finding of its own."""
    try:
        if not Path(data).is_dir():
            return open_source(data), []
        files = split_files(Path(data))
    except InputError as error:
        return None, [from_error(error)]
    findings, frames, meta = [], {}, {}
    for name, path in files.items():
        try:
            frames[name] = read_table(path)
        except InputError as error:
            findings.append(from_error(error))
    try:
        meta = read_meta(Path(data))
    except InputError as error:
        findings.append(from_error(error))
    return Source(frames, {name: str(path) for name, path in files.items()}, meta), findings


def _frame_findings(source: Source, name: str, schema: Schema, group: str | None) -> Iterator[Finding]:
    """One split: are its columns there, do they hold what the schema says, is the target whole?"""
    frame, where = source.frames[name], source.labels[name]
    names = [str(column) for column in frame.columns]
    needed = [*schema.names, schema.target, *([] if group is None else [group])]
    missing = [column for column in needed if column not in names]
    for column in missing:
        yield Finding("error", "the column is missing", where, column, mend="give every split the same columns")
    if name == "train":
        if not missing:
            yield from column_findings(frame, schema.columns, where)
    else:
        extra = [column for column in names if column not in source.frames["train"].columns]
        if extra:
            yield Finding("note", f"columns that training does not have: {', '.join(extra[:10])}", where)
        for column in schema.of_kind("numeric"):
            if column in names:
                yield from value_findings(frame.iloc[:, names.index(column)], column, where)
    if schema.target in names:
        try:
            encode_target(frame.iloc[:, names.index(schema.target)], schema, where=where)
        except InputError as error:
            yield from_error(error)


def main(argv: Sequence[str] | None = None) -> int:
    """The verb."""
    return run(_main, argv)


def _main(argv: list[str]) -> int:
    arguments = parse_arguments(CheckArguments, argv, prog="manyformer tabular check")
    result = check(arguments.data, target=arguments.target, task=arguments.task, group=arguments.group)
    if arguments.json:
        say(to_json({"data": arguments.data, **result.to_dict()}))
        return 0 if result.ok else 2
    for finding in result.findings:
        say(str(finding))
    if result.schema is not None:
        rows = ", ".join(f"{count} {name}" for name, count in result.rows.items())
        say(f"{result.schema.task} on {result.schema.target!r}, {len(result.schema.columns)} columns; rows: {rows}")
    counts = {word: result.count(word) for word in ("error", "warning", "note")}
    say(", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items()))
    return 0 if result.ok else 2


if __name__ == "__main__":
    sys.exit(main())
