"""``manyformer tabular check``: everything wrong with a table, before any training.

Exit status 0 when nothing stands in the way of training (warnings and notes may remain), 2 when there are errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.tabular.prediction.data.files import read_table
from apps.tabular.prediction.data.findings import (
    column_findings,
    feature_findings,
    found,
    split_findings,
    target_findings,
    value_findings,
)
from apps.tabular.prediction.data.infer import encode_target, infer_kind
from apps.tabular.prediction.data.sources import DEFAULT_DATA, Source, open_source, read_meta, split_files, to_table
from apps.tabular.prediction.data.table import Column, Schema, Table, TargetTask
from core import command
from core.command import Finding, from_error, parse_arguments, run, tell
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arguments(command.CheckArguments):
    """Report everything wrong with a table before training: file, column, row, reason, and how to mend it."""

    data: str = DEFAULT_DATA
    """As for train."""
    target: str | None = None
    """Column to predict; needed where neither meta.json nor a bundled table says it."""
    task: TargetTask | None = None
    """What the target is; inferred from its values unless given."""
    group: str | None = None
    """Column whose equal values stay in one split (a patient, a customer)."""


@dataclass(frozen=True)
class CheckResult(command.CheckResult):
    """What a check found. ``schema`` and ``rows`` are there as far as the data could be read."""

    schema: Schema | None
    rows: dict[str, int]

    def facts(self) -> Mapping[str, Any]:
        """Rows of each split, and the schema."""
        return {"rows": self.rows, "schema": None if self.schema is None else self.schema.to_dict()}

    def summary(self) -> str | None:
        """The target, and how much there is."""
        if self.schema is None:
            return None
        rows = ", ".join(f"{count} {name}" for name, count in self.rows.items())
        return f"{self.schema.task} on {self.schema.target!r}, {len(self.schema.columns)} columns; rows: {rows}"


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
        findings += [from_error(error, "schema"), *column_findings(frame, columns, label)]
        return CheckResult(tuple(findings), None, rows)
    tables: dict[str, Table] = {}
    for name, frame in source.frames.items():
        of_split = [replace(one, split=name) for one in _frame_findings(source, name, schema, group)]
        findings += of_split
        if not any(finding.severity == "error" for finding in of_split):
            tables[name] = to_table(frame, schema, group=group, where=source.labels[name])
    if "train" in tables:
        train, label = tables["train"], source.labels["train"]
        findings += (replace(one, split="train") for one in target_findings(train, label))
        findings += split_findings(tables, source.labels)
        if not any(finding.severity == "error" for finding in findings):
            findings += (replace(one, split="train") for one in feature_findings(train, label))
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
        mend = "give every split the same columns"
        yield found("error", "missing-column", "the column is missing", where, column, mend=mend)
    if name == "train":
        if not missing:
            yield from column_findings(frame, schema.columns, where)
    else:
        extra = [column for column in names if column not in source.frames["train"].columns]
        if extra:
            what = f"columns that training does not have: {', '.join(extra[:10])}"
            yield found("note", "extra-columns", what, where)
        for column in schema.of_kind("numeric"):
            if column in names:
                yield from value_findings(frame.iloc[:, names.index(column)], column, where)
    if schema.target in names:
        try:
            encode_target(frame.iloc[:, names.index(schema.target)], schema, where=where)
        except InputError as error:
            yield from_error(error, "target")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> int:
    arguments = parse_arguments(Arguments, argv, prog="manyformer tabular check")
    result = check(arguments.data, target=arguments.target, task=arguments.task, group=arguments.group)
    return tell(result, arguments.data, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
