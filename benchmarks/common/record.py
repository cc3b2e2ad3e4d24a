"""Result files: JSON written atomically, naming the commit, code, machine and versions behind every number."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def write_bytes(path: Path, payload: bytes) -> None:
    """Replace ``path`` in one step: a reader, or a kill at any moment, sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, payload: Mapping[str, Any]) -> None:
    """Write ``payload`` as JSON, atomically. NaN is refused: it is no JSON and would hide a failed measurement."""
    write_bytes(path, (json.dumps(payload, indent=1, allow_nan=False) + "\n").encode())


def source_digest(*paths: str, root: Path = ROOT) -> str:
    """Digest of every Python file under ``paths`` (relative to ``root``): names the code a number was measured with."""
    digest = hashlib.sha256()
    for file in sorted(_python_files(paths, root)):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _python_files(paths: Iterable[str], root: Path) -> set[Path]:
    found: set[Path] = set()
    for path in paths:
        target = root / path
        found.update([target] if target.is_file() else target.rglob("*.py"))
    return found


def provenance(*, threads: int, packages: Iterable[str] = ()) -> dict[str, Any]:
    """What a result file must name besides its numbers: command, commit, machine, threads, versions, time."""
    return {
        "command": "python -m " + " ".join([_main_module(), *public_words(sys.argv[1:])]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "core", "apps", "benchmarks")),
        "machine": machine(),
        "threads": threads,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("numpy", *packages)},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, Any]:
    """Processor name, usable cores, memory in GiB, operating system."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _main_module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name


def public_words(words: Iterable[str]) -> list[str]:
    """The words of a command; of an absolute path, which is of one machine only, its last part."""
    return [Path(word).name if word.startswith("/") else word for word in words]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
