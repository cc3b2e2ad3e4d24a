"""Our networks and mmsegmentation's, with the same weights, and what is timed of them.

mmsegmentation (1.2.2, on mmcv without its compiled operations) has Mix Transformers and SegFormer's head. It has no
DAFormer; :class:`TheirHead` is put together of its modules as the released program does it. Weights are ours,
disturbed so that none is zero or one, and given to theirs by name (:mod:`apps.vision.segmentation.weights`), and the
eps inside all norms is theirs: each pair is one function, which :func:`difference` is to confirm before a clock starts.

Inference is evaluation mode without gradients; a training step a forward pass in training mode, stochastic depth
included, and a backward pass from fixed gradients of what comes out, as a head would send them. ``bf16`` is autocast
around the forward pass, for both.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from apps.vision.segmentation.config import SIZES, ModelConfig
from apps.vision.segmentation.mmseg import mmseg_module
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.weights import encoder_state, head_state

Side = Literal["ours", "mmseg"]
Precision = Literal["fp32", "bf16"]
Mode = Literal["infer", "step"]
OURS: Side = "ours"
THEIRS: Side = "mmseg"
SIDES = (OURS, THEIRS)

CLASSES = 19
PACKAGES = ("torch", "mmsegmentation", "mmcv-lite", "mmengine")
#: What decides the cost of our networks, and how it is measured.
SOURCES = (
    *(f"apps/vision/segmentation/{name}.py" for name in ("model", "head", "config")),
    *(f"core/{room}" for room in ("attention", "feedforward", "kernels", "layout", "norm")),
    "core/grid.py",
    "benchmarks/segmentation",
    *(f"benchmarks/common/{name}.py" for name in ("measure", "memory", "rounds")),
)


@dataclass(frozen=True)
class Load:
    """Rows and columns of an image, images in a batch."""

    rows: int
    columns: int
    batch: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns} x {self.batch}"

    def images(self) -> Tensor:
        """The batch."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, 3, self.rows, self.columns, generator=generator)


def theirs(module: str) -> Any:
    """A module of mmsegmentation."""
    return mmseg_module(f"mmseg.{module}")


def our_config(size: str, **changes: Any) -> ModelConfig:
    """A published size with the eps of mmsegmentation."""
    return replace(SIZES[size].model(), inner_norm_eps=1e-6, **changes)


