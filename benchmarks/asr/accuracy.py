"""Error rates at equal training time: every (system, seed) in a process of its own, one result file each, resumable.

    python -m benchmarks.asr.accuracy --data DIR --minutes 20 --threads 2

``--data`` is a corpus as ``manyformer asr train`` takes it, with a test split. All systems but the off-the-shelf one
are trained for the same wall minutes with one preset (:mod:`benchmarks.asr.systems`). A run that exists with the same
settings and library versions is skipped; with ``--refresh``, only if the code of its system is the same too. A run that
fails leaves a file that says so, and is tried again the next time. :mod:`benchmarks.asr.accuracy_table` makes the
table. Times mean something only when nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apps.asr.presets import PRESETS
from benchmarks.asr.systems import SYSTEMS, system_names
from benchmarks.common.measure import child_environment
from benchmarks.common.record import ROOT, provenance, source_digest, write_json
from core.errors import InputError, nearest

#: What a run gets beyond its minutes of training, in shares of them and in minutes: reading, probing, transcribing.
GRACE_SHARE, GRACE_MINUTES = 0.5, 20.0
#: Lines of a failed run's error output that its record keeps.
KEPT_LINES = 3


@dataclass(frozen=True, kw_only=True)
class RunKey:
    """What identifies a run, and what a finished one must agree in to be kept."""

    corpus: str
    system: str
    seed: int
    threads: int
    minutes: float
    preset: str
    limit: int | None
    versions: dict[str, str | None]

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.corpus}--{self.system}--{self.seed}"


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
        if is_done(folder, key, refresh=options.refresh):
            continue
        started = time.perf_counter()
        status = execute(key, options.data, folder)
        failed += status == "failed"
        print(f"[{number}/{len(keys)}] {key.stem}: {status}, {time.perf_counter() - started:.1f} s", flush=True)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asr.accuracy", description=__doc__)
    parser.add_argument("--data", required=True, help="a corpus: folder, manifest, or synthetic:sentences")
    parser.add_argument("--out", type=Path, default=Path("results/asr/accuracy"))
    parser.add_argument("--systems", help="comma-separated names; all that are installed by default")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--minutes", type=float, default=20.0, help="wall minutes of training, for each run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only the first utterances of each split, for trying things out")
    parser.add_argument("--refresh", action="store_true", help="repeat runs made with older code of their system")
    return parser


def plan(options: argparse.Namespace) -> Iterator[RunKey]:
    """Every run asked for, seed by seed, the systems interleaved: a drift of the machine's speed meets all alike."""
    if options.preset not in PRESETS:
        raise InputError(f"no preset {options.preset!r}", mend=nearest(options.preset, [*PRESETS]))
    names = system_names(options.systems)
    for seed in map(int, options.seeds.split(",")):
        for name in names:
            yield RunKey(
                corpus=corpus_name(options.data),
                system=name,
                seed=seed,
                threads=options.threads,
                minutes=options.minutes,
                preset=options.preset,
                limit=options.limit,
                versions={package: _version(package) for package in SYSTEMS[name].packages},
            )


def corpus_name(data: str) -> str:
    """A corpus in the name of a file.

    >>> corpus_name("/some/where/speech/"), corpus_name("synthetic:sentences")
    ('speech', 'synthetic-sentences')
    """
    return Path(data).name.replace(":", "-")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def execute(key: RunKey, data: str, folder: Path) -> str:
    """Run one key in a subprocess that stores its own result; store the reason here when it does not."""
    local = str(Path(data).resolve()) if Path(data).exists() else data
    request = {"key": asdict(key), "data": local, "folder": str(folder.resolve()), "limit": key.limit}
    before = load(folder, key.stem)
    try:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.asr.one_run"],
            input=json.dumps(request),
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment(key.threads),
            timeout=60 * ((1 + GRACE_SHARE) * key.minutes + GRACE_MINUTES),
        )
    except subprocess.TimeoutExpired:
        return _store_failed(folder, key, "did not end")
    if child.returncode == 0 and load(folder, key.stem) not in (None, before):
        return "finished"
    reason = "\n".join(child.stderr.strip().splitlines()[-KEPT_LINES:])
    return _store_failed(folder, key, f"status {child.returncode}: {reason}")


def _store_failed(folder: Path, key: RunKey, reason: str) -> str:
    save(folder, key, {"status": "failed", "reason": reason, "provenance": provenance(threads=key.threads)})
    return "failed"


def save(folder: Path, key: RunKey, record: Mapping[str, Any]) -> None:
    """Store a run, with the digest of the code that made it."""
    write_json(folder / f"{key.stem}.json", {"key": asdict(key), "source": system_source(key.system), **record})


def load(folder: Path, stem: str) -> dict[str, Any] | None:
    """A stored run, or None."""
    path = folder / f"{stem}.json"
    return dict(json.loads(path.read_text())) if path.is_file() else None


def is_done(folder: Path, key: RunKey, *, refresh: bool) -> bool:
    """Whether this very run was made already; with ``refresh``, also with the present code."""
    run = load(folder, key.stem)
    if run is None or run["key"] != asdict(key) or run["status"] != "finished":
        return False
    return not refresh or run["source"] == system_source(key.system)


def system_source(name: str) -> str:
    """Digest of the present code behind a system."""
    return source_digest(*SYSTEMS[name].sources)


if __name__ == "__main__":
    sys.exit(main())
