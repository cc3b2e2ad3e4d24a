"""Which code a contender's cost depends on: so that a change to one block leaves the rows of the others valid.

The files that define a block, and whatever those import from this project, name by name: a package that only hands a
name on is not followed as a whole.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks.blocks.points import CAUSAL, Family, mixers, plain_of
from benchmarks.common.record import ROOT, source_digest
from core.feedforward import FEEDFORWARDS
from core.norm import NORMS

#: How everything is measured.
METHOD = ("benchmarks/blocks/calls.py", *(f"benchmarks/common/{name}.py" for name in ("measure", "memory", "rounds")))


@cache
def digest(family: Family, contender: str) -> str:
    """Names the code of a contender, of the plain one that it is held against, and of the measurement."""
    files = {file for name in (contender, plain_of(family, contender)) for file in behind(module_of(family, name))}
    return source_digest(*METHOD, *sorted(file.relative_to(ROOT).as_posix() for file in files))


def module_of(family: Family, contender: str) -> str:
    """The module that defines a contender's block."""
    if family == "mixer":
        return mixers()[contender.removesuffix(CAUSAL)].__module__
    if family == "packed":
        return mixers()[contender.split()[0]].__module__
    if family == "feedforward":
        return FEEDFORWARDS[contender].__module__
    # A linear map alone is torch's; what it is held against stands in the other rows.
    return NORMS["identity" if contender == "linear" else contender.split()[0]].__module__


def behind(module: str) -> set[Path]:
    """The files of a module and of all that it imports from ``core``.

    >>> names = {path.name for path in behind("core.convolution.separable")}
    >>> "base.py" in names, "nala.py" in names
    (True, False)
    """
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(name)
    return {_file(name) for name in found}


def _file(module: str) -> Path:
    return Path(str(import_module(module).__file__)).resolve()


def _imported(module: str) -> Iterator[str]:
    """The modules that define what a module imports by name."""
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "core":
            source = import_module(node.module)
            for alias in node.names:
                thing = getattr(source, alias.name)
                owner = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
                yield owner if owner in sys.modules and str(owner).startswith("core.") else node.module
