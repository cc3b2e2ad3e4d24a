"""Every block against the plain one: time, peak memory and growth with the length.

    python -m benchmarks.blocks --out results/blocks.json --threads 1

Every member of the tables of mixers, norms and feed-forwards against the plain one of its room (softmax attention,
layer norm, MLP), over lengths and widths, forward and with the backward pass, in float32 and bfloat16; packed rows
against padded batches with a mask; and norms that were folded into a linear map against that map alone. Those who meet
at a point take turns in one process, and ratios (member / plain, below 1 is cheaper) of processor time are taken round
by round; peak memory is that of a pass in a process of its own. The targets (:mod:`benchmarks.blocks.targets`) are
checked and told.

Rows are kept as long as the code behind them, the machine and the settings are the same: the program goes on where it
was stopped, and measures what has changed. What is equal between contenders: :mod:`benchmarks.blocks.calls`.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.blocks.calls import prepare, ready, weights
from benchmarks.blocks.code import digest
from benchmarks.blocks.points import FAMILIES, FITTED, LINEAR, Family, Point, contenders, is_run, plain_of, points
from benchmarks.blocks.tables import document
from benchmarks.blocks.targets import place, verdicts
from benchmarks.common.memory import peak_growth
from benchmarks.common.record import machine, provenance, write_json
from benchmarks.common.rounds import take_turns
from benchmarks.common.table import write_text

PRELOADED = ("benchmarks.blocks.calls",)
LEAST_ROUNDS = 5
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the JSON and the tables after every point, and tell what the targets came to."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    conditions = {
        **{name: getattr(options, name) for name in ("threads", "rounds", "seconds")},
        "machine": machine(),
        "torch": torch.__version__,
    }
    rows = kept(options.out, conditions)
    facts = provenance(threads=options.threads, packages=("torch",))
    for point in planned(options.family or FAMILIES):
        missing = absent(rows, point)
        if missing:
            found = measure(point, missing, options)
            rows = merged(rows, [{**row, "commit": facts["commit"]} for row in found])
            write(options.out, rows, conditions, facts)
            print(f"{point.family}: {place(asdict(point))}: {told(found)}", flush=True)
    write(options.out, rows, conditions, facts)
    for verdict in verdicts(rows):
        print(verdict.told())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/blocks.json"))
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40, help="turns of every contender at a point, at most")
    parser.add_argument("--seconds", type=float, default=3.0, help="after which a point ends with fewer, five at least")
    return parser


def planned(families: Sequence[Family]) -> Iterator[Point]:
    """Every point asked for."""
    for family in families:
        yield from points(family)


def key(point: Point, member: str) -> Row:
    """What tells a row from the others."""
    return {**asdict(point), "member": member}


def kept(path: Path, conditions: Mapping[str, Any]) -> list[Row]:
    """Rows of an earlier call that would be measured again, and in the same way."""
    if not path.is_file():
        return []
    stored = json.loads(path.read_text())
    if stored["conditions"] != conditions:
        return []
    known = [key(point, name) for point in planned(FAMILIES) for name in running(point)]
    return [row for row in stored["rows"] if {name: row[name] for name in known[0]} in known]


def running(point: Point) -> list[str]:
    """The contenders of a point."""
    return [name for name in contenders(point.family) if is_run(point, name)]


def absent(rows: Sequence[Row], point: Point) -> list[str]:
    """The contenders of a point that have no row, or one of other code."""
    own = [row for row in rows if asdict(point).items() <= row.items()]
    codes = {row["member"]: row["code"] for row in own}
    return [name for name in running(point) if codes.get(name) != digest(point.family, name)]


def merged(rows: Sequence[Row], found: Sequence[Row]) -> list[Row]:
    """``rows`` with what was found now in the place of what it replaces."""
    names = list(key(next(planned(FAMILIES)), ""))
    new = [{name: row[name] for name in names} for row in found]
    return [*(row for row in rows if {name: row[name] for name in names} not in new), *found]


def measure(point: Point, missing: Sequence[str], options: argparse.Namespace) -> list[Row]:
    """A row for everyone missing; the plain ones that they are held against take their turns with them."""
    plain = {plain_of(point.family, name) for name in missing}
    names = [name for name in running(point) if name in {*missing, *plain}]
    memory = {name: peak_growth(ready, point, name, threads=options.threads, preload=PRELOADED) for name in missing}
    calls: dict[str, Callable[[], object]] = {name: prepare(point, name) for name in names}
    times = take_turns(calls, rounds=options.rounds, seconds=options.seconds, least=LEAST_ROUNDS, clock="cpu")
    calls.clear()
    gc.collect()
    return [
        {
            **key(point, name),
            "plain": plain_of(point.family, name),
            **compared(times[name], times[plain_of(point.family, name)]),
            "memory_mib": memory[name],
            "weights": weights(point, name),
            "code": digest(point.family, name),
            **({"times": times[name]} if is_fitted(point, name) else {}),
        }
        for name in missing
    ]


def is_fitted(point: Point, member: str) -> bool:
    """Whether every round is kept, for the interval of an exponent."""
    plain = plain_of("mixer", member) if point.family == "mixer" else None
    return plain is not None and member in (plain, *LINEAR) and point.tokens in FITTED and point.mode == "forward"


def compared(own: Sequence[float], plain: Sequence[float]) -> Row:
    """Median seconds of both, and the quartiles of their ratio by round."""
    low, middle, high = np.quantile(np.array(own) / np.array(plain), [0.25, 0.5, 0.75])
    return {
        "rounds": len(own),
        "seconds": statistics.median(own),
        "plain_seconds": statistics.median(plain),
        "ratio": {"low": float(low), "middle": float(middle), "high": float(high)},
    }


def write(out: Path, rows: Sequence[Row], conditions: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """The JSON and the tables."""
    found = verdicts(rows)
    payload = {
        "what": "ratio = member / plain by round, below 1 is cheaper; processor seconds and MiB of a pass; medians",
        "provenance": {**facts, "runs": {"commits": sorted({row["commit"] for row in rows})}},
        "conditions": conditions,
        "targets": [{**asdict(verdict), "met": verdict.met, "told": verdict.told()} for verdict in found],
        "rows": rows,
    }
    write_json(out, payload)
    write_text(out.with_suffix(".md"), document(rows, found))


def told(rows: Sequence[Row]) -> str:
    """The rows of a point in one line."""
    return ", ".join(f"{row['member']} {row['ratio']['middle']:.2f}" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
