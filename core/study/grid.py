"""What varies: ``--vary FIELD=V1,V2`` -> the fields with their values -> the arms of a study.

A value is read as it would be in a config file, so that what a config refuses is refused here in the same words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from core.command import config_from_dict, config_to_dict, yaml12
from core.command.config import field_paths
from core.errors import InputError, nearest
from core.study.records import Arm

C = TypeVar("C")
_WHERE = "--vary"


@dataclass(frozen=True, kw_only=True)
class Varied:
    """A field of the config and the values that it takes; the first is the baseline's.

    Attributes:
        field: dotted path.
        values: plain data, each once.
    """

    field: str
    values: tuple[Any, ...]


DATA_SHARE = "data.share"
"""What an arm can differ in besides the config: the share of the training split that it learns from."""


@dataclass(frozen=True, kw_only=True)
class _Data:
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"must lie above 0 and be at most 1, got {self.share}", where=DATA_SHARE)


@dataclass(frozen=True, kw_only=True)
class _Outside:
    data: _Data = field(default_factory=_Data)


def parse_arms(text: str, base: Any) -> Varied:
    """As :func:`parse_varied`, for what a comparison can vary: fields of the config, and ``data.share``.

    >>> parse_arms("data.share=1,0.5", None)
    Varied(field='data.share', values=(1.0, 0.5))
    """
    return parse_varied(text, _Outside() if text.partition("=")[0].strip() == DATA_SHARE else base)


def settings_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that are the config's."""
    return {path: value for path, value in changes.items() if path != DATA_SHARE}


def parse_varied(text: str, base: Any, *, where: str = _WHERE) -> Varied:
    """The field and the values of ``FIELD=V1,V2``, each of the field's type; ``none`` where a field may have no value.

    Args:
        text: values in YAML's flow style, without the outer brackets.
        base: a config whose other fields stay as they are.
        where: the option, to begin error lines with.

    Raises:
        InputError: no such field, no value, one of another type, or one twice.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Config:
    ...     lr: float = 1e-3
    ...     kernel: int | None = None
    ...     betas: tuple[float, float] = (0.9, 0.999)
    >>> parse_varied("lr=1e-3,3e-4", Config())
    Varied(field='lr', values=(0.001, 0.0003))
    >>> parse_varied("kernel=none,7", Config()).values
    (None, 7)
    >>> parse_varied("betas=[0.9,0.999],[0.9,0.95]", Config()).values
    ([0.9, 0.999], [0.9, 0.95])
    """
    path, equals, rest = text.partition("=")
    path = path.strip().replace("-", "_")
    if not equals:
        raise InputError(f"{text!r} does not say which values", where=where, mend="write FIELD=VALUE,VALUE")
    _leaf(path, type(base), where)
    values = tuple(_value(base, path, value, where) for value in _items(rest, f"{where}: {path}"))
    if not values:
        raise InputError("no value is named", where=f"{where}: {path}", mend="write FIELD=VALUE,VALUE")
    twice = next((value for i, value in enumerate(values) if value in values[:i]), _NONE_TWICE)
    if twice is not _NONE_TWICE:
        raise InputError(f"the value {shown(twice)} is named twice", where=f"{where}: {path}")
    return Varied(field=path, values=values)


_NONE_TWICE = object()


def _leaf(path: str, config: type[Any], where: str) -> None:
    paths = field_paths(config)
    inner = [known for known in paths if known.startswith(path + ".")]
    if path in paths and not inner:
        return
    if path in paths:
        raise InputError("is a group of fields", where=f"{where}: {path}", mend=f"vary one of them: {inner[0]}, …")
    leaves = [known for known in paths if not any(other.startswith(known + ".") for other in paths)]
    raise InputError(f"{path!r} is not a field", where=where, mend=_near(path, leaves))


def _near(path: str, leaves: list[str]) -> str:
    """The nearest field, by its last name too: ``norm`` is meant for ``model.norm``."""
    same = [leaf for leaf in leaves if leaf.rpartition(".")[2] == path.rpartition(".")[2]]
    return f"did you mean {same[0]!r}?" if same else nearest(path, leaves)


def _items(text: str, where: str) -> list[Any]:
    try:
        items = yaml12.load(f"[{text}]")
    except yaml.YAMLError as error:
        mend = "write VALUE,VALUE; a list in brackets, a word with a comma in quotes"
        raise InputError(f"{text!r} is no list of values", where=where, mend=mend) from error
    return list(items)


def _value(base: Any, path: str, value: Any, where: str) -> Any:
    """The value in plain data, as the field holds it: 1 becomes 1.0 where a number is expected."""
    if isinstance(value, str) and value.lower() == "none" and _admits_none(base, path):
        value = None
    return get(config_to_dict(changed(base, {path: value}, where=where)), path)


def _admits_none(base: Any, path: str) -> bool:
    try:
        return get(config_to_dict(changed(base, {path: None})), path) is None
    except InputError:
        return False


