"""The factors of a full grid: which arms share a value, in the same order of the other factors' settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from core.study.grid import shown
from core.study.records import Arm


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One field that varies in a full grid.

    Attributes:
        field: dotted path.
        values: in words, that of the baseline first.
        arms: value -> the names of its arms, in one order of the other factors' settings.
    """

    field: str
    values: tuple[str, ...]
    arms: Mapping[str, tuple[str, ...]]


def factors_of(arms: Sequence[Arm]) -> list[Factor]:
    """The factors of a grid in which every combination of at least two varying fields is an arm; none of other arms.

    >>> grid = [Arm(name=f"{a}{b}", changes={"a": a, "b": b}) for a in (1, 2) for b in "xy"]
    >>> [(factor.field, factor.arms[factor.values[1]]) for factor in factors_of(grid)]
    [('a', ('2x', '2y')), ('b', ('1y', '2y'))]
    >>> factors_of(grid[:3])
    []
    """
    fields = list(arms[0].changes)
    if any(set(arm.changes) != set(fields) for arm in arms):
        return []
    named = {tuple(shown(arm.changes[field]) for field in fields): arm.name for arm in arms}
    values = {field: list(dict.fromkeys(key[i] for key in named)) for i, field in enumerate(fields)}
    if set(product(*values.values())) != set(named) or len(named) < len(arms):
        return []
    varying = [field for field in fields if len(values[field]) > 1]
    if len(varying) < 2:
        return []
    return [
        Factor(
            field=field,
            values=tuple(values[field]),
            arms={
                value: tuple(named[key] for key in product(*values.values()) if key[fields.index(field)] == value)
                for value in values[field]
            },
        )
        for field in varying
    ]
