"""Configs as plain data and back: frozen dataclasses <-> nested dicts <-> YAML files, strictly.

A config holds numbers, words, bools, None, ``Literal``, tuples, lists, dicts with text keys, and other configs. What is
unknown, missing, or of another type is refused with the path of the field: a misspelt field must never be a silent
default. An int stands for a float; nothing else is converted. What was stored before a field was added is read with the
field's default, which is said.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from core.command import yaml12
from core.command.output import note
from core.errors import InputError, nearest

C = TypeVar("C")
_MAX_YAML_BYTES = 2**20


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config as nested dicts and lists, which JSON and YAML can hold.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Size:
    ...     width: int = 32
    ...     layers: tuple[int, ...] = (1, 2)
    >>> config_to_dict(Size())
    {'width': 32, 'layers': [1, 2]}
    """
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def config_from_dict(cls: type[C], data: Any, *, where: str = "config", base: C | None = None) -> C:
    """The config that ``config_to_dict`` wrote.

    Args:
        cls: the dataclass.
        data: nested dicts and lists.
        where: what the data came from, to begin error lines with.
        base: a config that gives the fields which ``data`` leaves out; without it each field must be there.

    Raises:
        InputError: an unknown, missing or wrong field, named by its path; also what a ``__post_init__`` raises.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Size:
    ...     width: int = 32
    >>> config_from_dict(Size, {"width": 64})
    Size(width=64)
    >>> config_from_dict(Size, {"widht": 64})
    Traceback (most recent call last):
        ...
    core.errors.InputError: config: 'widht' is not a field; did you mean 'width'?
    """
    return typing.cast(C, _record(cls, data, _At(where), base))


