"""Which applications take a block: asked of the application itself, by building its network with the block named.

A field of ``config.model`` is a place for a family when its name is the family's or ends in it (``norm``,
``conv_norm``). The first preset is changed in that field alone; where its network is refused, one other setting at a
time is tried, so that what a refusal depends on is found too. No list says what fits.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from core.application.base import Application
from core.errors import InputError
from core.layout.catalogue import Row
from core.rewrite import PASSES, Evidence

PASS = "pass"
"""The family of what rewrites a network, whose place is the network itself."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What an application answers to a block in one of its places.

    Attributes:
        field: ``model.norm``, say.
        takes: the first preset takes it there.
        beside: another setting that it needs, with every value of it that will do: ``model.mask=full``.
        reason: why the first preset does not take it.
    """

    field: str
    takes: bool
    beside: str | None = None
    reason: str | None = None


def places(application: Application[Any, Any, Any], row: Row, rows: Sequence[Row]) -> tuple[Place, ...]:
    """What the application answers to a block, in each of its places for the family; none where it has no place.

    Args:
        application: asked.
        row: the block.
        rows: all blocks: the other settings that are tried include their names.
    """
    config = next(iter(application.presets.values()))()
    settings = _settings(getattr(config, "model", None), rows)
    if row.family == PASS:
        return (_network(application, config, row.name, settings),)
    found = []
    for field in settings:
        if not _holds(field, row.family):
            continue
        reason = _refusal(application, config, {field: row.name})
        beside = None
        if reason is not None:
            others = {other: values for other, values in settings.items() if other != field}
            beside = next(_ways(application, config, {field: row.name}, others), None)
        found.append(Place(field=f"model.{field}", takes=reason is None, beside=beside, reason=reason))
    return tuple(found)


def _network(
    application: Application[Any, Any, Any], config: Any, name: str, settings: Mapping[str, tuple[Any, ...]]
) -> Place:
    """What becomes of the application's network when a pass is to rewrite it."""
    reason = _refusal(application, config, {}, name)
    beside = None if reason is None else next(_ways(application, config, {}, settings, name), None)
    return Place(field="network", takes=reason is None, beside=beside, reason=reason)


def in_words(name: str, answers: Sequence[Place]) -> str | None:
    """The application with what has to be said about its places; None where it does not take the block.

    >>> in_words("asr", [Place(field="model.norm", takes=True), Place(field="model.conv_norm", takes=False)])
    'asr (model.norm)'
    >>> in_words("tabular", [Place(field="model.norm", takes=False, beside="model.mask=full")])
    'tabular with model.mask=full'
    """
    able = [place.field for place in answers if place.takes]
    if able:
        return name if len(able) == len(answers) else f"{name} ({', '.join(able)})"
    return next((f"{name} with {place.beside}" for place in answers if place.beside), None)


def _holds(field: str, family: str) -> bool:
    return field == family or field.endswith(f"_{family}")


def _settings(model: Any, rows: Sequence[Row]) -> dict[str, tuple[Any, ...]]:
    """The fields that choose between ways, with all their choices."""
    if model is None:
        return {}
    hints = typing.get_type_hints(type(model))
    found: dict[str, tuple[Any, ...]] = {}
    for field in dataclasses.fields(model):
        kind, names = hints[field.name], tuple(row.name for row in rows if _holds(field.name, row.family))
        if names:
            found[field.name] = names
        elif typing.get_origin(kind) is Literal:
            found[field.name] = typing.get_args(kind)
        elif kind is bool:
            found[field.name] = (True, False)
    return found


def _ways(
    application: Application[Any, Any, Any],
    config: Any,
    changes: Mapping[str, Any],
    others: Mapping[str, Sequence[Any]],
    rewrite: str | None = None,
) -> Iterator[str]:
    """Each other setting that lets the changes, or the pass, in, with all its values that do."""
    for field, values in others.items():
        able = [value for value in values if _refusal(application, config, {**changes, field: value}, rewrite) is None]
        if able:
            yield f"model.{field}={','.join(map(str, able))}"


def _refusal(
    application: Application[Any, Any, Any], config: Any, changes: Mapping[str, Any], rewrite: str | None = None
) -> str | None:
    """Why there is no network with the changes, or why the pass does not fit it; None if there is and it does."""
    try:
        model = dataclasses.replace(config.model, **changes)
        network = _prototype(application, dataclasses.replace(config, model=model))
        if rewrite is not None:
            chosen = PASSES[rewrite]
            chosen.decide(network, chosen.options(), Evidence(cost=lambda _: 0.0))
    except InputError as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=128)
def _prototype(application: Application[Any, Any, Any], config: Any) -> nn.Module:
    """Every pass is asked about the same networks: each is built once."""
    return application.prototype(config).eval()
