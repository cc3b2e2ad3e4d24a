"""Linformer: attention over K learned mixtures of the keys (Wang et al., arXiv 2006.04768).

    y = softmax(q (E k)^T / sqrt(D/H)) (F v),   E, F in R^(K x N), the same for all heads

O(N K) a head instead of O(N^2). A sequence of n < N tokens uses the first n columns. Masked keys and values are set to
zero before the mixture: the same as leaving out their columns (ours; github.com/lucidrains/linformer lets padding in).
Mixtures are of all tokens, so that there is no causal form and no mask of pairs.

Initialisation: E and F U(-1/sqrt(K), 1/sqrt(K)). K is 256 by default, or N where that is less. ``shared`` is the
paper's sharing of keys and values, F = E.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities
from core.attention.headed import HeadedAttention
from core.errors import InputError

_MIXTURES = 256


class Linformer(HeadedAttention):
    """Multi-head attention over mixtures of the tokens, with the linear maps of softmax attention.

    Args:
        width: D.
        heads: H; divides D.
        tokens: N, tokens at most.
        k: K, mixtures; None is 256, or N where that is less.
        shared: one matrix mixes keys and values.
        bias: biases in both linear maps.
        dropout: probability of dropping an attention probability, in training.
        init_scale: s of the range that ``qkv`` is drawn from.
        project: False leaves out the output projection.

    Raises:
        InputError: ``k`` < 1, ``heads`` that do not divide ``width``, or ``dropout`` outside [0, 1).

    >>> mixer = Linformer(8, 2, tokens=100, k=16)
    >>> mixer(torch.zeros(3, 100, 8)).shape, mixer(torch.zeros(3, 7, 8)).shape
    (torch.Size([3, 100, 8]), torch.Size([3, 7, 8]))
    """

    parameter_roles: ClassVar[Mapping[str, str]] = {"mix_keys": "matrix", "mix_values": "matrix"}
    capabilities = Capabilities(bounded_length=True, packed=True, masked=True)
    source = "Wang et al., arXiv 2006.04768"
    cost = "4 N D^2 + 4 N D k"

    def __init__(
        self,
        width: int,
        heads: int,
        tokens: int,
        *,
        k: int | None = None,
        shared: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        project: bool = True,
    ) -> None:
        maps = {"bias": bias, "project": project}
        super().__init__(width, heads, dropout=dropout, init_scale=init_scale, tokens=tokens, **maps)
        k = min(_MIXTURES, max(tokens, 1)) if k is None else k
        if k < 1:
            raise InputError(f"needs at least one mixture of tokens, not {k}", where="Linformer")
        self.mix_keys = nn.Parameter(torch.empty(k, tokens).uniform_(-1 / math.sqrt(k), 1 / math.sqrt(k)))
        self.mix_values = None
        if not shared:
            self.mix_values = nn.Parameter(torch.empty(k, tokens).uniform_(-1 / math.sqrt(k), 1 / math.sqrt(k)))

    def attend(
        self,
        q: Float[Tensor, "B H N d"],
        k: Float[Tensor, "B H N d"],
        v: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B H N d"]:
        """Attention of the heads over the mixtures."""
        if mask is not None:
            k, v = (x.masked_fill(~mask[:, None, :, None], 0.0) for x in (k, v))
        n = q.shape[2]
        keys = self.mix_keys[:, :n] @ k
        values = (self.mix_keys if self.mix_values is None else self.mix_values)[:, :n] @ v
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, keys, values, dropout_p=dropout)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        shared = self.mix_values is None
        return f"heads={self.heads}, tokens={self.tokens}, k={len(self.mix_keys)}, shared={shared}"
