"""One residual sublayer: a block f, its norm or norms n, and how they are placed around the residual stream x.

    pre   x + f(n(x))           (Xiong et al., arXiv 2002.04745)
    post  n(x + f(x))           (Vaswani et al., arXiv 1706.03762)
    peri  x + n2(f(n1(x)))      (Kim et al., arXiv 2502.02732)
    none  x + f(x)

Dropout is applied to what is added to the stream: f(n(x)), f(x), n2(f(n1(x))) and f(x) respectively. With an input
scale (``core.layout.scale``) f(z) is f(a * z + b) throughout; x itself stays as it is. A ``factor`` multiplies what is
added, after the dropout: the half steps of a macaron block (Lu et al., arXiv 1906.02762) have 1/2. Stochastic depth
(Huang et al., arXiv 1603.09382) drops all that is added to a sequence, ``drop_path`` of the sequences, and makes up for
it in the others by 1/(1 - drop_path).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.kernels import Dropout, keep_mask
from core.layout.scale import InputScale
from core.norm import Norm
from core.sequence import Ragged

Placement = Literal["pre", "post", "peri", "none"]
NORM_COUNTS: dict[str, int] = {"pre": 1, "post": 1, "peri": 2, "none": 0}


class Residual(nn.Module):
    """A block with a residual connection.

    Args:
        block: ``(...,D) -> (...,D)``.
        placement: where the norms are.
        norms: one norm for ``pre`` and ``post``, two for ``peri`` (inner, outer), none for ``none``.
        drop: probability of dropping a number that is added to the stream, in training.
        drop_path: probability of dropping all that is added to a sequence, likewise.
        scale: of the block's input.
        factor: of what is added to the stream.

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
        factor: float = 1.0,
        drop_path: float = 0.0,
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
        self.drop_path = drop_path
        self.factor = factor

    def forward(
        self,
        x: Float[Tensor, "*tokens D"],
        *,
        norm_mask: Bool[Tensor, "*tokens"] | None = None,
        packed: Ragged | None = None,
        **context: Any,
    ) -> Float[Tensor, "*tokens D"]:
        """Add the block's branch to the stream; ``norm_mask`` goes to the norms, ``context`` to the block.

        ``packed`` says where the sequences of packed rows lie; otherwise each index of the first axis is one.
        """
        norms = tuple(self.norms)  # each index of a list of modules takes as long as the sum of 50 tokens
        if self.placement == "post":
            y: Tensor = norms[0](self._added(x, self._branch(x, context), packed), norm_mask)
            return y
        branch = self._branch(x if self.placement == "none" else norms[0](x, norm_mask), context, norms[1:], norm_mask)
        return self._added(x, branch, packed)

    def _added(self, x: Tensor, branch: Tensor, packed: Ragged | None) -> Tensor:
        """The stream and its branch, of which some sequences lost theirs."""
        if not self.training or self.drop_path == 0.0:
            return x + branch
        sequences = branch.shape[0] if packed is None else packed.lengths.shape[0]
        keep, scale = keep_mask((sequences,), self.drop_path, branch.device)
        factors = keep.to(branch.dtype) * scale
        if packed is not None:
            factors = factors.repeat_interleave(packed.lengths, output_size=branch.shape[0])
        factors = factors.view(-1, *[1] * (branch.ndim - 1))
        # At once where the stream has the branch's dtype; a wider one is not rounded to it.
        return torch.addcmul(x, branch, factors) if x.dtype == branch.dtype else x + branch * factors

    def _branch(
        self, x: Tensor, context: Mapping[str, Any], norms: Sequence[nn.Module] = (), norm_mask: Tensor | None = None
    ) -> Tensor:
        """What is added to the stream; ``norms`` are those after the block."""
        y: Tensor = self.block(x if self.scale is None else self.scale(x), **context)
        for norm in norms:
            y = norm(y, norm_mask)
        y = self.drop(y) if self.training else y
        return y if self.factor == 1.0 else self.factor * y

    def extra_repr(self) -> str:
        """The placement, and what is not as usual, for ``print(module)``."""
        options = {"factor": (self.factor, 1.0), "drop_path": (self.drop_path, 0.0)}
        shown = [f", {name}={value}" for name, (value, usual) in options.items() if value != usual]
        return f"placement={self.placement}" + "".join(shown)
