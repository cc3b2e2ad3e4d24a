"""Random mixing: a frozen matrix between the positions (MetaFormer: Yu et al., arXiv 2210.13452, "RandFormer").

    y = A x,   A = softmax over rows of U,   U_ij ~ Uniform(0, 1), drawn once and never trained

With masks or causality rows are renormalised over the keys that are read (ours, ``core.attention.fixed``). No
parameters; U is saved with the weights. Cost N^2 D, for one N only.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.base import Capabilities, Mixer
from core.attention.fixed import restricted_rows


class RandomMixing(Mixer):
    """Positions added up with frozen random weights.

    Args:
        width: D.
        tokens: N.
        causal: position i reads positions <= i only.

    >>> mixer = RandomMixing(2, tokens=5)
    >>> torch.allclose(mixer(torch.ones(1, 5, 2)), torch.ones(1, 5, 2)), list(mixer.parameters())
    (True, [])
    """

    logits: Tensor

    capabilities = Capabilities(causal=True, fixed_length=True, masked=True, pairwise=True)
    source = "Yu et al., MetaFormer baselines, arXiv 2210.13452"
    cost = "N^2 D"

    def __init__(self, width: int, tokens: int, *, causal: bool = False) -> None:
        super().__init__(width, tokens)
        self.causal = causal
        self.register_buffer("logits", torch.rand(tokens, tokens))

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Mix within each sequence."""
        # The exponentials lie between 1 and e: a softmax restricted to any keys is this, and no mask can empty it.
        return restricted_rows(self.logits.exp(), mask, pair_mask, self.causal) @ x

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        return f"tokens={self.tokens}, causal={self.causal}"
