"""``manyformer tabular info``: what a preset or a trained model is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.model import ExcelFormer
from apps.tabular.prediction.predictor import TASK, load_run
from apps.tabular.prediction.presets import PRESETS
from core.command import fact_lines, from_preset, measured, parse_arguments, rewritten, run, say, switches, to_json
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Parameters, multiply-adds, memory and blocks of a preset or of a trained model."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a finished run."""
    preset: str | None = None
    """Name of a preset, in place of a run."""
    features: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Encoded features of the table that a preset is described for."""
    outputs: Annotated[int, tyro.conf.arg(metavar="C")] = 1
    """Outputs that a preset is described for: 1, or the number of classes."""
    json: bool = False
    """Write JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer tabular info")
    if (arguments.run is None) == (arguments.preset is None):
        raise InputError("give a run or --preset, one of them", mend=f"presets: {', '.join(PRESETS)}")
    facts = _of_run(arguments.run) if arguments.run is not None else _of_preset(arguments)
    say(to_json(facts) if arguments.json else fact_lines(facts))


def _of_run(path: Path) -> dict[str, Any]:
    predictor = load_run(path)
    facts = describe(predictor.members[0].float(), predictor.config, preset=None)
    facts = {**facts, "members": len(predictor.members), "target": predictor.schema.target, "run": str(path)}
    return {**facts, **rewritten(predictor.rewrites[0])}


def _of_preset(arguments: Arguments) -> dict[str, Any]:
    for option, value in (("--features", arguments.features), ("--outputs", arguments.outputs)):
        if value < 1:
            raise InputError(f"must be at least 1, got {value}", where=option)
    config = from_preset(PRESETS, arguments.preset or "")
    cardinalities = [0] * arguments.features
    model = ExcelFormer(arguments.features, arguments.outputs, config.model, cardinalities=cardinalities)
    return describe(model, config, preset=arguments.preset)


def describe(model: ExcelFormer, config: TabularConfig, *, preset: str | None) -> dict[str, Any]:
    """Facts of one network at an input of one row."""
    features = len(model.importance)
    row = torch.zeros(1, features), torch.zeros(1, features, dtype=torch.int64)
    return {
        "task": TASK,
        "model": "excelformer",
        "preset": preset,
        **measured(model, lambda network: network(*row)),
        "input": {"rows": 1, "features": features},
        "members": config.members,
        "blocks": [str(line) for line in model.stack.describe()],
        "switches": switches(config.model),
        "optimiser": config.optim.kind,
    }


if __name__ == "__main__":
    raise SystemExit(main())
