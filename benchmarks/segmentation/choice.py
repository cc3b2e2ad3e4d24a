"""Which epoch to keep without a label of the target: the rules over all runs of a study, against the labels.

    manyformer compare segmentation --vary adaptation.kind=none,adapt --show-target --keep-runs --out STUDY ...
    python -m benchmarks.segmentation.choice STUDY --out results/segmentation/choice.json

Nothing is trained here: of each run that was kept, every rule picks an epoch as training would have
(:mod:`apps.vision.segmentation.choice`). Means are over the runs of an arm, with Student's t interval; what a rule has
over ``last`` is taken run by run. The target's mIoU is of its ``valid`` images, and so is the best epoch, whose number
is the greatest of many and too good by chance: regrets are too great rather than too small.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from apps.vision.segmentation.choice import LAST, Choice, choice_of
from apps.vision.segmentation.config import SegmentationConfig
from apps.vision.segmentation.segmenter import TASK
from benchmarks.common.record import write_json
from benchmarks.common.table import markdown, write_text
from benchmarks.comparisons import provenance_of
from core.command import RunDirectory, read_facts
from core.errors import InputError
from core.study.grid import key_of
from core.study.plan import Plan, read_plan
from core.study.store import StudyDirectory

RANDOM, LABELS = "an epoch at random", "labels of the target"
HEADER = ("arm", "picked by", "target mIoU, %", "regret", "over last", "rank correlation", "runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the JSON and the table; status 2 where runs were not kept, or the target not shown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation.choice", description=__doc__)
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    folder = StudyDirectory(options.study)
    try:
        plan = read_plan(folder.plan)
        payload = {
            "provenance": provenance_of(read_facts(folder.plan)),
            "data": {"name": Path(plan.source["data"]).name, "digests": plan.digests},
            "rows": list(rows(folder, plan)),
        }
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, payload)
    write_text(options.out.with_suffix(".md"), document(payload))
    return 0


def rows(folder: StudyDirectory, plan: Plan) -> Iterator[dict[str, Any]]:
    """Of each arm that has no label of the target, each rule.

    Raises:
        InputError: a run was not kept, or did not watch the target.
    """
    for arm in plan.arms:
        runs = [RunDirectory.open(folder.work(key_of(arm), seed), task=TASK) for seed in plan.seeds]
        configs = [run.config(SegmentationConfig) for run in runs]
        if configs[0].adaptation.kind == "target":
            continue
        found = [choice_of(run.path, config) for run, config in zip(runs, configs, strict=True)]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            mend = "compare with --show-target --keep-runs"
            raise InputError("no epoch has the target's mIoU", where=str(folder.path), mend=mend)
        yield from of_arm(arm.name, known)


def of_arm(name: str, choices: Sequence[Choice]) -> Iterator[dict[str, Any]]:
    """The rules on the runs of an arm; those that every run has a number for."""
    picked = [{each.rule: each for each in choice.picked} for choice in choices]
    last = [rules[LAST].target_miou for rules in picked]
    best = [choice.best for choice in choices]
    reached = {
        rule: [rules[rule].target_miou for rules in picked] for rule in picked[0] if all(rule in p for p in picked)
    }
    reached |= {RANDOM: [choice.chance for choice in choices], LABELS: best}
    for rule, mious in reached.items():
        orders = [rules[rule].correlation if rule in rules else None for rules in picked]
        known = [order for order in orders if order is not None]
        yield {
            "arm": name,
            "rule": rule,
            "runs": len(choices),
            "target_miou": mean(mious),
            "regret": mean([b - m for b, m in zip(best, mious, strict=True)]),
            "over_last": None if rule == LAST else mean([m - at_end for m, at_end in zip(mious, last, strict=True)]),
            "rank_correlation": mean(known) if len(known) == len(choices) else None,
        }


def mean(values: Sequence[float], confidence: float = 0.95) -> dict[str, float | None]:
    """A mean with Student's interval; none of a single value.

    >>> {name: round(value, 3) for name, value in mean([1.0, 2.0, 3.0]).items()}
    {'value': 2.0, 'low': -0.484, 'high': 4.484}
    """
    at = float(np.mean(values))
    if len(values) < 2:
        return {"value": at, "low": None, "high": None}
    half = (
        float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    )
    return {"value": at, "low": at - half, "high": at + half}


def document(payload: Mapping[str, Any]) -> str:
    """The Markdown file."""
    lines = [
        (
            row["arm"],
            row["rule"],
            _told(row["target_miou"], ".1f"),
            _told(row["regret"], ".1f"),
            _told(row["over_last"], "+.1f"),
            _told(row["rank_correlation"], "+.2f"),
            str(row["runs"]),
        )
        for row in payload["rows"]
    ]
    return f"## Choice of the weights\n\n{markdown(HEADER, lines)}"


def _told(found: Mapping[str, float | None] | None, form: str) -> str:
    if found is None:
        return ""
    if found["low"] is None:
        return format(found["value"], form)
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


if __name__ == "__main__":
    sys.exit(main())