def changed(base: C, changes: Mapping[str, Any], *, where: str = "config") -> C:
    """The config with other values at some paths.

    Raises:
        InputError: a value that the field, or the config as a whole, does not take.
    """
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        *groups, last = path.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return config_from_dict(type(base), nested, where=where, base=base)


def get(plain: Mapping[str, Any], path: str) -> Any:
    """The value at a path of a config in plain data."""
    place: Any = plain
    for name in path.split("."):
        place = place[name]
    return place


def make_arms(varied: Sequence[Varied], *, one_at_a_time: bool = False) -> tuple[Arm, ...]:
    """The arms, the baseline first: every combination, or the baseline and what differs from it in one field.

    >>> varied = [Varied(field="norm", values=("layernorm", "rmsnorm")), Varied(field="lr", values=(0.1, 0.2))]
    >>> [arm.name for arm in make_arms(varied, one_at_a_time=True)]
    ['norm=layernorm, lr=0.1', 'norm=rmsnorm', 'lr=0.2']
    >>> len(make_arms(varied))
    4
    """
    if one_at_a_time:
        baseline = {each.field: each.values[0] for each in varied}
        changes = [{each.field: value} for each in varied for value in each.values[1:]]
        return _arm(baseline), *(Arm(name=_name(change), changes=baseline | change) for change in changes)
    fields = [each.field for each in varied]
    combinations = itertools.product(*(each.values for each in varied))
    return tuple(_arm(dict(zip(fields, values, strict=True))) for values in combinations)


def _arm(changes: Mapping[str, Any]) -> Arm:
    return Arm(name=_name(changes), changes=changes)


def _name(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{field}={shown(value)}" for field, value in changes.items())


def shown(value: Any) -> str:
    """A value as a person writes it.

    >>> [shown(value) for value in (None, True, 0.0003, "rmsnorm", [0.9, 0.95])]
    ['none', 'true', '0.0003', 'rmsnorm', '[0.9, 0.95]']
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def key_of(arm: Arm) -> str:
    """A name for files: the values, and a digest of the fields with the values.

    >>> key_of(_arm({"model.norm": "rmsnorm", "optim.lr": 3e-4}))
    'rmsnorm-0.0003-064e5565'
    """
    canonical = json.dumps(dict(sorted(arm.changes.items())), sort_keys=True)
    words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", shown(value)).strip("_.") for value in arm.changes.values())
    return f"{words[:60]}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def check_varied(varied: Sequence[Varied], fixed: Sequence[str], *, budgeted: bool) -> None:
    """Refuses what would make the arms something else than what they are called.

    Args:
        varied: as parsed.
        fixed: paths of the fields that the command line sets.
        budgeted: minutes decide how many epochs a run has.

    Raises:
        InputError: nothing varies, a field twice, one that is also set, or one that the study itself decides.
    """
    names = [each.field for each in varied]
    if not names:
        raise InputError("nothing varies", where=_WHERE, mend="name a field: --vary model.norm=layernorm,rmsnorm")
    check_fields(names, fixed, budgeted=budgeted, where=_WHERE)
    if all(len(each.values) == 1 for each in varied):
        raise InputError("there is one value only", where=f"{_WHERE}: {names[0]}", mend="name another to compare with")


def check_fields(names: Sequence[str], fixed: Sequence[str], *, budgeted: bool, where: str) -> None:
    """Refuses fields that cannot vary; arguments and errors as in :func:`check_varied`, ``where`` is the option."""
    option = where
    for i, name in enumerate(names):
        where = f"{option}: {name}"
        if name in names[:i]:
            raise InputError("varies twice", where=where, mend=f"name all its values in one {option}")
        if name in fixed:
            raise InputError(f"is also set by --{name}", where=where, mend="leave that out")
        if name in ("seed", "fit.seed"):
            raise InputError("the seeds are no settings", where=where, mend="say how many with --seeds")
        if name == "fit.max_minutes":
            raise InputError("a run must not depend on the clock", where=where, mend="vary fit.max_epochs")
        if budgeted and name in DECIDED:
            raise InputError("is decided by --minutes-per-run", where=where, mend="leave one of them out")


DECIDED = ("fit.max_epochs", "fit.patience", "fit.max_minutes")
"""Fields that a budget of minutes decides."""


def fixed_fields(argv: Sequence[str], config: type[Any]) -> list[str]:
    """The fields of a config that a command line sets.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Config:
    ...     weight_decay: float = 0.1
    ...     bias: bool = True
    >>> fixed_fields(["--weight-decay", "0.2", "--no-bias", "--out", "bias"], Config)
    ['weight_decay', 'bias']
    """
    found = []
    for word in argv:
        if not word.startswith("--"):
            continue
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        stem, dot, last = name.rpartition(".")
        found += [name, f"{stem}{dot}{last.removeprefix('no_')}"]
    paths = field_paths(config)
    return [path for path in dict.fromkeys(found) if path in paths]


def plain_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass of arguments as plain data."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
