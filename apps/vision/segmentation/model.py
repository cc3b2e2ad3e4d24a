"""A Mix Transformer and a head that fuses its stages: SegFormer's encoder, DAFormer's network.

Source: Xie et al., SegFormer (arXiv 2105.15203) for the encoder; Hoyer, Dai and Van Gool, DAFormer (CVPR 2022, arXiv
2111.14887) for the head, whose released program the defaults follow.

    F_1, ..., F_4 = encoder(image)       strides 4, 8, 16, 32
    logits = head(F_1, ..., F_4)         stride 4

The encoder is a pyramid (``core.layout.pyramid``) of blocks x + f(norm(x)), with f spatial-reduction attention and the
mixing feed-forward; there are no positions besides what the convolutions see at the border.

Images of any size are taken as they are: a stage has ceil(n / 2) of n rows (the first: ceil(n / 4)), the convolutions'
own zeros being the only padding. Logits have ceil(H/4) rows. Attention drops what does not fill a cell, and where a
grid has no cell it adds nothing but its bias; sides of 32 or more always have cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from apps.vision.segmentation.config import ModelConfig
from apps.vision.segmentation.head import Head
from apps.vision.segmentation.initialisation import official_, official_encoder_
from core.errors import InputError
from core.layout import Entry, Pyramid, Request, Stage, feedforward_options, mixer_options, rising
from core.norm import LayerNorm

CHANNELS = 3
SUBLAYERS = 2


class Segmentor(nn.Module):
    """The network: encoder and head; starts with the official values.

    Args:
        classes: K.
        config: architecture.

    Raises:
        InputError: for a switch that this model, or one of its blocks, cannot take.

    >>> import torch
    >>> model = Segmentor(19, ModelConfig()).eval()
    >>> [tuple(feature.shape[1:]) for feature in model.features(torch.zeros(1, 3, 70, 64))]
    [(32, 18, 16), (64, 9, 8), (160, 5, 4), (256, 3, 2)]
    >>> model(torch.zeros(1, 3, 70, 64)).shape
    torch.Size([1, 19, 18, 16])
    """

    def __init__(self, classes: int, config: ModelConfig) -> None:
        super().__init__()
        if classes < 1:
            raise InputError(f"{classes} classes are none", where="Segmentor")
        self.classes, self.config = classes, config
        self.encoder = Pyramid(_stages(config), CHANNELS)
        self.head = Head(classes, config)
        official_(self.encoder, self.head)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The maps of the stages, from normalised images."""
        if images.ndim != 4 or images.shape[1] != CHANNELS or 0 in images.shape[2:]:
            raise InputError(f"images of shape {tuple(images.shape)} are not (B, {CHANNELS}, H, W)", where="Segmentor")
        found: tuple[Tensor, ...] = self.encoder(images)
        return found

    def logits(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B K h w"]:
        """Logits at the grid of the first feature, a quarter of the image's sides rounded up."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K h w"]:
        """Logits of normalised images."""
        return self.logits(self.features(images))

    def streams(self) -> Mapping[str, str | None]:
        """The stages' stacks, each with what reads its stream at the end and would notice a shift of all channels."""
        return {
            f"encoder.stages.{index}.stack": None if isinstance(stage.norm, LayerNorm) else "the norm of its stage"
            for index, stage in enumerate(self.encoder.parts())
        }

    def describe(self) -> tuple[str, ...]:
        """The parts in order, for ``info``; of blocks that are alike, the sublayers of the first.

        >>> for line in Segmentor(19, ModelConfig()).describe()[:4]:
        ...     line
        'stage 1, stride 4, width 32, 2 blocks, 164,096 parameters'
        '  transition, 4,800 parameters'
        '  mixer sra, pre layernorm, 69,920 parameters'
        '  feedforward mixffn, pre layernorm, 9,696 parameters'
        """
        lines = []
        for index, (stage, depth) in enumerate(zip(self.encoder.parts(), self.config.depths, strict=True)):
            name = f"stage {index + 1}, stride {4 * 2**index}, width {stage.stack.width}, {depth} blocks"
            lines += [_line(name, stage), _line("  transition", stage.transition)]
            lines += [f"  {sublayer}" for sublayer in stage.stack.describe()[:SUBLAYERS]]
        return (*lines, _line(f"head, context {self.config.context}", self.head))


def encoder_of(config: ModelConfig) -> Pyramid:
    """The encoder alone, with the official values.

    Raises:
        InputError: as for :class:`Segmentor`.
    """
    encoder = Pyramid(_stages(config), CHANNELS)
    official_encoder_(encoder)
    return encoder


def _stages(config: ModelConfig) -> list[Stage]:
    """The pyramid as data."""
    rates, stages = iter(rising(config.drop_path, sum(config.depths))), []
    for index, depth in enumerate(config.depths):
        layout = tuple(entry for _ in range(depth) for entry in _block(config, index, next(rates)))
        kernel, stride = (7, 4) if index == 0 else (3, 2)
        stages.append(
            Stage(
                width=config.widths[index],
                layout=layout,
                kernel=kernel,
                stride=stride,
                padding=kernel // 2,
                embed_norm=config.norm,
                embed_norm_options={"eps": config.inner_norm_eps},
                norm=config.norm,
                norm_options={"eps": config.norm_eps},
            )
        )
    return stages


def _block(config: ModelConfig, stage: int, drop_path: float) -> tuple[Entry, Entry]:
    """Attention and feed-forward of a stage."""
    common: dict[str, Any] = {
        "norm": config.norm,
        "norm_options": {"eps": config.norm_eps},
        "placement": config.placement,
        "drop_path": drop_path,
    }
    width = config.widths[stage]
    request = Request(any_length=True, grid=True)
    offered = {
        "heads": config.heads[stage],
        "reduction": config.reductions[stage],
        "eps": config.inner_norm_eps,
    }
    mixer = mixer_options(config.mixer, request, offered, host="images")
    feedforward = feedforward_options(config.feedforward, config.expansion * width, {"activation": "gelu"}, grid=True)
    return Entry("mixer", config.mixer, mixer, **common), Entry(
        "feedforward", config.feedforward, feedforward, **common
    )


def _line(name: str, module: nn.Module) -> str:
    return f"{name}, {sum(parameter.numel() for parameter in module.parameters()):,} parameters"
