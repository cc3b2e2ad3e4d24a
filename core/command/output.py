"""What commands say to a person and to a program, and what a program reads back."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import InputError


def say(text: str) -> None:
    """Writes a line to standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Writes a line to standard error: for a person, beside results that a program may read.

    >>> note("")
    """
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def counted(what: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, all) that draws a bar on standard error where that is a terminal, and none elsewhere.

    >>> with counted("reading") as told:
    ...     told(1, 2)
    """
    if not shown or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def to_json(value: Any, *, lines: bool = True) -> str:
    """JSON of results: indented, keys in the order given, nan and infinities as ``null`` (JSON has no word for them).

    Takes dataclasses, paths, and the scalars and arrays of numpy and torch too. Without ``lines`` it is one line.

    >>> print(to_json({"n": 3, "auc": float("nan")}))
    {
      "n": 3,
      "auc": null
    }
    """
    return json.dumps(_plain(value), indent=2 if lines else None, ensure_ascii=False, allow_nan=False)


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file of a run.

    Raises:
        InputError: the file is missing or holds something else.
    """
    where = str(path)
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=where) from error
    except (ValueError, RecursionError) as error:
        raise InputError("is not JSON", where=where, mend="the file is damaged") from error
    if not isinstance(facts, dict):
        raise InputError("holds no JSON object", where=where, mend="the file is damaged")
    return facts


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")
