from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

TOY = Path(__file__).with_name("toy.py")


@pytest.fixture(scope="session")
def toy():
    """The names of toy.py: this folder is no package that a test could import from."""
    return SimpleNamespace(
        path=TOY, **{k: v for k, v in runpy.run_path(str(TOY), run_name="toy").items() if k[0] != "_"}
    )


@pytest.fixture(scope="session")
def unbroken(toy):
    """What the toy run comes to when nothing disturbs it."""
    return toy.outcome(*toy.train())


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Runs are equal bit for bit on one number of threads only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
