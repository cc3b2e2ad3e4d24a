import sys

import pytest
import torch

from benchmarks.asr.memory import reset_peak
from benchmarks.common.measure import peak_memory_mib

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
