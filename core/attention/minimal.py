"""Attention with fewer matrices ("Reducing the Transformer architecture to a minimum", arXiv 2410.13732).

    y = A V W_O,   A = softmax(S / sqrt(D)),   one head

    qk  "full"       S = (x W_Q) (x W_K)^T          2 D^2 weights
        "collapsed"  S = (x W_QK) x^T                 D^2
        "symmetric"  S = (x T) (x T)^T                D (D + 1) / 2, T lower triangular
    vo  "full"       y = A x W_V W_O                2 D^2
        "collapsed"  y = A x W_VO                     D^2
        "none"       y = A x                            0

W_Q W_K^T is one matrix as far as the scores go, and W_V W_O as far as the result goes, so that with one head nothing is
lost by collapsing; with H heads a collapsed matrix for each would be larger than its factors. Every symmetric positive
semi-definite matrix is T T^T, also those that the authors get by W_K = W_Q. No biases, as their algebra has none,
unless ``bias``: then each map has one, and what collapsing leaves of full attention's is exact (ours):

    qk  (x W_Q + b_Q)(x W_K + b_K)^T = (x W_QK + b_Q W_K^T) x^T + terms that are equal for all keys of a query
    vo  A (x W_V + b_V) W_O + b_O = A x W_VO + [shift, where the query reads any key] + b_O,  shift = b_V W_O

The scale, which the text does not state, is that of softmax attention. Initialisation (ours): matrices U(-s/sqrt(D),
s/sqrt(D)), s = ``init_scale``, and 1 for the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities, Mixer
from core.attention.headed import attend_groups, check_heads
from core.attention.softmax import allowed_keys, softmax_attention
from core.errors import InputError, nearest
from core.initialisation import uniform_fan_in_
from core.sequence import Ragged

Similarity = Literal["full", "collapsed", "symmetric"]
Values = Literal["full", "collapsed", "none"]


class MinimalAttention(Mixer):
    """Single-head softmax attention with collapsed, tied or absent matrices.

    Args:
        width: D.
        qk: how queries meet keys: "full", "collapsed" or "symmetric".
        vo: what becomes of the values: "full", "collapsed" or "none".
        causal: position i reads positions <= i only.
        dropout: probability of dropping an attention probability, in training.
        init_scale: s of the range that all matrices but the last are drawn from.
        bias: biases in the linear maps, and with ``vo="collapsed"`` a shift of what reads any key.

    Raises:
        InputError: no such ``qk`` or ``vo``, or ``dropout`` outside [0, 1).

    >>> for qk, vo in (("full", "full"), ("collapsed", "collapsed"), ("symmetric", "none")):
    ...     sum(p.numel() for p in MinimalAttention(8, qk=qk, vo=vo).parameters())
    256
    128
    36
    """

    places: Tensor

    parameter_roles: ClassVar[Mapping[str, str]] = {"triangle": "matrix", "shift": "bias"}
    capabilities = Capabilities(causal=True, packed=True, masked=True, pairwise=True)
    source = "Reducing the Transformer architecture to a minimum, arXiv 2410.13732"
    cost = "2 N D^2 + 2 N^2 D; N D^2 more for each 'full', less with vo='none'"

    def __init__(
        self,
        width: int,
        *,
        qk: Similarity = "collapsed",
        vo: Values = "collapsed",
        causal: bool = False,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        bias: bool = False,
    ) -> None:
        super().__init__(width)
        check_heads(width, 1, dropout, "minimal attention")
        for name, value, known in (("qk", qk, get_args(Similarity)), ("vo", vo, get_args(Values))):
            if value not in known:
                raise InputError(f"no {name} {value!r}", where="minimal attention", mend=nearest(value, list(known)))
        self.qk, self.vo, self.causal, self.dropout = qk, vo, causal, dropout
        self.query, self.key = self._map(qk != "symmetric", init_scale, bias), self._map(qk == "full", init_scale, bias)
        self.value, self.out = self._map(vo == "full", init_scale, bias), self._map(vo != "none", 1.0, bias)
        self.shift = nn.Parameter(torch.zeros(width)) if bias and vo == "collapsed" else None
        if qk == "symmetric":
            bound, (row, column) = init_scale / math.sqrt(width), torch.tril_indices(width, width)
            self.triangle = nn.Parameter(torch.empty(len(row)).uniform_(-bound, bound))
            self.register_buffer("places", row * width + column, persistent=False)

    def _map(self, wanted: bool, scale: float, bias: bool) -> nn.Linear | None:
        if not wanted:
            return None
        linear = nn.Linear(self.width, self.width, bias=bias)
        uniform_fan_in_(linear, scale)
        return linear

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Attend within each sequence."""
        q, k, v = (part[:, None] for part in self._parts(x))
        return self._shifted(self._projected(self._attend(q, k, v, mask, pair_mask)[:, 0]), mask, pair_mask)

    def mix_packed(self, rows: Float[Tensor, "total D"], ragged: Ragged) -> Float[Tensor, "total D"]:
        """Attend within each sequence, one group of like length after another."""
        parts = self._parts(rows.index_select(0, ragged.by_length.order))
        y = attend_groups(torch.stack(parts, dim=1)[:, :, None], ragged, self._attend)
        return self._shifted(self._projected(y.flatten(1))).index_select(0, ragged.by_length.back)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        value = x if self.value is None else self.value(x)
        if self.qk == "symmetric":
            size = self.width**2
            flat = self.triangle.new_zeros(size).index_copy(0, self.places, self.triangle)
            turned = x @ flat.view(self.width, self.width).to(x.dtype)
            return turned, turned, value
        query = x if self.query is None else self.query(x)
        return query, x.to(query.dtype) if self.key is None else self.key(x), value

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, pair_mask: Tensor | None
    ) -> Float[Tensor, "B 1 N D"]:
        dropout = self.dropout if self.training else 0.0
        v = v.to(q.dtype)
        return softmax_attention(q, k, v, key_mask=mask, pair_mask=pair_mask, causal=self.causal, dropout=dropout)

    def _projected(self, y: Tensor) -> Tensor:
        projected: Tensor = y if self.out is None else self.out(y)
        return projected

    def _shifted(self, y: Tensor, mask: Tensor | None = None, pair_mask: Tensor | None = None) -> Tensor:
        """With the shift, where a query reads any key: without a mask of pairs, each reads itself at least."""
        if self.shift is None:
            return y
        shift = self.shift.to(y.dtype)
        if pair_mask is None:
            return y + shift
        allowed = allowed_keys(mask, pair_mask, self.causal, y)
        assert allowed is not None
        reads = allowed.any(-1)
        return y + (reads[:, 0] if reads.ndim == 3 else reads)[..., None] * shift

    def input_maps(self) -> Sequence[nn.Module]:
        """The maps to queries, keys and values, where all three exist."""
        maps = [linear for linear in (self.query, self.key, self.value) if linear is not None]
        return tuple(maps) if len(maps) == 3 else ()

    def output_maps(self) -> Sequence[nn.Module]:
        """The last map, where there is one, and no shift is added to what it gives."""
        return () if self.out is None or self.shift is not None else (self.out,)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"qk={self.qk}, vo={self.vo}, causal={self.causal}, dropout={self.dropout}"
