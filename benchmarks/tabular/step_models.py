"""Our ExcelFormer and pytorch-frame's at one size, each as a training step and an inference pass on the same rows.

Both get the same optimiser class (``torch.optim.AdamW`` at its defaults), the same attention dropout, one output and a
squared error; autocast to bfloat16 covers the forward pass of both. The networks are not the same function:
pytorch-frame takes the residual of attention from the normalised input, has a norm before the first attention, and
reads its output with another head. The matrix products of their blocks are of equal size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Precision = Literal["fp32", "bf16"]
Contender = Literal["ours", "pytorch_frame"]

ATTENTION_DROPOUT = 0.3


@dataclass(frozen=True, kw_only=True)
class Point:
    """A size: features N, batch B, width D, heads, layers."""

    features: int
    batch: int
    width: int
    heads: int = 8
    layers: int = 3


@dataclass(frozen=True)
class Candidate:
    """One contender, ready to be timed."""

    step: Callable[[], None]
    infer: Callable[[], None]
    parameters: int


def build(contender: Contender, point: Point, precision: Precision) -> Candidate:
    """Model, optimiser and rows of a contender; equal rows for equal points."""
    torch.manual_seed(0)
    x, y = torch.randn(point.batch, point.features), torch.randn(point.batch)
    model, forward = MODELS[contender](point, x)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        model.train()
        with autocast(precision):
            output = forward()
        loss = functional.mse_loss(output.float().view(-1), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.inference_mode()
    def infer() -> None:
        model.eval()
        with autocast(precision):
            forward()

    return Candidate(step, infer, sum(parameter.numel() for parameter in model.parameters()))


def autocast(precision: Precision) -> AbstractContextManager[object]:
    """bfloat16 matrix products on the processor, or nothing."""
    return nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=torch.bfloat16)


def _ours(point: Point, x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    from apps.tabular.prediction.config import ModelConfig
    from apps.tabular.prediction.model import ExcelFormer

    config = ModelConfig(width=point.width, heads=point.heads, layers=point.layers, attention_dropout=ATTENTION_DROPOUT)
    model = ExcelFormer(point.features, 1, config)
    return model, lambda: model(x)


def _pytorch_frame(point: Point, x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    from torch_frame import TensorFrame, numerical
    from torch_frame.data.stats import StatType
    from torch_frame.nn import ExcelFormer

    names = {numerical: [f"c{index}" for index in range(point.features)]}
    rows = TensorFrame({numerical: x}, names)
    model: nn.Module = ExcelFormer(
        in_channels=point.width,
        out_channels=1,
        num_cols=point.features,
        num_layers=point.layers,
        num_heads=point.heads,
        col_stats={name: {StatType.MEAN: 0.0, StatType.STD: 1.0} for name in names[numerical]},
        col_names_dict=names,
        diam_dropout=ATTENTION_DROPOUT,
    )
    return model, lambda: model(rows)


MODELS: dict[Contender, Callable[[Point, Tensor], tuple[nn.Module, Callable[[], Tensor]]]] = {
    "ours": _ours,
    "pytorch_frame": _pytorch_frame,
}
