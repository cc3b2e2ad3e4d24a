"""What every normalisation layer offers: a masked forward, and folding into the linear map that follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.errors import InputError


class Norm(nn.Module, ABC):
    """A normalisation of the last axis: ``(...,D) -> (...,D)``, in the dtype of its input.

    Args:
        width: D.
        eps: added to the mean square (or variance) inside the square root.

    Attributes:
        by_sequence: outside training too, a token's result depends on the other real tokens of its sequence.
        source: whose idea it is.
        cost: what it computes, and what of it :meth:`fold_into` spares.
    """

    by_sequence: ClassVar[bool] = False
    source: ClassVar[str]
    cost: ClassVar[str]

    parameter_roles: ClassVar[Mapping[str, str]] = {"weight": "norm", "bias": "norm"}

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        if width < 1 or not eps > 0:
            raise InputError(f"a norm needs width >= 1 and eps > 0, not width {width} and eps {eps}")
        self.width, self.eps = width, eps

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Normalise ``x``; ``mask`` (True = real) tells norms whose statistics run over tokens which of them count."""

    @abstractmethod
    def fold_into(self, linear: nn.Linear) -> tuple[Norm, nn.Linear]:
        """``(norm', linear')`` with ``linear'(norm'(x)) == linear(norm(x))``; both new, the originals unchanged.

        Raises:
            InputError: the linear map does not read this norm's width.
        """

    def extra_repr(self) -> str:
        """Width and eps, for ``print(module)``."""
        return f"{self.width}, eps={self.eps}"


def fold_affine(linear: nn.Linear, scale: Tensor, shift: Tensor | None) -> nn.Linear:
    """The linear map that equals ``linear(scale * z + shift)``: W' = W diag(scale), b' = b + W shift.

    Computed in float64 and cast once, so that the only error is the rounding of the result.

    >>> linear = nn.Linear(3, 2)
    >>> folded = fold_affine(linear, torch.tensor([1.0, 2.0, 4.0]), None)
    >>> torch.equal(folded.weight, linear.weight * torch.tensor([1.0, 2.0, 4.0]))
    True
    """
    if linear.in_features != scale.shape[0]:
        raise InputError(
            f"cannot fold a norm of width {scale.shape[0]} into a linear map that reads {linear.in_features}"
        )
    with torch.no_grad():
        weight = linear.weight.double()
        bias = None if linear.bias is None else linear.bias.double()
        if shift is not None:
            moved = weight @ shift.double()
            bias = moved if bias is None else bias + moved
        # Made without storage first: a default initialisation would be wasted, and would advance the random state.
        folded = nn.Linear(
            linear.in_features, linear.out_features, bias=bias is not None, device="meta", dtype=linear.weight.dtype
        ).to_empty(device=linear.weight.device)
        folded.weight.copy_(weight * scale.double())
        if bias is not None:
            folded.bias.copy_(bias)
    return folded.train(linear.training)
