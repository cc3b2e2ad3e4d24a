"""``manyformer asr info``: what a preset or a trained recogniser is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from apps.asr.config import AsrConfig
from apps.asr.features import SAMPLE_RATE, LogMel
from apps.asr.model import Squeezeformer
from apps.asr.presets import PRESETS
from apps.asr.recogniser import TASK, load_run
from core.command import fact_lines, from_preset, measured, parse_arguments, rewritten, run, say, switches, to_json
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Parameters, multiply-adds, memory and blocks of a preset or of a trained recogniser."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a finished run."""
    preset: str | None = None
    """Name of a preset, in place of a run."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 30.0
    """Length of the recording whose multiply-adds are counted."""
    outputs: Annotated[int, tyro.conf.arg(metavar="V")] = 128
    """Outputs, with the blank, that a preset is described for."""
    json: bool = False
    """Write JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer asr info")
    if (arguments.run is None) == (arguments.preset is None):
        raise InputError("give a run or --preset, one of them", mend=f"presets: {', '.join(PRESETS)}")
    if not 0.1 <= arguments.seconds <= 3600:
        raise InputError(f"{arguments.seconds:g} is not between 0.1 and 3600", where="--seconds")
    if arguments.run is not None:
        recogniser = load_run(arguments.run)
        facts = describe(recogniser.model, recogniser.config, arguments.seconds)
        facts = {**facts, "tokenizer": recogniser.config.tokenizer.kind, "run": str(arguments.run)}
        facts |= rewritten(recogniser.rewrites[0])
    else:
        config = from_preset(PRESETS, arguments.preset or "")
        model = Squeezeformer(config.features.n_mels, arguments.outputs, config.model)
        facts = describe(model, config, arguments.seconds, preset=arguments.preset)
    say(to_json(facts) if arguments.json else fact_lines(facts))


def describe(model: Squeezeformer, config: AsrConfig, seconds: float, *, preset: str | None = None) -> dict[str, Any]:
    """Facts of one network for a recording of so many seconds, its features already there."""
    frames = LogMel(config.features).frames(round(seconds * SAMPLE_RATE))
    features, lengths = torch.zeros(1, frames, model.bins), torch.tensor([frames])
    return {
        "task": TASK,
        "model": "squeezeformer",
        "preset": preset,
        **measured(model, lambda network: network(features, lengths)),
        "input": {"seconds": seconds, "frames": frames, "bins": model.bins},
        "outputs": model.outputs,
        "blocks": list(model.describe()),
        "switches": switches(config.model),
        "optimiser": config.optim.kind,
    }


if __name__ == "__main__":
    raise SystemExit(main())
