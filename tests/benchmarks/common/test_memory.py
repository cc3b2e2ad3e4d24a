import subprocess
import sys

import pytest
import torch

from benchmarks.common.measure import peak_memory_mib
from benchmarks.common.memory import reset_peak

MIB = 1 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_was_freed_before_does_not_hide_what_is_taken_now():
    large, small = torch.ones(64 * MIB, dtype=torch.uint8), [bytearray(MIB // 16) for _ in range(512)]
    last = small[-1]  # keeps the heap from shrinking by itself
    del large, small
    reset_peak()
    before = peak_memory_mib()
    taken = [bytearray(MIB // 16) for _ in range(384)]
    assert 23 < peak_memory_mib() - before < 32
    assert (len(taken), len(last)) == (384, MIB // 16)


HOLES = """
from benchmarks.common.memory import map_buffers, reset_peak
from benchmarks.common.measure import peak_memory_mib
import sys
kib = 1 << 10
if sys.argv[1] == "mapped":
    map_buffers()
full = [bytearray(size * kib) for _ in range(300) for size in (98, 50)]  # no holes are left of the imports
heap = [bytearray(size * kib) for _ in range(40) for size in (100, 50, 110, 50)]
del heap[::2]  # holes of two sizes, with something between them
reset_peak()
before = peak_memory_mib()
for size in (98, 108):  # one after the other: never more than 20 of them are held
    taken = [bytearray(size * kib) for _ in range(20)]
    del taken
print(peak_memory_mib() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_left_in_the_heap_add_nothing():
    def grown(how: str) -> float:
        return float(subprocess.check_output([sys.executable, "-c", HOLES, how], text=True))

    assert grown("mapped") < 20 * 108 / 1024 + 0.5 < grown("heap")
