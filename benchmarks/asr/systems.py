"""The recognisers that are compared: ours and the peers trained alike, and one that comes trained.

The trained ones differ in nothing but the network: features, tokenizer, augmentation, optimiser, schedule, loss, choice
of the best weights and decoder are those of our preset. The peers take its width, heads, layers and kernel, and as many
parameters (:mod:`benchmarks.asr.peers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

from apps.asr.config import ModelConfig
from apps.asr.model import Squeezeformer
from benchmarks.asr.peers import PEERS, Peer, Size, matched, parameters
from core.errors import InputError, nearest
from core.optim.routing import Rules

#: (mel bins, outputs, our architecture) -> the network.
Build = Callable[[int, int, ModelConfig], nn.Module]


@dataclass(frozen=True, kw_only=True)
class System:
    """A row of the table.

    Args:
        build: the untrained network; None for what comes trained.
        packages: distributions whose versions decide the result.
        sources: our own code that decides the result; a row measured with older code is marked.
        rules: roles of those parameters of other libraries that our optimiser cannot place by itself.
    """

    build: Build | None
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    rules: Rules = ()


def peer(name: Peer) -> Build:
    """How a peer is built with as many parameters as ours."""

    def build(bins: int, outputs: int, config: ModelConfig) -> nn.Module:
        return PEERS[name](bins, outputs, peer_size(name, bins, outputs, config))

    return build


def peer_size(name: Peer, bins: int, outputs: int, config: ModelConfig) -> Size:
    """A peer's measures beside our architecture."""
    with torch.device("meta"):
        wanted = parameters(Squeezeformer(bins, outputs, config))
    size = Size(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        hidden=config.expansion * config.width,
        kernel=config.kernel,
        dropout=config.dropout,
    )
    return matched(name, bins, outputs, size, wanted)


SHARED = ("apps/asr", "core", "benchmarks/asr/training.py")
THEIRS = (*SHARED, "benchmarks/asr/peers.py", "benchmarks/asr/systems.py")

OURS = "squeezeformer"
OFF_THE_SHELF = "pocketsphinx"
SYSTEMS: dict[str, System] = {
    OURS: System(build=Squeezeformer, packages=("torch",), sources=SHARED),
    "torchaudio": System(
        build=peer("torchaudio"),
        packages=("torch", "torchaudio"),
        sources=THEIRS,
        rules=(("*.in_proj_weight", "matrix"), ("*.in_proj_bias", "bias"), ("head.weight", "head")),
    ),
    "speechbrain": System(
        build=peer("speechbrain"),
        packages=("torch", "speechbrain"),
        sources=THEIRS,
        rules=(("*.in_proj_weight", "matrix"), ("*.pos_bias_?", "bias"), ("head.weight", "head")),
    ),
    OFF_THE_SHELF: System(build=None, packages=("pocketsphinx",), sources=("benchmarks/asr/sphinx.py",)),
}


def system_names(wanted: str | None = None) -> list[str]:
    """Those of the comma-separated ``wanted``, checked; else all that are installed."""
    if wanted is None:
        return [name for name in SYSTEMS if name != OFF_THE_SHELF or find_spec(OFF_THE_SHELF)]
    for name in (names := wanted.split(",")):
        if name not in SYSTEMS:
            raise InputError(f"no system {name!r}", mend=nearest(name, [*SYSTEMS]))
    return names
