"""Quality on many sets: every (set, method, seed) in a process of its own, one result file each, resumable.

    python -m benchmarks.tabular.quality --data DIR --out results/tabular/quality --threads 2

A run that exists with the same settings and library versions is skipped (``--refresh`` repeats those measured with
older code of their method). A run that fails leaves a file that says so and is tried again the next time; one that
exceeds ``--minutes-per-run`` is ended, recorded, and not tried again. Times mean something only when nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common.measure import child_environment
from benchmarks.common.record import ROOT, provenance
from benchmarks.tabular.methods import METHODS, method_names
from benchmarks.tabular.runs import RunKey, Status, is_done, load, save
from benchmarks.tabular.sets import set_names
from core.errors import InputError

#: What a run gets beyond its wall limit for reading data, predicting and measuring, before it is ended from outside.
GRACE_MINUTES = 2.0
#: Lines of a failed run's error output that its record keeps.
KEPT_LINES = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; status 1 when a run failed."""
    options = _parser().parse_args(argv)
    folder = options.out / "runs"
    failed = 0
    try:
        keys = list(plan(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for number, key in enumerate(keys, start=1):
        if is_done(folder, key) and not (options.refresh and _is_stale(folder, key)):
            continue
        started = time.perf_counter()
        status = execute(key, options.data, folder, grace=GRACE_MINUTES)
        failed += status == "failed"
        print(f"[{number}/{len(keys)}] {key.stem}: {status}, {time.perf_counter() - started:.1f} s", flush=True)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular.quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets, with an index.csv")
    parser.add_argument("--out", type=Path, default=Path("results/tabular/quality"))
    parser.add_argument("--sets", help="comma-separated names; all by default")
    parser.add_argument("--methods", help="comma-separated names; all by default")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes-per-run", type=float, default=10.0, help="wall limit of one fit")
    parser.add_argument("--refresh", action="store_true", help="repeat runs measured with older code of their method")
    return parser


def plan(options: argparse.Namespace) -> Iterator[RunKey]:
    """Every run asked for, set by set, the methods interleaved: a drift of the machine's speed meets all alike."""
    methods, seeds = method_names(options.methods), [int(seed) for seed in options.seeds.split(",")]
    for name in set_names(options.data, options.sets):
        for seed in seeds:
            for method in methods:
                yield RunKey(
                    set=name,
                    method=method,
                    seed=seed,
                    threads=options.threads,
                    minutes=options.minutes_per_run,
                    settings=dict(METHODS[method].settings),
                    versions={package: version(package) for package in METHODS[method].packages},
                )


def execute(key: RunKey, data: Path, folder: Path, *, grace: float) -> Status:
    """Run one key in a subprocess that stores its own result; store the reason here when it does not."""
    request = json.dumps({"key": asdict(key), "data": str(data.resolve()), "folder": str(folder.resolve())})
    before = load(folder, key.stem)
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tabular.one_run"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=child_environment(key.threads),
    )
    try:
        _, errors = child.communicate(request, timeout=60 * (key.minutes + grace))
    except subprocess.TimeoutExpired:
        return _store_unfinished(folder, key, "over_limit", _end(child))
    except BaseException:
        _end(child)
        raise
    after = load(folder, key.stem)
    written = after is not None and (before is None or after.record != before.record)
    if child.returncode == 0 and written:
        return "finished"
    return _store_unfinished(folder, key, "failed", _reason(child.returncode, errors))


def _end(child: subprocess.Popen[str]) -> str:
    child.kill()
    child.communicate()
    return "ended at the wall limit"


def _reason(status: int, errors: str) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return "\n".join(errors.strip().splitlines()[-KEPT_LINES:])


def _store_unfinished(folder: Path, key: RunKey, status: Status, reason: str) -> Status:
    record: dict[str, Any] = {"status": status, "reason": reason}
    save(folder, key, {**record, "provenance": provenance(threads=key.threads)}, None)
    return status


def _is_stale(folder: Path, key: RunKey) -> bool:
    run = load(folder, key.stem)
    return run is not None and run.stale


if __name__ == "__main__":
    sys.exit(main())
