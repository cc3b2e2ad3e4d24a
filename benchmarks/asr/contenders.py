"""Squeezeformer and the peers at one load: an inference pass and a training step on the same features.

All read full-length recordings with their lengths given, the way padded ones would be. Inference is evaluation mode
without gradients: ours in the form for recognition (:func:`apps.asr.inference.for_inference`), theirs as released. A
training step is a forward pass in training mode and a backward pass from the sum of the squared logits, with dropout
0.1 wherever a network has it, attention probabilities included. Nothing is compiled. Under ``bf16``, autocast covers
the forward pass of all training steps; for inference weights are bfloat16 themselves, cast once, which is faster, but
for SpeechBrain, whose encoder does not take that and stays under autocast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from apps.asr.config import SIZES
from apps.asr.inference import for_inference
from apps.asr.model import Squeezeformer
from benchmarks.asr.peers import PEERS, Peer, Size, matched, parameters

Contender = Literal["ours", "torchaudio", "speechbrain"]
Precision = Literal["fp32", "bf16"]
Mode = Literal["infer", "step"]
CONTENDERS: tuple[Contender, ...] = get_args(Contender)

PRESET = "xs"
BINS, OUTPUTS, DROPOUT = 80, 128, 0.1
FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Load:
    """Seconds of audio in each recording, recordings in a batch."""

    seconds: float
    batch: int

    @property
    def frames(self) -> int:
        """Feature frames of a recording: one at its very start, then one every 10 ms."""
        return 1 + round(FRAMES_PER_SECOND * self.seconds)


def our_model() -> Squeezeformer:
    """Squeezeformer of the size that is compared."""
    config = replace(SIZES[PRESET].model(), dropout=DROPOUT, attention_dropout=DROPOUT)
    return Squeezeformer(BINS, OUTPUTS, config)


def our_size() -> Size:
    """Its measures, as far as the peers share them."""
    config = SIZES[PRESET].model()
    hidden = config.expansion * config.width
    sizes = {name: getattr(config, name) for name in ("width", "layers", "heads", "kernel")}
    return Size(**sizes, hidden=hidden, dropout=DROPOUT)


def peer_size(peer: Peer) -> Size:
    """The measures of a peer with as many parameters."""
    return matched(peer, BINS, OUTPUTS, our_size(), parameters(our_model()))


def model(contender: Contender) -> nn.Module:
    """A contender with its initial weights."""
    torch.manual_seed(0)
    if contender == "ours":
        return our_model()
    return PEERS[contender](BINS, OUTPUTS, peer_size(contender))


def described(contender: Contender) -> dict[str, Any]:
    """Parameters and measures, for the results."""
    size = our_size() if contender == "ours" else peer_size(contender)
    return {"parameters": parameters(model(contender)), **asdict(size)}


@dataclass(frozen=True)
class Pass:
    """What is timed; calling it runs it once."""

    network: nn.Module
    features: Tensor
    lengths: Tensor
    autocast: bool

    def forward(self) -> Tensor:
        """Logits ``(B,T',V)`` in float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            logits: Tensor = self.network(self.features, self.lengths)[0]
        return logits.float()

    def __call__(self) -> None:
        if not self.network.training:
            with torch.inference_mode():
                self.forward()
            return
        self.network.zero_grad(set_to_none=True)
        self.forward().square().sum().backward()  # type: ignore[no-untyped-call]


def prepare(contender: Contender, load: Load, precision: Precision, mode: Mode) -> Pass:
    """An inference pass or a training step, ready to be run again and again."""
    network = model(contender)
    torch.manual_seed(1)
    features = torch.randn(load.batch, load.frames, BINS)
    lengths = torch.full((load.batch,), load.frames)
    cast = precision == "bf16" and mode == "infer" and contender != "speechbrain"
    if isinstance(network, Squeezeformer) and mode == "infer":
        network = for_inference(network, torch.bfloat16 if cast else None)
    elif cast:
        network = network.to(torch.bfloat16)
    return Pass(network.train(mode == "step"), features, lengths, precision == "bf16" and not cast)
