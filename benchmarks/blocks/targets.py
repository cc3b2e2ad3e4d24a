"""What the blocks are to reach, and by how much they fall short.

1. Packed attention on a batch that is filled to 60 % costs at most 0.7 of the padded run.
2. Linear mixers: an exponent of the forward time in the length of at most 1.1.
3. Linear mixers are faster than softmax attention from 2,048 tokens on.
4. A folded norm costs nothing measurable: against the linear map alone, 1 lies between the quartiles of the ratio.

A target is judged by its worst point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.blocks.growth import exponent
from benchmarks.blocks.points import FASTER_FROM, FITTED, LINEAR, WIDTH, mixers
from core.attention import HeadedAttention, Mixer

PACKED_AT_MOST, EXPONENT_AT_MOST = 0.7, 1.1
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One target of one block.

    Attributes:
        target: what is asked.
        block: of whom.
        found: the worst that was measured.
        bound: that it may be at most.
        where: the point of it.
        points: how many there are.
        missed: at how many of them it is not reached.
    """

    target: str
    block: str
    found: float
    bound: float
    where: str
    points: int
    missed: int

    @property
    def met(self) -> bool:
        """Whether it is reached at all points."""
        return self.missed == 0

    def told(self) -> str:
        """As one line.

        >>> Verdict("ratio", "nala", 0.84, 0.7, "64 tokens", 4, 1).told()
        'ratio, nala: short by 0.14 (0.84, at most 0.7; 64 tokens; 1 of 4 points)'
        """
        facts = f"{self.found:.2f}, at most {self.bound:g}; {self.where}"
        if self.met:
            return f"{self.target}, {self.block}: met ({facts}; the worst of {self.points})"
        short = max(self.found - self.bound, 0.0)
        by = f"short by {short:.2f}" if short >= 0.005 else "short by less than 0.01"
        return f"{self.target}, {self.block}: {by} ({facts}; {self.missed} of {self.points} points)"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every target of every block that it concerns and that was measured."""
    return [*_packed(rows), *_exponents(rows), *_faster(rows), *_folded(rows)]


def place(row: Row) -> str:
    """A point in words."""
    return f"{row['tokens']} tokens x {row['batch']}, width {row['width']}, {row['precision']}, {row['mode']}"


def _worst(
    target: str, block: str, rows: Iterable[Row], bound: float, value: Callable[[Row], float]
) -> Iterator[Verdict]:
    """The verdict about rows, if there are any."""
    found = [(value(row), place(row)) for row in rows]
    if found:
        number, where = max(found)
        missed = sum(each > bound for each, _ in found)
        yield Verdict(target, block, number, bound, where, len(found), missed)


def _middle(row: Row) -> float:
    return float(row["ratio"]["middle"])


def attends_packed(mixer: type[Mixer]) -> bool:
    """Whether a mixer is attention with a way of its own with packed rows, and not padded inside."""
    return issubclass(mixer, HeadedAttention) or mixer.mix_packed is not Mixer.mix_packed


def _packed(rows: Sequence[Row]) -> Iterator[Verdict]:
    for name, mixer in mixers().items():
        if attends_packed(mixer):
            own = [row for row in rows if row["family"] == "packed" and row["member"] == f"{name} packed"]
            yield from _worst("packed / padded at 60 % fill", name, own, PACKED_AT_MOST, _middle)


def fitted(rows: Sequence[Row], member: str, precision: str) -> dict[int, list[float]]:
    """Seconds of a mixer's forward passes over one sequence, by its length, where it was run at all of them."""
    own = {
        row["tokens"]: row["times"]
        for row in rows
        if (row["family"], row["member"], row["precision"], row["mode"]) == ("mixer", member, precision, "forward")
        and row["width"] == WIDTH
        and row["tokens"] in FITTED
        and "times" in row
    }
    return own if len(own) == len(FITTED) else {}


def _exponents(rows: Sequence[Row]) -> Iterator[Verdict]:
    for name in LINEAR:
        found = []
        for precision in ("fp32", "bf16"):
            if seconds := fitted(rows, name, precision):
                found.append((exponent(seconds).value, f"forward, {precision}, {FITTED[0]} to {FITTED[-1]} tokens"))
        if found:
            number, where = max(found)
            missed = sum(each > EXPONENT_AT_MOST for each, _ in found)
            yield Verdict("exponent in the length", name, number, EXPONENT_AT_MOST, where, len(found), missed)


def _faster(rows: Sequence[Row]) -> Iterator[Verdict]:
    for name in LINEAR:
        own = [row for row in rows if (row["family"], row["member"]) == ("mixer", name)]
        long = [row for row in own if row["tokens"] >= FASTER_FROM]
        target = f"time / softmax from {FASTER_FROM} tokens on"
        yield from _worst(target, name, long, 1.0, _middle)


def _folded(rows: Sequence[Row]) -> Iterator[Verdict]:
    """A pair is measurably slower where even the lower quartile of the ratio is above 1."""
    members = sorted({row["member"] for row in rows if row["family"] == "folded"})
    for name in (member for member in members if member.endswith("folded") and not member.endswith("unfolded")):
        own = [row for row in rows if row["member"] == name]
        target = "lower quartile of folded / linear map alone"
        yield from _worst(target, name.removesuffix(" folded"), own, 1.0, lambda row: float(row["ratio"]["low"]))
