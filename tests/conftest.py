from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that use it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MANYFORMER_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real data here: set MANYFORMER_DATA")
    return folder
