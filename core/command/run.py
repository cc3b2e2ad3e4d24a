"""From an exception to one line and an exit status.

======  ===================================================================================
status  meaning
======  ===================================================================================
0       done
1       a mistake of ours: the traceback is printed
2       wrong input or arguments, or a machine that lacks room: one line; ``--debug`` for the traceback
130     interrupted (Ctrl-C, SIGTERM), after saving what there is
141     the reader of our output went away
======  ===================================================================================
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from core.errors import InputError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run(function: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Calls a verb and returns its exit status; never raises. Ends the process where no orderly end is possible.

    Args:
        function: takes the arguments (without ``--debug``); returns a status, None for 0.
        argv: the arguments; those of the process unless given.

    >>> run(lambda argv: None, [])
    0
    """
    status = _status_of(function, argv)
    group = sys.modules.get("core.training.group")
    if group is not None and group.is_left():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(status)
    return status


def _status_of(function: Callable[[list[str]], int | None], argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        with _terminable():
            status = function([word for word in words if word != "--debug"])
        # Here, where a reader that went away can still be answered.
        sys.stdout.flush()
        return status or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return _end("interrupted", 130, debug)
    except BrokenPipeError:
        # Python flushes standard output once more when it leaves; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if isinstance(error, _interrupted()):
            saved = getattr(error, "directory", None) is not None
            return _end(f"{error}; the same command goes on from there" if saved else str(error), 130, debug)
        line = _line(error)
        if line is None:
            traceback.print_exc()
            return 1
        return _end(f"error: {line}", 2, debug)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM leaves as Ctrl-C does, so that what is half done is cleared away; where nobody else handles it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def require(module: str, extra: str) -> ModuleType:
    """Imports a module that an extra installs.

    Raises:
        InputError: it is not installed; the line names the extra.

    >>> require("json", "tabular").__name__
    'json'
    >>> require("no_such_module", "tabular")
    Traceback (most recent call last):
        ...
    core.errors.InputError: no_such_module is not installed; pip install "manyformer[tabular]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(f"{error.name} is not installed", mend=f'pip install "manyformer[{extra}]"') from error


def _interrupted() -> Any:
    """What training raises after saving on a signal; never imported here: what was not imported was not raised."""
    return getattr(sys.modules.get("core.training"), "Interrupted", ())


def _line(error: Exception) -> str | None:
    """The line for an error that is not ours; None for one that is."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}no room to write ({error.strerror}); free some space or choose another folder"
    # torch has no MemoryError: its allocators raise RuntimeError.
    text = str(error).lower()
    starved = isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    if starved or isinstance(error, MemoryError):
        return "not enough memory; use smaller batches or a smaller preset"
    return None


def _end(line: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(line + "\n")
    return status
