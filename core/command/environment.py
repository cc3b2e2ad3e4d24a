"""What a result depends on besides config and data: versions, machine, threads, command line, commit.

Nothing is read from environment variables, which hold secrets.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """The facts of this process, as plain data.

    >>> environment()["python"] == platform.python_version()
    True
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "commit": _commit(Path(__file__).resolve().parents[2]),
        "packages": _packages(),
    }


def _packages() -> dict[str, str]:
    """The versions of the project and of what it requires, as far as installed."""
    try:
        required = importlib.metadata.requires("manyformer") or []
    except importlib.metadata.PackageNotFoundError:  # unpacked, not installed
        required = []
    found: dict[str, str] = {}
    for name in ["manyformer", *(re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0] for line in required)]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def _commit(root: Path) -> str | None:
    """The commit of the project's own checkout, ``-dirty`` when tracked files differ from it; None outside one."""
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
