"""Small recordings written on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

Write = Callable[..., Path]


@pytest.fixture
def record(tmp_path: Path) -> Write:
    """Writes ``name``: noise of so many seconds, or the given samples; returns its path."""

    def write(name: str, samples: Any = 1.0, rate: int = 16_000, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(samples, float):
            draw = np.random.default_rng(len(name))
            samples = draw.uniform(-0.3, 0.3, round(samples * rate)).astype(np.float32)
        soundfile.write(str(path), samples, rate, **options)
        return path

    return write


@pytest.fixture
def manifest(tmp_path: Path) -> Write:
    """Writes lines as ``manifest.csv``, or under another name; returns its path."""

    def write(*lines: str, name: str = "manifest.csv", encoding: str = "utf-8", end: str = "\n") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(line + end for line in lines).encode(encoding))
        return path

    return write
