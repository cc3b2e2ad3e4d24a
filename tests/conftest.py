from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

UNTYPED_CHECKS = {"can_be_exported", "compiles_to_one_graph", "compiles_and_exports", "refuses_what_does_not_fit"}
"""Checks of the contract suites that pass wrong types on purpose, compile or export: torch.compile cannot see through
the check of annotations at run time, and a symbolic size is no int to it."""


def pytest_configure() -> None:
    """A shell that puts a job in the background has it ignore SIGINT, and all it starts: tests of signals could not
    stop anything."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--jaxtyping-packages`` (``make test``, second run), leave out what is marked ``untyped``."""
    if config.getoption("--jaxtyping-packages", default=None) is None:
        return
    untyped = [item for item in items if item.get_closest_marker("untyped") or _check_of(item) in UNTYPED_CHECKS]
    config.hook.pytest_deselected(items=untyped)
    items[:] = [item for item in items if item not in untyped]


def _check_of(item: pytest.Item) -> str | None:
    """The name of the contract check that a test runs."""
    check = item.callspec.params.get("check") if hasattr(item, "callspec") else None
    return getattr(check, "__name__", None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that use it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MANYFORMER_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real data here: set MANYFORMER_DATA")
    return folder
