"""Peak memory of a pass, in a process of its own.

The process is forked from a server that has only imported the libraries, so that nothing was computed in it before. It
builds the contender, runs a pass over half a second of audio (which loads code and scratch buffers), gives freed memory
back to the kernel, sets the kernel's high-water mark of resident memory to what is held then, and runs one pass at the
load that is measured. The result is how far the mark stands above that: what the pass needs beyond weights and
features, with what it leaves behind for the next (kernels that libraries compile or pack for new shapes, their scratch
buffers, whatever the network keeps). Gradients of the weights are in it for a training step, the same for all.

Buffers of 64 KiB or more come from the kernel one by one, for every contender. By glibc's own rules they come from the
heap, and which pages a pass touches there depends on the holes that building, casting or copying the network left, not
on the pass: measured so, the same pass took up to three times as much in one heap as in another. The figure is thereby
what is held at the peak, without what a heap's holes add to it. Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import gc
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.asr.contenders import Contender, Load, Mode, Precision
from benchmarks.common.measure import peak_memory_mib

WARM_UP = Load(seconds=0.5, batch=1)
#: Bytes from which buffers are mapped, and the numbers of the two options of glibc's ``mallopt``.
MAPPED_FROM, M_MMAP_THRESHOLD, M_TOP_PAD = 1 << 16, -3, -2
PRELOADED = ["benchmarks.asr.memory", "torchaudio.models", "speechbrain.lobes.models.transformer.Conformer"]


def peak_growth(contender: Contender, load: Load, precision: Precision, mode: Mode, *, threads: int) -> float | None:
    """MiB that one pass adds at its peak; None if its process was killed."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(sender, contender, load, precision, mode, threads))
    child.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError:
        return None
    finally:
        child.join()


def _measure(
    sender: Connection, contender: Contender, load: Load, precision: Precision, mode: Mode, threads: int
) -> None:
    import torch

    from benchmarks.asr.contenders import prepare

    map_buffers()
    torch.set_num_threads(threads)
    prepare(contender, WARM_UP, precision, mode)()
    measured = prepare(contender, load, precision, mode)
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
