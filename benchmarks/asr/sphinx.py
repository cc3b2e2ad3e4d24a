"""PocketSphinx as its package brings it: a general model of US English with a language model, not trained here.

The comparison is asymmetric. It has heard none of the corpus and may say any word of its dictionary; the others were
trained on recordings of the same kind, and have no language model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def recogniser() -> Callable[[Tensor], str]:
    """A function from samples ``(T,)`` at 16 kHz in [-1, 1] to text, whole utterances at a time."""
    from pocketsphinx import Decoder  # type: ignore[import-not-found,unused-ignore]

    decoder = Decoder(loglevel="FATAL")

    def transcribe(samples: Tensor) -> str:
        decoder.start_utt()
        decoder.process_raw((32767 * samples.clamp(-1, 1)).to(torch.int16).numpy().tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return "" if found is None else str(found.hypstr)

    return transcribe
