"""Conformers of other libraries as acoustic models: our front end, their encoder, a linear head.

    features (B,T,F) -> Subsampling (B,T',D) -> encoder (B,T',D) -> logits (B,T',V)

The front end holds the projection to the width, so all of them read the same tokens. Encoders are as released:

- ``torchaudio.models.Conformer``: attention without positions, batch norm in the convolution;
- SpeechBrain's ``ConformerEncoder`` with relative positions (``RelPosMHAXL``), whose table ``RelPosEncXL`` builds at
  every call as in that library's own recipes, and layer norm in the convolution.

Width, heads, layers and kernel are ours. Their blocks hold fewer parameters than ours (23 D² and 24 D² against 25 D²);
the hidden width of their feed-forwards makes up for it, which is where a parameter costs least time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from apps.asr.subsampling import Subsampling, subsampled_length

Peer = Literal["torchaudio", "speechbrain"]

#: Hidden widths are multiples of this.
STEP = 8


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width D, layers, heads, hidden width of a feed-forward, taps of the convolution; dropout everywhere."""

    width: int
    layers: int
    heads: int
    hidden: int
    kernel: int
    dropout: float


class AcousticModel(nn.Module):
    """Front end, encoder, head; a peer says how its encoder is called."""

    def __init__(self, bins: int, outputs: int, size: Size) -> None:
        super().__init__()
        self.subsampling = Subsampling(bins, size.width, dropout=size.dropout)
        self.head = nn.Linear(size.width, outputs)

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens ``(B,T',D)`` through the encoder; ``lengths`` of them are real."""
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B,T',V)`` and how many of each recording are real."""
        tokens, count = self.subsampling(features, lengths), subsampled_length(lengths)
        return self.head(self.encode(tokens, count)), count


class TorchaudioConformer(AcousticModel):
    """torchaudio's Conformer."""

    def __init__(self, bins: int, outputs: int, size: Size) -> None:
        from torchaudio.models import Conformer

        super().__init__(bins, outputs, size)
        self.encoder = Conformer(
            input_dim=size.width,
            num_heads=size.heads,
            ffn_dim=size.hidden,
            num_layers=size.layers,
            depthwise_conv_kernel_size=size.kernel,
            dropout=size.dropout,
        )

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        # Its mask is as long as the longest length, which therefore has to fill the batch.
        longest = int(lengths.max())
        encoded: Tensor = self.encoder(tokens[:, :longest], lengths)[0]
        return nn.functional.pad(encoded, (0, 0, 0, tokens.shape[1] - longest))


class SpeechBrainConformer(AcousticModel):
    """SpeechBrain's Conformer with relative positions."""

    def __init__(self, bins: int, outputs: int, size: Size) -> None:
        from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
        from speechbrain.nnet.attention import RelPosEncXL

        super().__init__(bins, outputs, size)
        self.positions = RelPosEncXL(size.width)
        self.encoder = ConformerEncoder(
            num_layers=size.layers,
            d_model=size.width,
            d_ffn=size.hidden,
            nhead=size.heads,
            kernel_size=size.kernel,
            dropout=size.dropout,
        )

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        encoded: Tensor = self.encoder(tokens, src_key_padding_mask=padding, pos_embs=self.positions(tokens))[0]
        return encoded


PEERS: dict[Peer, Callable[[int, int, Size], AcousticModel]] = {
    "torchaudio": TorchaudioConformer,
    "speechbrain": SpeechBrainConformer,
}


def parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def matched(peer: Peer, bins: int, outputs: int, size: Size, wanted: int) -> Size:
    """``size`` with the hidden width that brings the peer nearest to ``wanted`` parameters."""

    def count(hidden: int) -> int:
        with torch.device("meta"):
            return parameters(PEERS[peer](bins, outputs, replace(size, hidden=hidden)))

    base, step = count(STEP), count(2 * STEP) - count(STEP)
    return replace(size, hidden=STEP * max(1, 1 + round((wanted - base) / step)))
