"""One residual sublayer: a block f, its norm or norms n, and how they are placed around the residual stream x.

    pre   x + f(n(x))           (Xiong et al., arXiv 2002.04745)
    post  n(x + f(x))           (Vaswani et al., arXiv 1706.03762)
    peri  x + n2(f(n1(x)))      (Kim et al., arXiv 2502.02732)
    none  x + f(x)

Dropout is applied to what is added to the stream: f(n(x)), f(x), n2(f(n1(x))) and f(x) respectively. With an input
scale (``core.layout.scale``) f(z) is f(a * z + b) throughout; x itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.kernels import Dropout
from core.layout.scale import InputScale
from core.norm import Norm

Placement = Literal["pre", "post", "peri", "none"]
NORM_COUNTS: dict[str, int] = {"pre": 1, "post": 1, "peri": 2, "none": 0}


class Residual(nn.Module):
    """A block with a residual connection.

    Args:
        block: ``(...,D) -> (...,D)``.
        placement: where the norms are.
        norms: one norm for ``pre`` and ``post``, two for ``peri`` (inner, outer), none for ``none``.
        drop: probability of dropping a number that is added to the stream, in training.
        scale: of the block's input.

    >>> import torch
    >>> Residual(nn.Identity(), "none")(torch.tensor([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """

    def __init__(
        self,
        block: nn.Module,
        placement: Placement,
        *norms: Norm,
        drop: float = 0.0,
        scale: InputScale | None = None,
    ) -> None:
        super().__init__()
        wanted = NORM_COUNTS[placement]
        if len(norms) != wanted:
            raise TypeError(f"placement {placement!r} takes {wanted} norms, not {len(norms)}")
        self.placement = placement
        self.norms = nn.ModuleList(norms)
        self.scale = scale
        self.block = block
        self.drop = Dropout(drop)

    def forward(
        self, x: Float[Tensor, "*tokens D"], *, norm_mask: Bool[Tensor, "*tokens"] | None = None, **context: Any
    ) -> Float[Tensor, "*tokens D"]:
        """Add the block's branch to the stream; ``norm_mask`` goes to the norms, ``context`` to the block."""
        if self.placement == "post":
            y: Tensor = self.norms[0](x + self.drop(self._branch(x, context)), norm_mask)
            return y
        inner = x if self.placement == "none" else self.norms[0](x, norm_mask)
        branch = self._branch(inner, context)
        if self.placement == "peri":
            branch = self.norms[1](branch, norm_mask)
        added: Tensor = x + self.drop(branch)
        return added

    def _branch(self, x: Tensor, context: Mapping[str, Any]) -> Tensor:
        y: Tensor = self.block(x if self.scale is None else self.scale(x), **context)
        return y

    def extra_repr(self) -> str:
        """The placement, for ``print(module)``."""
        return f"placement={self.placement}"
