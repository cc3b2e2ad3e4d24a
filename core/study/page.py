"""The page of a study: the question, the answer, the pictures, the tables, how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.study.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """What the page says besides what the analysis holds.

    Attributes:
        question: what was asked, one sentence.
        task, model: as in the ``manyformer`` command, and the network's name.
        split: the split that was scored.
        measured: how it was measured, in words, in the order of the page: such as ``{"Budget": "3 minutes a run",
            "Data": "bundled:digits", "Digest": "…", "Machine": "…", "Threads": "1", "Commit": "…"}``.
        command: what made the page, for the last line.
    """

    question: str
    task: str
    model: str
    split: str
    measured: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def write_page(analysis: Analysis, facts: PageFacts, path: Path | str) -> Path:
    """Writes one self-contained HTML file, whole or not at all, and returns its path.

    Raises:
        InputError: it cannot be written there.
    """
    raise NotImplementedError
