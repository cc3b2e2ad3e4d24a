from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from core.command import run
from core.study import compare

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def toy():
    """The module of the toy application, under a name that other processes can import it by."""
    sys.path.insert(0, str(FOLDER))
    return importlib.import_module("study_toy")


@pytest.fixture(scope="session")
def finished(toy, tmp_path_factory):
    """A study of two arms with two seeds, its run directories kept; not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    line = f"--vary model.width=3,4 --seeds 2 --threads 1 --keep-runs --out {folder}"
    assert run(lambda words: compare(toy.TOY, words), line.split()) == 0
    return folder


@pytest.fixture
def study(finished, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


@pytest.fixture
def ask(toy, tmp_path, monkeypatch, capsys):
    """Ask for a comparison in a new current folder, in its folder ``study``; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def asked(line: str, *, threads: int | None = 1) -> tuple[int, str, str]:
        words = [*line.split(), "--out", "study", *(["--threads", str(threads)] if threads else [])]
        status = run(lambda argv: compare(toy.TOY, argv), words)
        return status, *capsys.readouterr()

    return asked
