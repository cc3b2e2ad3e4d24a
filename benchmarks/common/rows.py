"""Programs that measure one row after another, write after each, and go on where they were stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.common.record import provenance, write_json
from benchmarks.common.table import write_text

Point = TypeVar("Point")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rows(Generic[Point]):
    """What is measured, and how it is written.

    Attributes:
        points: in order, cheap ones first.
        key: what tells the row of a point from the others.
        measure: the row of a point, its key included.
        told: a row as one line.
        document: the Markdown file, from what the JSON holds.
        what: the file in one line.
        conditions: rows that were measured under others are not kept.
        facts: what else the file says.
        packages: whose versions it names.
    """

    points: Sequence[Point]
    key: Callable[[Point], Row]
    measure: Callable[[Point], Row]
    told: Callable[[Row], str]
    document: Callable[[Mapping[str, Any]], str]
    what: str
    conditions: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    packages: Iterable[str] = ()


def measure_missing(rows: Rows[Point], out: Path, *, threads: int) -> None:
    """Measure the points whose rows ``out`` does not hold, and write it and its tables after each of them."""
    found = kept(out, rows.conditions)
    for point in rows.points:
        if any(rows.key(point).items() <= row.items() for row in found):
            continue
        found.append(rows.measure(point))
        payload = {
            "what": rows.what,
            "provenance": provenance(threads=threads, packages=rows.packages),
            "conditions": rows.conditions,
            **rows.facts,
            "rows": found,
        }
        write_json(out, payload)
        write_text(out.with_suffix(".md"), rows.document(payload))
        print(rows.told(found[-1]), flush=True)


def kept(path: Path, conditions: Mapping[str, Any]) -> list[Row]:
    """Rows of an earlier call, if it was made under these conditions."""
    if not path.is_file():
        return []
    stored = json.loads(path.read_text())
    return list(stored["rows"]) if stored["conditions"] == conditions else []


def parser(program: str, description: str, out: Path, points: Iterable[str], seconds: float) -> argparse.ArgumentParser:
    """The options that these programs have in common."""
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    made.add_argument("--out", type=Path, default=out, help=f"default {out}")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--points", default=",".join(points), help="comma-separated, of the default")
    made.add_argument("--rounds", type=int, default=15, help="times that every contender has its turn, at most")
    made.add_argument("--seconds", type=float, default=seconds, help="after which a row ends with fewer rounds")
    return made


def chosen(asked: str, known: Mapping[str, Point]) -> list[Point]:
    """The points with these comma-separated names.

    >>> chosen("b,a", {"a": 1, "b": 2})
    [2, 1]
    """
    for name in asked.split(","):
        if name not in known:
            raise SystemExit(f"no point {name!r}: choose from {','.join(known)}")
    return [known[name] for name in asked.split(",")]
