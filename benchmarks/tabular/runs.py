"""Run files: one JSON and one ``.npz`` of predictions a (set, method, seed), and when an old one still counts."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.record import source_digest, write_bytes, write_json
from benchmarks.tabular.methods import METHODS

#: ``finished``: has test predictions. ``over_limit``: ended by the runner. ``failed``: raised, or was killed.
Status = Literal["finished", "over_limit", "failed"]


@dataclass(frozen=True, kw_only=True)
class RunKey:
    """What identifies a run, and what a finished one must agree in to be kept."""

    set: str
    method: str
    seed: int
    threads: int
    minutes: float
    settings: dict[str, Any]
    versions: dict[str, str | None]

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.set}--{self.method}--{self.seed}"


@dataclass(frozen=True)
class Run:
    """A stored run: its record, and the test predictions if it has them."""

    record: dict[str, Any]
    predictions: NDArray[np.float32] | None

    @property
    def stale(self) -> bool:
        """Whether the method's own code has changed since."""
        return bool(self.record["source"] != method_source(self.record["key"]["method"]))


def method_source(name: str) -> str:
    """Digest of the present code behind a method."""
    return source_digest(*METHODS[name].sources)


def is_done(folder: Path, key: RunKey) -> bool:
    """Whether this very run was made already: finished or over its limit, with the same settings and versions."""
    run = load(folder, key.stem)
    return run is not None and run.record["key"] == asdict(key) and run.record["status"] != "failed"


def save(folder: Path, key: RunKey, record: Mapping[str, Any], predictions: NDArray[Any] | None) -> None:
    """Store a run. The JSON comes last and names the digest of the predictions: a kill leaves no half run."""
    digest = None
    if predictions is not None:
        payload = _compressed(predictions)
        digest = hashlib.sha256(payload).hexdigest()
        write_bytes(folder / f"{key.stem}.npz", payload)
    source = method_source(key.method)
    write_json(folder / f"{key.stem}.json", {"key": asdict(key), "source": source, "predictions": digest, **record})


def load(folder: Path, stem: str) -> Run | None:
    """A stored run, or None when there is none or its predictions are not the ones its record names."""
    path = folder / f"{stem}.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    if record["predictions"] is None:
        return Run(record, None)
    stored = folder / f"{stem}.npz"
    payload = stored.read_bytes() if stored.is_file() else b""
    if hashlib.sha256(payload).hexdigest() != record["predictions"]:
        return None
    with np.load(io.BytesIO(payload)) as arrays:
        return Run(record, arrays["test"])


def load_all(folder: Path) -> list[Run]:
    """Every complete run of a folder, in the order of file names."""
    runs = (load(folder, path.stem) for path in sorted(folder.glob("*.json")))
    return [run for run in runs if run is not None and run.record["key"]["method"] in METHODS]


def _compressed(predictions: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, test=np.asarray(predictions, np.float32))
    return buffer.getvalue()
