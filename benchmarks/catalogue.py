"""The table of a room's blocks for its page: what ``manyformer blocks`` says, as Markdown."""

from __future__ import annotations

import functools
import re

from apps import cli
from core.application.blocks import Entry, entries, known
from core.layout.catalogue import NEEDED

COLUMNS = ("name", "what it is", "options (default)", "can", "cost", "source", "taken by")


@functools.cache
def table(room: str) -> str:
    """The blocks of a room of ``core``, one a line.

    Raises:
        ValueError: there is no such room, or an application that should be asked is not installed.
    """
    wanted = [row for row in known() if row.room == room]
    if not wanted:
        raise ValueError(f"no room {room!r} of blocks; known: {', '.join({row.room: None for row in known()})}")
    applications = cli.applications()
    absent = [name for name, application in applications.items() if application is None]
    if absent:
        raise ValueError(f"{', '.join(absent)}: not installed, cannot say which blocks it takes")
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, entries(applications, wanted))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(entry: Entry) -> tuple[str, ...]:
    row = entry.row
    options = (f"`{name}`" + ("" if value == NEEDED else f" ({value})") for name, value in row.options.items())
    cells = (
        f"`{row.name}` ({row.block})",
        row.line.replace("``", "`"),
        ", ".join(options),
        ", ".join(row.capabilities),
        row.cost.replace("^2", "²"),
        re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", row.source),
        "; ".join(re.sub(r"model\.\S+\b", r"`\g<0>`", words) for words in entry.takers),
    )
    return tuple(cell.replace("|", "\\|") or "-" for cell in cells)
