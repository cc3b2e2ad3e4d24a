"""Peak memory of a pass over speech: what it needs beyond weights and features (:mod:`benchmarks.common.memory`).

Gradients of the weights are in it for a training step, the same for all.
"""

from __future__ import annotations

from benchmarks.asr.contenders import Contender, Load, Mode, Pass, Precision, prepare
from benchmarks.common import memory

WARM_UP = Load(seconds=0.5, batch=1)
PRELOADED = ["benchmarks.asr.memory", "torchaudio.models", "speechbrain.lobes.models.transformer.Conformer"]


def peak_growth(contender: Contender, load: Load, precision: Precision, mode: Mode, *, threads: int) -> float | None:
    """MiB that one pass adds at its peak; None if its process was killed."""
    return memory.peak_growth(ready, contender, load, precision, mode, threads=threads, preload=PRELOADED)


def ready(contender: Contender, load: Load, precision: Precision, mode: Mode) -> Pass:
    """The pass, after another one over half a second of audio."""
    prepare(contender, WARM_UP, precision, mode)()
    return prepare(contender, load, precision, mode)
