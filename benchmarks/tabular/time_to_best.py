"""Wall seconds until the best validation score, ours against pytorch-frame's recipe, on the same sets and machine.

    python -m benchmarks.tabular.time_to_best --data DIR --out results/tabular/time_to_best.json --threads 2

The arms take turns, in an order that rotates from run to run. Seconds count from the raw frame: encoding is in them.
``one`` is a single member of our default preset, scored after every epoch like the peer; ``default`` is the preset as
it is, an ensemble, which has a score only once all its members are trained. ``reached`` is when an arm first scored at
least as well as the peer's best. Every run is written when it ends; those measured with the present code are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from apps.tabular.prediction.data.table import Column, Schema, Table, conform
from apps.tabular.prediction.fitting import fit_predictor
from apps.tabular.prediction.presets import PRESETS
from benchmarks.common.record import provenance, source_digest, write_json
from benchmarks.common.table import markdown, write_text
from benchmarks.tabular.method import Epoch, Job
from benchmarks.tabular.methods import METHODS
from benchmarks.tabular.scores import primary
from benchmarks.tabular.sets import Rows, TableSet, describe, read_rows, set_names

#: One set of each task, small enough for the peer to come to its best within the limit.
SETS = "telco_churn,hpc_jobs,wine_quality"
PEER = "pytorch_frame"
ARMS = (PEER, "one", "default")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing and write the JSON and the table."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    source = source_digest("apps/tabular", "core", "benchmarks/tabular/frame_peer.py")
    runs = _kept(options.out, source, options)
    for name, arm, seed in plan(set_names(options.data, options.sets), options.seeds):
        if any((run["set"], run["arm"], run["seed"]) == (name, arm, seed) for run in runs):
            continue
        runs.append(measure(_job(options, name, seed), arm) | {"source": source})
        payload = {
            "what": "seconds to the best validation score, encoding included",
            "threads": options.threads,
            "minutes": options.minutes,
            "provenance": provenance(threads=options.threads, packages=("torch", "pytorch-frame")),
            "runs": runs,
            "summary": summarise(runs),
        }
        write_json(options.out, payload)
        write_text(options.out.with_suffix(".md"), table(payload["summary"]))
        print(f"{name} {arm} {seed}: best {runs[-1]['best']:.4g} after {runs[-1]['seconds_to_best']:.1f} s", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular.time_to_best", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets, with an index.csv")
    parser.add_argument("--out", type=Path, default=Path("results/tabular/time_to_best.json"))
    parser.add_argument("--sets", default=SETS, help="comma-separated names")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, … of every arm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10.0, help="wall limit of one fit")
    return parser


def plan(sets: Sequence[str], seeds: int) -> Iterator[tuple[str, str, int]]:
    """Set, arm and seed of every run, the order of the arms rotating."""
    pairs = [(name, seed) for name in sets for seed in range(seeds)]
    for turn, (name, seed) in enumerate(pairs):
        for index in range(len(ARMS)):
            yield name, ARMS[(turn + index) % len(ARMS)], seed


def _kept(path: Path, source: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs of an earlier call that were measured with this code, these threads and this limit."""
    if not path.is_file():
        return []
    stored = json.loads(path.read_text())
    if (stored["threads"], stored["minutes"]) != (options.threads, options.minutes):
        return []
    return [run for run in stored["runs"] if run["source"] == source]


def _job(options: argparse.Namespace, name: str, seed: int) -> Job:
    table_set = describe(options.data, name)
    rows = {split: read_rows(options.data, table_set, split) for split in ("train", "valid")}
    return Job(table=table_set, seed=seed, threads=options.threads, minutes=options.minutes, **rows)


def measure(job: Job, arm: str) -> dict[str, Any]:
    """One run: its scores over time, the best one, and when it was there."""
    history = peer_history(job) if arm == PEER else our_history(job, members=1 if arm == "one" else None)
    better = max if primary(job.table.task).greater_is_better else min
    best = better(epoch.score for epoch in history)
    return {
        "set": job.table.name,
        "arm": arm,
        "seed": job.seed,
        "metric": primary(job.table.task).name,
        "greater_is_better": primary(job.table.task).greater_is_better,
        "best": best,
        "seconds_to_best": next(epoch.seconds for epoch in history if epoch.score == best),
        "seconds": history[-1].seconds,
        "history": [asdict(epoch) for epoch in history],
    }


def peer_history(job: Job) -> list[Epoch]:
    """The peer's validation scores."""
    from benchmarks.tabular.frame_peer import train

    return train(job, METHODS[PEER].settings).history


def our_history(job: Job, members: int | None) -> list[Epoch]:
    """Ours: the epochs of a single member, or the one score of the ensemble when it is whole."""
    preset = PRESETS["default"]()
    limited = replace(preset.fit, max_minutes=job.minutes)
    config = replace(preset, seed=job.seed, members=members or preset.members, fit=limited)
    started = time.perf_counter()
    fitted = fit_predictor(config, _table(job.table, job.train), _table(job.table, job.valid))
    seconds = time.perf_counter() - started
    if members != 1:
        return [Epoch(seconds, _score(job, fitted.predictor))]
    (result,) = fitted.results
    name, before = primary(job.table.task).name, seconds - result.seconds
    scale = fitted.predictor.scale if job.table.task == "regression" else 1.0
    return [Epoch(before + record["seconds"], scale * record[name]) for record in result.history]


def _table(table_set: TableSet, rows: Rows) -> Table:
    columns = [Column(name, "numeric") for name in table_set.numeric]
    columns += [Column(name, "categorical") for name in table_set.categorical]
    schema = Schema(tuple(columns), table_set.target, table_set.task, table_set.classes)
    return Table(conform(rows.X, schema), rows.y, schema)


def _score(job: Job, predictor: Any) -> float:
    if job.table.task == "regression":
        return primary("regression")(job.valid.y, predictor.predict(job.valid.X))
    probabilities = predictor.predict_proba(job.valid.X)
    return primary(job.table.task)(job.valid.y, probabilities[:, 1] if job.table.task == "binary" else probabilities)


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every set, seed and arm: the best score, the seconds to it, and to the peer's best."""
    best = {(run["set"], run["seed"]): run["best"] for run in runs if run["arm"] == PEER}
    rows = []
    for run in runs:
        target = best.get((run["set"], run["seed"]))
        row = {key: run[key] for key in ("set", "seed", "arm", "metric", "best", "seconds_to_best", "seconds")}
        rows.append(row | {"reached": None if target is None else reached(run, target)})
    return sorted(rows, key=lambda row: (row["set"], row["seed"], ARMS.index(row["arm"])))


def reached(run: dict[str, Any], target: float) -> float | None:
    """Seconds until a score at least as good as ``target``; None if there was none."""
    sign = 1 if run["greater_is_better"] else -1
    times = (epoch["seconds"] for epoch in run["history"] if sign * epoch["score"] >= sign * target)
    return next(times, None)


def table(summary: Sequence[dict[str, Any]]) -> str:
    """The summary as Markdown."""
    rows = [
        (
            f"{row['set']}, seed {row['seed']}",
            row["arm"],
            f"{row['metric']} {row['best']:.4g}",
            f"{row['seconds_to_best']:.1f}",
            "never" if row["reached"] is None else f"{row['reached']:.1f}",
            f"{row['seconds']:.1f}",
        )
        for row in summary
    ]
    header = ("set", "arm", "best validation score", "seconds to it", "seconds to the peer's best", "seconds in all")
    return markdown(header, rows)


if __name__ == "__main__":
    sys.exit(main())