def read_config(cls: type[C], path: str | os.PathLike[str], *, base: C | None = None) -> C:
    """The config in a YAML file, laid over ``base`` when that is given.

    Raises:
        InputError: the file cannot be read, is not YAML, or a field is unknown, missing or wrong.
    """
    data = read_yaml(path)
    return config_from_dict(cls, {} if data is None else data, where=str(path), base=base)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The plain data in a small YAML file.

    Raises:
        InputError: the file cannot be read, or is not YAML.
    """
    where = str(path)
    try:
        if os.path.getsize(path) > _MAX_YAML_BYTES:
            raise InputError("is too large for a config", where=where)
        return yaml12.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=where) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"is not YAML ({' '.join(str(error).split())[:160]})", where=where) from error


def stored_config(cls: type[C], data: Any, *, where: str) -> C:
    """The config that this program, or an earlier version of it, wrote; says on standard error which fields are newer.

    Args:
        cls: the dataclass.
        data: nested dicts and lists.
        where: what holds them, to begin lines with.

    Raises:
        InputError: an unknown or wrong field, or a missing one without a default.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Size:
    ...     width: int = 32
    ...     depth: int = 2
    >>> stored_config(Size, {"width": 64}, where="run")
    Size(width=64, depth=2)
    """
    config, lacking = with_defaults(cls, data, where=where)
    if lacking:
        note(f"{where}: was written before there was {', '.join(lacking)}; read with the default")
    return config


def with_defaults(cls: type[C], data: Any, *, where: str) -> tuple[C, tuple[str, ...]]:
    """As :func:`stored_config`, with the paths of the fields that the data lack, and without a word."""
    at = _At(where, lacking=[])
    config = typing.cast(C, _record(cls, data, at))
    return config, tuple(at.lacking or ())


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The paths at which two plain values differ, in the order of ``old``.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4})
    ['b.c', 'd']
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        missing = object()
        return [
            path
            for name in names
            for path in differences(old.get(name, missing), new.get(name, missing), f"{prefix}{name}.")
        ]
    same = type(old) is type(new) and (old == new or (old != old and new != new))
    return [] if same else [prefix.rstrip(".")]


def field_paths(cls: type[Any], prefix: str = "") -> list[str]:
    """The dotted paths of all fields of a config, nested ones included."""
    hints = typing.get_type_hints(cls)
    paths: list[str] = []
    for field in dataclasses.fields(cls):
        paths.append(prefix + field.name)
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                paths += field_paths(kind, f"{prefix}{field.name}.")
    return paths


# ------------------------------------------------------------------------------------------- types, one by one


@dataclasses.dataclass(frozen=True)
class _At:
    """A place in the data, for error lines; ``lacking`` gathers what is filled with defaults, where that is wanted."""

    where: str
    path: str = ""
    lacking: list[str] | None = None

    def __truediv__(self, name: object) -> _At:
        return dataclasses.replace(self, path=f"{self.path}.{name}" if self.path else str(name))

    def error(self, what: str, mend: str | None = None) -> InputError:
        return InputError(what, where=f"{self.where}: {self.path}" if self.path else self.where, mend=mend)

    def wrong(self, expected: str, value: Any) -> InputError:
        return self.error(f"expected {expected}, got {value!r}"[:200])


def _record(cls: type[Any], data: Any, at: _At, base: Any = None) -> Any:
    if not isinstance(data, Mapping):
        raise at.wrong("a group of fields", data)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    names = [*fields]
    for name in data:
        if name not in names:
            raise at.error(f"{name!r} is not a field", nearest(str(name), names))
    values: dict[str, Any] = {}
    for name in names:
        held = getattr(base, name, None)
        if name in data:
            values[name] = _value(hints[name], data[name], at / name, held)
        elif base is not None:
            values[name] = held
        elif at.lacking is not None and _has_default(fields[name]):
            at.lacking.append((at / name).path)
        else:
            raise (at / name).error("is missing")
    return cls(**values)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _value(kind: Any, data: Any, at: _At, held: Any = None) -> Any:
    if kind is Any or kind is object:
        return data
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _record(kind, data, at, held if isinstance(held, kind) else None)
    origin = typing.get_origin(kind) or kind
    reader = _READERS.get(origin)
    if reader is None:
        raise TypeError(f"{at.path}: a config cannot hold {kind}")
    return reader(kind, data, at, held)


def _scalar(kind: Any, data: Any, at: _At, _: Any) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise at.wrong({int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind], data)
    return data


def _nothing(_: Any, data: Any, at: _At, __: Any) -> None:
    if data is not None:
        raise at.wrong("nothing", data)


def _literal(kind: Any, data: Any, at: _At, _: Any) -> Any:
    choices = typing.get_args(kind)
    if not any(type(data) is type(choice) and data == choice for choice in choices):
        mend = nearest(str(data), [str(choice) for choice in choices])
        raise at.error(f"{data!r} is not one of the choices", mend)
    return data


def _union(kind: Any, data: Any, at: _At, held: Any) -> Any:
    """The first member that takes the data; a group of fields goes to the record whose fields it names."""
    members = typing.get_args(kind)
    records = [member for member in members if dataclasses.is_dataclass(member)]
    if isinstance(data, Mapping) and records:
        known = [record for record in records if set(data) <= {field.name for field in dataclasses.fields(record)}]
        return _value((known or records)[0], data, at, held)
    errors, lacked = [], len(at.lacking or ())
    for member in members:
        try:
            return _value(member, data, at, held)
        except InputError as error:
            errors.append(error)
            if at.lacking is not None:
                del at.lacking[lacked:]
    raise next((error for error in errors if "nothing" not in error.what), errors[0])


def _sequence(kind: Any, data: Any, at: _At, _: Any) -> Any:
    if not isinstance(data, list | tuple):
        raise at.wrong("a list", data)
    make, members = typing.get_origin(kind), typing.get_args(kind)
    if make is tuple and members[-1] is not Ellipsis:
        if len(data) != len(members):
            raise at.wrong(f"{len(members)} values", data)
    else:
        members = (members[0],) * len(data)
    values = [_value(member, item, at / i) for i, (member, item) in enumerate(zip(members, data, strict=True))]
    return tuple(values) if make in (tuple, Sequence) or make.__module__ == "collections.abc" else values


def _mapping(kind: Any, data: Any, at: _At, _: Any) -> Any:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise at.wrong("a group of named values", data)
    return {key: _value(typing.get_args(kind)[1], item, at / key) for key, item in data.items()}


_READERS: dict[Any, Callable[[Any, Any, _At, Any], Any]] = {
    int: _scalar,
    float: _scalar,
    str: _scalar,
    bool: _scalar,
    types.NoneType: _nothing,
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
    list: _sequence,
    tuple: _sequence,
    Sequence: _sequence,
    dict: _mapping,
    Mapping: _mapping,
}
