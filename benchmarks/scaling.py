"""What several processes bring on one machine: ``python -m benchmarks.scaling --out results/scaling.json``.

Steps a second of training, everything included that belongs to a step (the batch, the exchanges, saving nothing), of
one process, of two by either strategy with one thread each, and of one process with two threads, which uses as many
processors. The batches are the same in all cases. Each case is a run of its own process or processes, in memory, after
a short one that is not counted; the cases take turns, and the median over the turns counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from benchmarks.common.measure import child_environment, peak_memory_mib
from benchmarks.common.record import ROOT, provenance, write_json
from benchmarks.common.table import markdown, write_text
from core.application.base import WARM_UP_MINUTES, with_fit
from core.command.launch import launch
from core.training import together
from core.training.group import Strategy


class Subject(NamedTuple):
    """What is trained."""

    module: str
    preset: str
    data: str


class Case(NamedTuple):
    """By how many."""

    label: str
    processes: int
    threads: int
    strategy: Strategy


SUBJECTS = {
    "tabular": Subject("apps.tabular.prediction.application", "default", "bundled:digits"),
    "asr": Subject("apps.asr.application", "default", "synthetic:sentences"),
}
CASES = {
    "one": Case("1 process, 1 thread", 1, 1, "ddp"),
    "threads": Case("1 process, 2 threads", 1, 2, "ddp"),
    "ddp": Case("2 processes, ddp", 2, 1, "ddp"),
    "fsdp": Case("2 processes, fsdp", 2, 1, "fsdp"),
}


def train(subject: Subject, strategy: Strategy, minutes: float, out: Path) -> None:
    """Train for so long, and write what the first process found."""
    application = importlib.import_module(subject.module).APPLICATION
    config = application.alone(application.presets[subject.preset]())
    with together(strategy) as group:
        data = application.load(application.source(data=subject.data), config)
        for limit in (WARM_UP_MINUTES, minutes):
            short = with_fit(config, max_epochs=10**6, max_minutes=limit, patience=None)
            (result,) = application.fit(short, data).results
        if group.rank == 0:
            found = {"step_seconds": result.pace.step, "steps": result.steps, "peak_mib": peak_memory_mib()}
            write_json(out, found)


def measure(subject: str, case: str, minutes: float) -> dict[str, Any]:
    """One turn of a case, in a process of its own, which starts those that it needs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = ["--subject", subject, "--case", case, "--minutes", str(minutes), "--out", str(out)]
        command = [sys.executable, "-m", "benchmarks.scaling", *words]
        subprocess.run(command, check=True, cwd=ROOT, env=child_environment(CASES[case].threads))
        return cast("dict[str, Any]", json.loads(out.read_text()))


def one_case(options: argparse.Namespace) -> int:
    """The child's side: the launcher of a case, or one of its processes."""
    case = CASES[options.case]
    if case.processes > 1 and not options.launched:
        command = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], "--launched"]
        return launch(command, case.processes, last=options.out.parent)
    train(SUBJECTS[options.subject], case.strategy, options.minutes, options.out)
    return 0


def summary(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median turn, with all of them."""
    rates = [1 / turn["step_seconds"] for turn in turns]
    return {
        "steps_a_second": statistics.median(rates),
        "turns": rates,
        "peak_mib": max(turn["peak_mib"] for turn in turns),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Steps a second, and how many times those of one process with one thread."""
    rows = []
    for key, case in CASES.items():
        cells = [case.label]
        for found in results.values():
            rate = found[key]["steps_a_second"]
            cells += [f"{rate:.3g}", f"{rate / found['one']['steps_a_second']:.2f}", f"{found[key]['peak_mib']:.0f}"]
        rows.append(cells)
    header = [f"{name}: {column}" for name in results for column in ("steps/s", "times", "MiB")]
    return markdown(("", *header), rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/scaling.json"))
    parser.add_argument("--minutes", type=float, default=0.5, help="of each turn of each case")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--subject", choices=SUBJECTS, action="append", help="only these")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    names = options.subject or [*SUBJECTS]
    if options.case:
        options.subject = names[0]
        return one_case(options)
    turns: dict[str, dict[str, list[dict[str, Any]]]] = {name: {case: [] for case in CASES} for name in names}
    for _ in range(options.turns):
        for name in names:
            for case in CASES:
                turns[name][case].append(measure(name, case, options.minutes))
    results = {name: {case: summary(found) for case, found in cases.items()} for name, cases in turns.items()}
    subjects = {name: SUBJECTS[name]._asdict() for name in names}
    record = provenance(threads=2, packages=("torch", "lightning"))
    write_json(options.out, {"provenance": record, "subjects": subjects, "results": results})
    write_text(options.out.with_suffix(".md"), f"## Steps a second\n\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
