"""``manyformer asr train``: from recordings with transcripts to a saved recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.asr.application import APPLICATION, Source
from core.application import train
from core.command import TrainArguments, run


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainArguments, Source):
    """Train a recogniser and save it. The same command again resumes a run that was cut."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(lambda words: train(APPLICATION, Arguments, words), argv)


if __name__ == "__main__":
    raise SystemExit(main())
