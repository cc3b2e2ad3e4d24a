"""The one error a user is meant to read: what is wrong, where, and how to mend it.

Everything a person can get wrong (arguments, files, columns, a foreign checkpoint) ends in an :class:`InputError`. The
command line prints its single line and exits with status 2; a program that imports us catches ``ValueError``. Mistakes
of our own stay ordinary exceptions and keep their traceback.
"""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """Wrong input, said in one line.

    Args:
        what: what is wrong, in plain words.
        where: the file, row, column, field or block concerned, when there is one.
        mend: what the reader can do about it.

    >>> print(InputError("the column 'age' is missing", where="new.csv", mend="add it, or train without it"))
    new.csv: the column 'age' is missing; add it, or train without it
    """

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        line = (f"{where}: " if where else "") + what + (f"; {mend}" if mend else "")
        super().__init__(" ".join(line.split()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.where, self.mend)


def _rebuild(kind: type[InputError], what: str, where: str | None, mend: str | None) -> InputError:
    return kind(what, where=where, mend=mend)


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Words that offer the known name closest to ``name``, or list the known ones: the tail of a "no such name" error.

    >>> nearest("layrnorm", ["layernorm", "rmsnorm"])
    "did you mean 'layernorm'?"
    """
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
