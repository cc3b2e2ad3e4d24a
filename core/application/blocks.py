"""The verb ``blocks``: every block with its names, capabilities, options, source, cost, and who takes it.

One table, :func:`core.layout.catalogue.rows`, is behind this verb and the pages of the families.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from core.application.base import Application
from core.application.takers import PASS, Place, in_words, places
from core.command import parse_arguments, say, to_json
from core.errors import InputError, nearest
from core.layout.catalogue import Row, rows
from core.rewrite import PASSES, Pass

COMMAND = "manyformer blocks"
NOT_INSTALLED = "not installed"
LETTERS = "Costs: multiply-adds of a pass over N tokens of width D outside training; other words are options."


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Every block: what it is, can do and costs, and the tasks that take it."""

    name: tyro.conf.Positional[str | None] = None
    """Block to say everything about, as settings name it or as its class is called; all unless given."""
    family: str | None = None
    """Only this family: mixer, norm, feedforward, position or pass."""
    json: bool = False
    """Write JSON."""


@dataclass(frozen=True)
class Entry:
    """A block and what each application answers to it; None in place of the answers of what is not installed."""

    row: Row
    answers: Mapping[str, tuple[Place, ...] | None]

    @property
    def takers(self) -> list[str]:
        """The applications that take it, in words."""
        said = [in_words(name, found) for name, found in self.answers.items() if found is not None]
        return [words for words in said if words is not None]


def blocks(applications: Mapping[str, Application[Any, Any, Any] | None], argv: Sequence[str]) -> None:
    """Run the verb.

    Args:
        applications: by the names of their tasks; None for what is not installed.
        argv: the rest of the command line.

    Raises:
        InputError: there is no such block or family.
    """
    arguments = parse_arguments(Arguments, argv, prog=COMMAND)
    found = entries(applications, chosen(known(), arguments.name, arguments.family))
    if arguments.json:
        say(to_json([{**dataclasses.asdict(entry.row), "applications": entry.answers} for entry in found]))
    elif arguments.name is None:
        say("\n".join(_listed(found, applications)))
    else:
        say("\n\n".join("\n".join(_everything(entry)) for entry in found))
        say(f"\n{LETTERS}")


def known() -> tuple[Row, ...]:
    """Everything that the command lists: the blocks, and the passes that rewrite networks made of them."""
    return (*rows(), *map(_pass_row, PASSES.values()))


def _pass_row(each: Pass[Any]) -> Row:
    return Row(
        family=PASS,
        name=each.name,
        room="rewrite",
        block=type(each).__name__,
        line=f"{each.line[0].upper()}{each.line[1:]}.",
        capabilities=(each.status,),
        options={field.name: repr(field.default) for field in dataclasses.fields(each.options)},
        source=each.source,
        cost="",
    )


def entries(applications: Mapping[str, Application[Any, Any, Any] | None], wanted: Sequence[Row]) -> list[Entry]:
    """The wanted blocks with the answers of the applications."""
    everything = known()
    return [
        Entry(
            row,
            {
                name: None if application is None else places(application, row, everything)
                for name, application in applications.items()
            },
        )
        for row in wanted
    ]


def chosen(among: Sequence[Row], name: str | None, family: str | None) -> list[Row]:
    """The blocks of a name and a family, of which either may be left open; several families may have one of a name.

    Raises:
        InputError: none is left.

    >>> [row.family for row in chosen(known(), "identity", None)]
    ['mixer', 'norm']
    >>> chosen(known(), "sftmax", None)
    Traceback (most recent call last):
        ...
    core.errors.InputError: manyformer blocks: no block 'sftmax'; did you mean 'softmax'?
    """
    families = list(dict.fromkeys(row.family for row in among))
    if family is not None and family not in families:
        raise InputError(f"no family {family!r}", where=f"{COMMAND} --family", mend=nearest(family, families))
    within = [row for row in among if family in (None, row.family)]
    found = [row for row in within if name in (None, row.name, row.block)]
    if not found:
        elsewhere = [row.family for row in among if name in (row.name, row.block)]
        mend = f"it is a {elsewhere[0]}" if elsewhere else nearest(str(name), [row.name for row in within])
        raise InputError(f"no {family or 'block'} {name!r}", where=COMMAND, mend=mend)
    return found


def _listed(found: Sequence[Entry], applications: Iterable[str]) -> list[str]:
    """One line a block, grouped by family."""
    columns = ("block", "taken by", "can", "what it is")
    lines = []
    for family in dict.fromkeys(entry.row.family for entry in found):
        group = [entry for entry in found if entry.row.family == family]
        cells = [columns, *(_cells(entry) for entry in group)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(columns) - 1)]
        lines += [
            family,
            *(
                "  " + "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]])
                for line in cells
            ),
            "",
        ]
    missing = [name for name in applications if found and found[0].answers[name] is None]
    lines += [f"{name}: {NOT_INSTALLED}, not asked" for name in missing]
    return [*lines, f"{COMMAND} NAME says everything about one: options, source, cost, who refuses it and why."]


def _cells(entry: Entry) -> tuple[str, ...]:
    row = entry.row
    return row.name, ", ".join(entry.takers) or "-", ", ".join(row.capabilities) or "-", row.line


def _everything(entry: Entry) -> list[str]:
    row = entry.row
    facts = [
        ("class", f"core.{row.room}.{row.block}"),
        ("can", ", ".join(row.capabilities) or "-"),
        *(
            ("options" if index == 0 else "", f"{name}: {value}")
            for index, (name, value) in enumerate(row.options.items())
        ),
        ("source", row.source),
        ("cost", row.cost),
        *((name, said) for name, found in entry.answers.items() for said in _answers(row, found)),
    ]
    return [f"{row.family} {row.name}: {row.line}", *(f"  {name:<10} {said}" for name, said in facts)]


def _answers(row: Row, found: Sequence[Place] | None) -> list[str]:
    """What one application answers, a line a place."""
    if found is None:
        return [NOT_INSTALLED]
    if not found:
        return [f"has no place for a {row.family}"]
    return [_answer(place) for place in found]


def _answer(place: Place) -> str:
    if place.takes:
        return f"takes it as {place.field}"
    otherwise = f"; takes it with {place.beside}" if place.beside else ""
    reason = str(place.reason).removeprefix(f"{place.field}: ")
    return f"not as {place.field}: {reason}{otherwise}"
