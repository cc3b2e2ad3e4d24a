"""The folder of a study.

::

    STUDY/study.json              what is asked: task, data, settings, arms, seeds; see core.study.plan
    STUDY/arms/<arm>.json         an arm's whole config, its number of epochs decided once
    STUDY/runs/<arm>-<seed>.jsonl the log of a run; see core.study.journal
    STUDY/runs/<arm>-<seed>.npz   what its scores are made of
    STUDY/work/<arm>-<seed>/      the run while it trains
    STUDY/report/index.html       the page
    STUDY/results.json            the same for programs
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.application import Measure, Scored
from core.artefact import replace_file
from core.command import config_to_dict, read_facts
from core.command.config import with_defaults
from core.errors import InputError
from core.evaluation.metrics import Metric
from core.study.records import Arm

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StudyDirectory:
    """Paths of a study."""

    path: Path

    @property
    def plan(self) -> Path:
        """What is asked."""
        return self.path / "study.json"

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report" / "index.html"

    @property
    def results(self) -> Path:
        """The report for programs."""
        return self.path / "results.json"

    def arm(self, key: str) -> Path:
        """An arm's config."""
        return self.path / "arms" / f"{key}.json"

    def log(self, key: str, seed: int) -> Path:
        """A run's log."""
        return self.path / "runs" / f"{key}-{seed}.jsonl"

    def scores(self, key: str, seed: int) -> Path:
        """What a run's scores are made of."""
        return self.path / "runs" / f"{key}-{seed}.npz"

    def work(self, key: str, seed: int) -> Path:
        """A run while it trains."""
        return self.path / "work" / f"{key}-{seed}"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """An arm whose config is decided.

    Attributes:
        config: all settings but the seed of each run.
        parameters: of all its networks.
    """

    config: Any
    parameters: int


def write_settled(path: Path, arm: Arm, settled: Settled) -> None:
    """Writes an arm's config, once."""
    facts = {
        "name": arm.name,
        "changes": dict(arm.changes),
        "parameters": settled.parameters,
        "config": config_to_dict(settled.config),
    }
    replace_file(path, json.dumps(facts, indent=2) + "\n")


def read_settled(path: Path, config: type[Any]) -> Settled | None:
    """What :func:`write_settled` wrote; None where nothing is decided yet.

    Fields that are newer than the file have their defaults: whoever reads the plan of the study says which.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    facts = read_facts(path)
    if not isinstance(facts.get("parameters"), int):
        raise InputError("does not say how many parameters there are", where=str(path), mend="the file is damaged")
    known, _ = with_defaults(config, facts.get("config"), where=str(path))
    return Settled(config=known, parameters=facts["parameters"])


def write_scored(path: Path, scored: Scored) -> dict[str, Any]:
    """Writes arrays of numbers and words, each once, and returns the plain data to find them again with."""
    arrays: dict[str, Array] = {}

    def kept(array: Array | None) -> str | None:
        if array is None:
            return None
        known = next((name for name, other in arrays.items() if other is array), None)
        if known is None:
            known = f"a{len(arrays)}"
            arrays[known] = array
        return known

    layout = {
        "file": path.name,
        "measures": {name: [kept(one.truth), kept(one.prediction)] for name, one in scored.measures.items()},
        "groups": kept(scored.groups),
        "strata": kept(scored.strata),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: _words(array) for name, array in arrays.items()})
    replace_file(path, buffer.getvalue())
    return {**layout, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}


def _words(array: Array) -> Array:
    """Labels that are held as objects, as text: a file without pickle knows no objects."""
    if array.dtype != object:
        return array
    assert all(isinstance(word, str) for word in array.tolist()), "labels are words or numbers"
    return array.astype(str)


def read_scored(path: Path, layout: Mapping[str, Any], metrics: Mapping[str, Metric]) -> Scored:
    """What :func:`write_scored` wrote.

    Raises:
        InputError: the file is missing or altered.
    """
    mend = "delete it and the .jsonl beside it: the run is then done again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path), mend=mend) from error
    if hashlib.sha256(data).hexdigest() != layout["sha256"]:
        raise InputError("is not what the run wrote", where=str(path), mend=mend)
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    measures = {
        name: Measure(metrics[name], arrays[truth], arrays[prediction])
        for name, (truth, prediction) in layout["measures"].items()
    }
    groups, strata = (None if layout[name] is None else arrays[layout[name]] for name in ("groups", "strata"))
    return Scored(measures, groups, strata)
