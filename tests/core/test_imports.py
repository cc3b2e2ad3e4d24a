"""The block rooms need torch, numpy and jaxtyping only."""

import json
import subprocess
import sys

PROGRAM = """
import importlib, json, sys
import torch, numpy, jaxtyping
before = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names) | {"core"}
found = {}
for room in sys.argv[1:]:
    importlib.import_module(room)
    found[room] = sorted({name.partition(".")[0] for name in sys.modules} - before)
print(json.dumps([found, sorted(before)]))
"""
ROOMS = ["core.sequence", "core.attention", "core.norm", "core.feedforward", "core.layout"]
HEAVY = {"lightning", "sklearn", "scipy", "matplotlib", "pandas", "rich", "tyro", "jinja2", "safetensors", "pytest"}


def test_block_rooms_import_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *ROOMS], capture_output=True, text=True, check=True)
    found, before = json.loads(done.stdout)
    assert found == {room: [] for room in ROOMS}
    assert HEAVY.isdisjoint(before)
