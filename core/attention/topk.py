"""Selective hard attention: each query reads the K keys of highest score (AxFormer, arXiv 2010.03688).

    S = q k^T / sqrt(D/H) [+ bias],   y_i = sum_j softmax_j(S_i restricted to its K largest readable scores) v_j

Of equal scores the earlier key is taken. With K >= N it is softmax attention. Selection by sorting, N^2 log N a head;
it is piecewise constant, so that gradients are those of attention over the chosen keys.

Known from the abstract alone: there layers and K are picked by a validation score; here K is the caller's, and 8 ours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.attention.base import Capabilities
from core.attention.softmax import SoftmaxAttention, allowed_keys, attend
from core.errors import InputError


def top_keys(
    scores: Float[Tensor, "*heads N M"], allowed: Bool[Tensor, "*_ M"] | None, k: int
) -> Bool[Tensor, "*heads N M"]:
    """True at the k highest scores of each row among the allowed keys; of equal ones the earlier.

    >>> top_keys(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), torch.tensor([[True, True, True, False]]), 1).tolist()
    [[False, True, False, False]]
    """
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    first = (torch.arange(scores.shape[-1], device=scores.device) < k).expand_as(order)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, first)
    return chosen if allowed is None else chosen & allowed


class TopKAttention(SoftmaxAttention):
    """Softmax attention over the K keys of highest score.

    Otherwise as :class:`core.attention.SoftmaxAttention`.

    Args:
        width: D.
        heads: H; divides D.
        k: K, keys that a query reads at most.
        causal: position i reads positions <= i only.
        bias: biases in both maps.
        dropout: probability of dropping an attention probability, in training.
        position: "none", "rotary" or "alibi"; see ``core.position``.
        init_scale: s of the range that ``qkv`` is drawn from.
        project: False leaves out the output projection.

    Raises:
        InputError: as of softmax attention, or ``k`` < 1.

    >>> TopKAttention(8, 2, k=3)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    capabilities = Capabilities(causal=True, packed=True, masked=True, pairwise=True, selects=True)
    source = "AxFormer [abs], arXiv 2010.03688"
    cost = "4 N D^2 + 3 N^2 D; N^2 log N comparisons a head"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        k: int = 8,
        causal: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        position: str = "none",
        init_scale: float = 1.0,
        project: bool = True,
    ) -> None:
        options = {"causal": causal, "bias": bias, "project": project}
        super().__init__(width, heads, dropout=dropout, position=position, init_scale=init_scale, **options)
        if k < 1:
            raise InputError(f"a query must read at least 1 key, not {k}", where="top-k attention")
        self.k = k

    def attend(
        self,
        q: Float[Tensor, "B H N d"],
        k: Float[Tensor, "B H N d"],
        v: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B H N d"]:
        """Attention of the heads over the chosen keys."""
        queries, keys = self.position.turn(q) * (1 / math.sqrt(q.shape[-1])), self.position.turn(k)
        bias = self.position.bias(q.shape[2], q)
        with torch.no_grad():
            scores = queries @ keys.mT
            allowed = allowed_keys(mask, pair_mask, self.causal, q)
            chosen = top_keys(scores if bias is None else scores + bias, allowed, self.k)
        return attend(queries, keys, v, bias, chosen, self.dropout if self.training else 0.0)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"k={self.k}, {super().extra_repr()}"
