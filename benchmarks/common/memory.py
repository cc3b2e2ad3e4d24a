"""Peak memory of a call, in a process of its own.

The process is forked from a server that has only imported the libraries, so that nothing was computed in it before. It
makes the call ready (whatever that takes: building, a small call that loads code and scratch buffers), gives freed
memory back to the kernel, sets the kernel's high-water mark of resident memory to what is held then, and calls once.
The result is how far the mark stands above that: what the call needs beyond what it was given, with what it leaves
behind for the next (kernels that libraries compile or pack for new shapes, their scratch buffers, gradients, caches).

Buffers of 64 KiB or more come from the kernel one by one, for every contender. By glibc's own rules they come from the
heap, and which pages a call touches there depends on the holes that building, casting or copying a model left, not on
the call: measured so, the same pass took up to three times as much in one heap as in another. The figure is thereby
what is held at the peak, without what a heap's holes add to it. Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.common.measure import peak_memory_mib

#: Bytes from which buffers are mapped, and the numbers of the two options of glibc's ``mallopt``.
MAPPED_FROM, M_MMAP_THRESHOLD, M_TOP_PAD = 1 << 16, -3, -2

#: Makes a call ready, in the process that will be measured.
Ready = Callable[..., Callable[[], object]]


def peak_growth(ready: Ready, *arguments: Any, threads: int, preload: Sequence[str]) -> float | None:
    """MiB that one call adds at its peak; None if its process was killed.

    Args:
        ready: a function of a module, which returns what is called; it has warmed up by then.
        arguments: of ``ready``.
        threads: of torch.
        preload: modules that the server imports, once, before the first fork.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(sender, ready, arguments, threads))
    child.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError:
        return None
    finally:
        child.join()


def _measure(sender: Connection, ready: Ready, arguments: Sequence[Any], threads: int) -> None:
    import torch

    map_buffers()
    torch.set_num_threads(threads)
    measured = ready(*arguments)
    reset_peak()
    before = peak_memory_mib()
    measured()
    sender.send(peak_memory_mib() - before)


def map_buffers() -> None:
    """From now on, take large buffers from the kernel one by one and give each back once it is freed.

    Unless a hole that was left before is large enough: call it before anything is built.
    """
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
    # The free end of the heap would be used first.
    libc.mallopt(M_TOP_PAD, 0)
    libc.malloc_trim(0)


def reset_peak() -> None:
    """Set this process's high-water mark of resident memory to what it really holds now."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what was freed before would hide what is taken now
    Path("/proc/self/clear_refs").write_text("5")
