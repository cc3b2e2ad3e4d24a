"""Every setting of the network, as plain data: numbers, words and tuples of them, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. The defaults are Mix Transformer B0 with DAFormer's head, as released."""

    widths: tuple[int, ...] = (32, 64, 160, 256)
    """Width of a token in each stage; strides are 4, 8, 16, 32."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Blocks of each stage; each is attention and feed-forward."""
    heads: tuple[int, ...] = (1, 2, 5, 8)
    """Attention heads of each stage; must divide its width."""
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    """Rows and columns of the grid that keys and values of each stage are made of, in cells of so many tokens."""
    expansion: int = 4
    """Hidden units of a feed-forward, in widths."""
    mixer: str = "sra"
    """Token mixer, a name in ``core.attention.MIXERS``; it must take any number of tokens, and read all of them.
    ``sra``: spatial-reduction attention, the published one. The cost of most others grows with the square of pixels."""
    feedforward: str = "mixffn"
    """Feed-forward, a name in ``core.feedforward.FEEDFORWARDS``. ``mixffn``: with a depth-wise convolution, the
    published one, and with ``sra`` all that tells where a token is besides the transitions."""
    norm: str = "layernorm"
    """Norm of the encoder, a name in ``core.norm.NORMS``."""
    norm_eps: float = 1e-6
    """Inside the square root of the norms of blocks and stages."""
    inner_norm_eps: float = 1e-5
    """Likewise of transitions and reductions. 1e-5 is as released; mmsegmentation has 1e-6 there too."""
    placement: Literal["pre", "post", "peri", "none"] = "pre"
    """Where the norm stands in a sublayer."""
    drop_path: float = 0.1
    """Stochastic depth: probability of dropping what the last block adds to an image, rising from 0 at the first."""
    context: Literal["fused", "last", "none"] = "fused"
    """What the head's branches of several dilations read: the fused features of all stages (DAFormer), those of the
    last stage alone, or nothing, the features being fused by one 1 x 1 convolution (SegFormer)."""
    embedding: Literal["linear", "convolution"] = "linear"
    """How the head brings features to its width: a linear map (DAFormer, SegFormer's authors), or a convolution without
    bias, a norm and ReLU (SegFormer in mmsegmentation)."""
    head_width: int = 256
    """Channels inside the head."""
    dilations: tuple[int, ...] = (1, 6, 12, 18)
    """Of the branches; 1 stands for a 1 x 1 convolution."""
    separable: bool = True
    """Dilated convolutions are depth-wise, with a 1 x 1 convolution after each; otherwise they are full."""
    head_norm: str = "batchnorm"
    """Norm inside the head, a name in ``core.norm.NORMS``."""
    head_dropout: float = 0.1
    """Of whole channels before the classifier."""

    def __post_init__(self) -> None:
        stages = len(self.widths)
        for name in ("widths", "depths", "heads", "reductions", "dilations"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InputError(f"must be numbers of at least 1, got {values}", where=f"model.{name}")
            if name != "dilations" and len(values) != stages:
                raise InputError(f"{len(values)} numbers for {stages} stages", where=f"model.{name}")
        for name in ("expansion", "head_width"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", where=f"model.{name}")
        for name in ("drop_path", "head_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"must lie in [0, 1), got {getattr(self, name)}", where=f"model.{name}")


@dataclass(frozen=True)
class Size:
    """One of the published encoders.

    Attributes:
        widths: of the stages.
        depths: blocks of the stages.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def model(self) -> ModelConfig:
        """The network with this encoder.

        >>> SIZES["b5"].model().depths
        (3, 6, 40, 3)
        """
        return ModelConfig(widths=self.widths, depths=self.depths)


_WIDE = (64, 128, 320, 512)
SIZES: dict[str, Size] = {
    "b0": Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": Size(_WIDE, (2, 2, 2, 2)),
    "b2": Size(_WIDE, (3, 4, 6, 3)),
    "b3": Size(_WIDE, (3, 4, 18, 3)),
    "b4": Size(_WIDE, (3, 8, 27, 3)),
    "b5": Size(_WIDE, (3, 6, 40, 3)),
}
"""Mix Transformers as published with SegFormer (arXiv 2105.15203); DAFormer has B5."""
