"""``manyformer segmentation train``: from labelled images of a source and images of a target to a saved segmentor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.vision.segmentation.application import APPLICATION
from apps.vision.segmentation.data.sources import Source
from core.application import train
from core.command import TrainArguments, run


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainArguments, Source):
    """Train a segmentor for the target and save it. The same command again resumes a run that was cut."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(lambda words: train(APPLICATION, Arguments, words), argv)


if __name__ == "__main__":
    raise SystemExit(main())
