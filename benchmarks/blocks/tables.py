"""What :mod:`benchmarks.blocks` measured, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from benchmarks.blocks.growth import exponent
from benchmarks.blocks.points import LOADS, MOST_PAIRS, Family, Pass, Precision, contenders, plain_of
from benchmarks.blocks.targets import Verdict, fitted
from benchmarks.common.table import markdown

Row = Mapping[str, Any]
Load = tuple[int, int, int]
TITLES: dict[Family, str] = {"mixer": "Mixers", "norm": "Norms", "feedforward": "Feed-forwards"}
PASSES: dict[Pass, str] = {"forward": "forward", "step": "forward and backward"}
PRECISIONS: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16"}
EXPLAINED = (
    "Processor time of a pass: the plain block's in milliseconds, every other's as a multiple of it, taken round by "
    "round (median; below 1 is faster). Loads are sequences x tokens x width."
)

FOLDED = "A linear map alone, and with a norm before it that is folded into it or is not; with quartiles."


def document(rows: Sequence[Row], found: Sequence[Verdict]) -> str:
    """The Markdown file: the families, packed rows, folded norms, the targets, then memory."""
    parts = list[str]()
    for family, title in TITLES.items():
        if own := _of(rows, family=family):
            parts += [f"## {title}", _note(family, own), *_grids(own, family, rows)]
    if own := _of(rows, family="packed"):
        parts += ["## Packed rows", _packed_note(), *(_packed(own, mode) for mode in get_args(Pass))]
    if own := _of(rows, family="folded"):
        parts += ["## Folded norms", FOLDED, _folded(own)]
    parts += ["## Targets", _targets(found)]
    for family, title in TITLES.items():
        if own := _of(rows, family=family):
            parts += [f"## Memory of {title.lower()}", "MiB that a pass adds at its peak.", *_memory(own, family)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _of(rows: Sequence[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if wanted.items() <= row.items()]


def _note(family: Family, rows: Sequence[Row]) -> str:
    spreads = [(row["ratio"]["high"] - row["ratio"]["low"]) / row["ratio"]["middle"] for row in rows]
    more = {
        "mixer": "8 heads. Exponent: of the time in the length from 1,024 tokens on, where one sequence is run, with "
        f"its 95 % interval. A dash: not run, being beyond {MOST_PAIRS / 1e6:.0f} million pairs of positions. ",
        "feedforward": "As many weights as an MLP with 4 D hidden units, where a block has hidden units; the weights "
        "are those at the last load. ",
    }
    quartiles = f"The quartiles lie {100 * statistics.median(spreads):.0f} % of the ratio apart"
    return f"{EXPLAINED} {more.get(family, '')}{quartiles} (median of the table; at most {100 * max(spreads):.0f} %)."


def _grids(rows: Sequence[Row], family: Family, every: Sequence[Row]) -> Iterator[str]:
    """Times: one table a pass and precision."""
    for mode, precision in _kinds():
        own = _of(rows, mode=mode, precision=precision)
        extra = None
        if family == "mixer" and mode == "forward":
            extra = ("exponent", lambda name, kind=precision: _exponent(every, name, kind))
        if family == "feedforward":
            extra = ("weights", lambda name, among=own: _weights(among, name))
        yield f"### {TITLES[family]}, {PASSES[mode]}, {PRECISIONS[precision]}"
        yield _grid(own, family, _time, extra)


def _memory(rows: Sequence[Row], family: Family) -> Iterator[str]:
    """Peaks: one table a pass and precision."""
    for mode, precision in _kinds():
        yield f"### Memory, {PASSES[mode]}, {PRECISIONS[precision]}"
        yield _grid(_of(rows, mode=mode, precision=precision), family, lambda row: mib(row["memory_mib"]), None)


def _kinds() -> list[tuple[Pass, Precision]]:
    return [(mode, precision) for mode in get_args(Pass) for precision in get_args(Precision)]


def _grid(
    rows: Sequence[Row], family: Family, cell: Callable[[Row], str], extra: tuple[str, Callable[[str], str]] | None
) -> str:
    """A line a contender, the plain one before those held against it; a column a load."""
    loads = LOADS[family]
    lines = []
    for name in sorted(contenders(family), key=lambda name: (plain_of(family, name), plain_of(family, name) != name)):
        own = {_load(row): row for row in _of(rows, member=name)}
        if own:
            cells = [cell(own[load]) if load in own else "-" for load in loads]
            lines.append([name, *cells, *([extra[1](name)] if extra else [])])
    header = ["", *(label(load) for load in loads), *([extra[0]] if extra else [])]
    return markdown(header, lines)


def _load(row: Row) -> Load:
    return row["batch"], row["tokens"], row["width"]


def label(load: Load) -> str:
    """A load as the head of a column.

    >>> label((4, 512, 256))
    '4 x 512 x 256'
    """
    return " x ".join(str(number) for number in load)


def _time(row: Row) -> str:
    return f"{1000 * row['seconds']:.3g} ms" if row["member"] == row["plain"] else f"{row['ratio']['middle']:.2f}"


def mib(value: float | None) -> str:
    """A peak; None is a process that was killed.

    >>> mib(3.14159), mib(0.04), mib(250.7), mib(None)
    ('3.1', '0.0', '251', 'killed')
    """
    return "killed" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _exponent(rows: Sequence[Row], member: str, precision: str) -> str:
    seconds = fitted(rows, member, precision)
    if not seconds:
        return "-"
    found = exponent(seconds)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _weights(rows: Sequence[Row], member: str) -> str:
    return f"{max(row['weights'] for row in _of(rows, member=member)):,}"


def _packed_note() -> str:
    return (
        "Time of packed rows with offsets as a multiple of that of the same sequences padded, with a mask; three draws "
        "of lengths, even between a fifth of the longest and all of it, 60 % of each batch real; the offsets are "
        "validated in the call. In brackets the ratio of the peaks of memory."
    )


def _packed(rows: Sequence[Row], mode: Pass) -> str:
    columns = [(load, precision) for precision in get_args(Precision) for load in LOADS["packed"]]
    lines = []
    for name in (member for member in contenders("packed") if member.endswith(" packed")):
        padded = {(_load(row), row["precision"]): row for row in _of(rows, member=plain_of("packed", name), mode=mode)}
        own = {(_load(row), row["precision"]): row for row in _of(rows, member=name, mode=mode)}
        if own:
            cells = [_against(own[at], padded[at]) if at in own and at in padded else "-" for at in columns]
            lines.append([name.removesuffix(" packed"), *cells])
    header = ["", *(f"{PRECISIONS[precision]} {label(load)}" for load, precision in columns)]
    return f"### Packed rows, {PASSES[mode]}\n\n{markdown(header, lines)}"


def _against(row: Row, plain: Row) -> str:
    ratio, own, other = row["ratio"]["middle"], row["memory_mib"], plain["memory_mib"]
    return f"{ratio:.2f} ({own / other:.2f})" if own and other else f"{ratio:.2f}"


def _folded(rows: Sequence[Row]) -> str:
    lines = []
    for row in (row for row in rows if row["member"].endswith(" folded")):
        point = {name: row[name] for name in ("tokens", "batch", "width", "precision")}
        other = _of(rows, **point, member=row["member"].replace(" folded", " unfolded"))
        lines.append(
            [
                *(row["member"].removesuffix(" folded"), label(_load(row)), PRECISIONS[row["precision"]]),
                *(f"{1e3 * row['plain_seconds']:.3g} ms", *(_quartiles(each) for each in (row, *other))),
            ]
        )
    return markdown(("norm", "load", "numbers", "linear map", "folded / linear map", "not folded / linear map"), lines)


def _quartiles(row: Row) -> str:
    ratio = row["ratio"]
    return f"{ratio['middle']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _targets(found: Sequence[Verdict]) -> str:
    lines = [
        [
            *(each.target, each.block, f"{each.found:.2f}", f"{each.bound:g}"),
            *("met" if each.met else f"short at {each.missed} of {each.points}", each.where),
        ]
        for each in found
    ]
    header = ("target", "block", "worst", "at most", "verdict", "where it is worst")
    return markdown(header, lines) if lines else "none measured"