def our_network(config: ModelConfig) -> Segmentor:
    """With disturbed initial weights, in evaluation mode."""
    torch.manual_seed(0)
    network = Segmentor(CLASSES, config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def their_encoder(network: Segmentor) -> nn.Module:
    """mmsegmentation's encoder with the weights of ours."""
    config = network.config
    peer: nn.Module = theirs("models.backbones").MixVisionTransformer(
        embed_dims=config.widths[0] // config.heads[0],
        num_layers=list(config.depths),
        num_heads=list(config.heads),
        drop_path_rate=config.drop_path,
    )
    peer.load_state_dict(encoder_state(network, "mmsegmentation"))
    return peer.eval()


class TheirHead(nn.Module):
    """DAFormer's head of mmsegmentation's modules, under the names of the released program."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.head_width
        kinds: dict[str, Any] = {"norm_cfg": {"type": "BN"}, "act_cfg": {"type": "ReLU"}}
        aspp = theirs("models.decode_heads.sep_aspp_head")
        embeddings = [nn.ModuleDict({"proj": nn.Linear(channels, width)}) for channels in config.widths]
        self.embed_layers = nn.ModuleList(embeddings)
        joined = width * len(config.widths)
        self.fuse_layer = nn.ModuleDict(
            {
                "aspp_modules": aspp.DepthwiseSeparableASPPModule(
                    dilations=config.dilations, in_channels=joined, channels=width, conv_cfg=None, **kinds
                ),
                "bottleneck": aspp.ConvModule(len(config.dilations) * width, width, 3, padding=1, **kinds),
            }
        )
        self.dropout = nn.Dropout2d(config.head_dropout)
        self.conv_seg = nn.Conv2d(width, CLASSES, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits at the grid of the first feature."""
        grid, maps = features[0].shape[2:], []
        for embed, feature in zip(self.embed_layers, features, strict=True):
            linear = cast(nn.ModuleDict, embed)["proj"]
            z = linear(feature.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, feature.shape[2:])
            maps.append(functional.interpolate(z, grid, mode="bilinear", align_corners=False))
        branches = self.fuse_layer["aspp_modules"](torch.cat(maps, dim=1))
        logits: Tensor = self.conv_seg(self.dropout(self.fuse_layer["bottleneck"](torch.cat(branches, dim=1))))
        return logits


def their_head(network: Segmentor) -> nn.Module:
    """The head with the weights of ours: DAFormer's, or mmsegmentation's own of SegFormer."""
    config, peer = network.config, cast(nn.Module, None)
    if config.context == "fused":
        peer = TheirHead(config)
        state = head_state(network, "daformer")
    else:
        peer = their_own_head("SegformerHead", config)
        state = head_state(network, "mmsegmentation")
    missing, foreign = peer.load_state_dict(state, strict=False)
    wrong = [name for name in (*missing, *foreign) if not name.endswith("num_batches_tracked")]
    if wrong:
        raise RuntimeError(f"weights without a place: {', '.join(wrong)}")
    return peer.eval()


def their_own_head(name: str, config: ModelConfig, **options: Any) -> nn.Module:
    """A head as mmsegmentation has it, over all four features unless ``options`` say otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"in_channels": list(config.widths), "in_index": [0, 1, 2, 3], **options}
        kinds = {"norm_cfg": {"type": "BN"}, "dropout_ratio": config.head_dropout}
        head: nn.Module = getattr(theirs("models.decode_heads"), name)(
            **given, **kinds, channels=config.head_width, num_classes=CLASSES, align_corners=False
        )
    return head.eval()


class TheirNetwork(nn.Module):
    """Encoder and head."""

    def __init__(self, network: Segmentor) -> None:
        super().__init__()
        self.encoder, self.head = their_encoder(network), their_head(network)

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Maps of images."""
        found: Sequence[Tensor] = self.encoder(images)
        return found

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """Logits of them."""
        found: Tensor = self.head(features)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return self.logits(self.features(images))


@dataclass(frozen=True)
class Pass:
    """What is timed; calling it runs it once."""

    network: nn.Module
    given: Tensor | Sequence[Tensor]
    precision: Precision
    gradients_of_results: list[Tensor] = field(default_factory=list)

    def forward(self) -> tuple[Tensor, ...]:
        """What the network gives."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.network(self.given)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    def __call__(self) -> None:
        if not self.network.training:
            with torch.inference_mode():
                self.forward()
            return
        self.network.zero_grad(set_to_none=True)
        results = self.forward()
        torch.autograd.backward(results, self._told(results))

    def _told(self, results: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of the results: fixed numbers, in their layout, made at the first pass."""
        if not self.gradients_of_results:
            generator = torch.Generator().manual_seed(4)
            drawn = [torch.randn(result.shape, generator=generator).to(result.dtype) for result in results]
            laid = [torch.empty_like(result).copy_(each) for result, each in zip(results, drawn, strict=True)]
            self.gradients_of_results.extend(each.detach() for each in laid)
        return self.gradients_of_results

    def gradients(self) -> dict[str, Tensor]:
        """Those of the weights, after a training step."""
        return {name: weight.grad for name, weight in self.network.named_parameters() if weight.grad is not None}


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest, over pairs of tensors, root mean square of their difference in that of the second.

    >>> difference([torch.tensor([3.0, 4.4])], [torch.tensor([3.0, 4.0])])
    0.08000000566244125
    """
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, wanted, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


#: How far results may be apart, as :func:`difference` says it: order of summation, or rounding to 8 bits.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.05}
#: Likewise gradients, through which rounding goes twice.
GRADIENT_TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.15}


def demand_equal(what: str, apart: float, precision: Precision, *, gradients: bool = False) -> None:
    """Stop where two sides are not one function."""
    if not apart <= (GRADIENT_TOLERANCES if gradients else TOLERANCES)[precision]:
        raise RuntimeError(f"{what} in {precision}: ours and theirs are {apart:.2g} apart")
