"""Self-attention with relative positions in the form of Transformer-XL (Dai et al., arXiv 1901.02860, section 3.3).

    S_ij = [ (q_i + u) . k_j + (q_i + v) . (W_p p(i-j)) ] / sqrt(D/H),   y_i = sum_j softmax_j(S_i) v_j

    p(r): component 2m is sin(r / 10000^(2m/D)), component 2m+1 the cosine of the same angle; r = i-j keeps its sign

u and v are learned, ``(H,D/H)``, one pair a layer. This is the attention of Conformer (arXiv 2005.08100) and, as its
public code has it, of Squeezeformer (arXiv 2206.00888, github.com/kssteven418/Squeezeformer), where u and v start at 0.

Shapes: projected positions ``(H,2N-1,D/H)``, rows in the order r = N-1, ..., 0, ..., -(N-1): keys of the past first.
Raw scores ``R (...,N,2N-1)`` become ``S_ij = R[i, N-1-i+j]``: the relative shift, a view of the same memory.

The scores are computed by :mod:`core.attention.rows` where no gradient is wanted, by :mod:`core.attention.blocked`
otherwise or, where that has nothing to save, as written.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Capabilities, Mixer
from core.attention.blocked import blocked_attention, in_one_block
from core.attention.headed import check_heads, check_kept, columns_of_heads, rows_of_heads
from core.attention.rows import WIDENED, attention_by_rows, faster_without_gradients
from core.attention.sinusoids import SharedTable, half_positions, project_halves, relative_positions, shared_table
from core.attention.softmax import allowed_keys, attend
from core.initialisation import uniform_fan_in_

# In training the table of sinusoids grows by so many tokens at a time, so that not every new length rebuilds it.
_GROWTH = 256
# Tokens up to which projected positions are kept. The layers of a model together keep four times its activations, and
# for longer sequences the projection is a small part of the work.
_KEPT = 128


def relative_shift(scores: Float[Tensor, "*heads N offsets"]) -> Float[Tensor, "*heads N N"]:
    """Scores by offset to scores by key, ``S[i, j] = R[i, N-1-i+j]``, as a view of contiguous ``scores``.

    >>> relative_shift(torch.tensor([[9.0, 1.0, 2.0], [3.0, 4.0, 9.0]])).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    n = scores.shape[-2]
    if n == 0:
        return scores[..., :0]
    scores = scores.contiguous()
    strides = (*scores.stride()[:-2], 2 * n - 2, 1)
    return scores.flatten(-2)[..., n - 1 :].as_strided((*scores.shape[:-1], n), strides)


def relative_attention(
    q: Float[Tensor, "B H N d"],
    k: Float[Tensor, "B H N d"],
    v: Float[Tensor, "B H N d"],
    positions: Float[Tensor, "H offsets d"],
    *,
    content_bias: Float[Tensor, "H d"],
    position_bias: Float[Tensor, "H d"],
    key_mask: Bool[Tensor, "B N"] | None = None,
    pair_mask: Bool[Tensor, "*B N N"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "B H N d"]:
    """Attention over heads with the scores of this module's head.

    Args:
        q: queries ``(B,H,N,d)``.
        k: keys, likewise; finite also where a mask excludes them.
        v: values, likewise.
        positions: ``(H,2N-1,d)``, W_p p(r) in the order of :func:`relative_positions`.
        content_bias: u ``(H,d)``.
        position_bias: v ``(H,d)`` of the equation.
        key_mask: ``(B,N)``, True at keys that may be read.
        pair_mask: ``(N,N)`` or ``(B,N,N)``, True where the query (second last axis) may read the key (last axis).
        causal: query i reads keys <= i only.
        dropout: probability of dropping an attention probability; the caller passes 0 outside training.

    Returns:
        ``(B,H,N,d)``; zeros for a query that may read nothing.

    >>> q, table = torch.ones(1, 1, 2, 1), torch.tensor([[[0.0], [0.0], [9.0]]])  # 9 for the key just ahead
    >>> u = torch.zeros(1, 1)
    >>> relative_attention(q, q, q.cumsum(2), table, content_bias=u, position_bias=u).flatten().round(
    ...     decimals=2
    ... ).tolist()
    [2.0, 1.5]
    """
    allowed = allowed_keys(key_mask, pair_mask, causal, q)
    if dropout == 0.0 and faster_without_gradients(q, k, v, positions, content_bias, position_bias):
        return attention_by_rows(q, k, v, positions, content_bias, position_bias, allowed)
    scale, positions = 1 / math.sqrt(q.shape[-1]), positions.to(q.dtype)
    q = q * scale
    content = q + (content_bias * scale).to(q.dtype)[:, None]
    position = q + (position_bias * scale).to(q.dtype)[:, None]
    if dropout == 0.0 and not in_one_block(q):
        return blocked_attention(content, position, k, v, positions, allowed)
    # One product a head for the whole batch: every sequence reads the same table.
    content, position, k, v = (tensor.transpose(0, 1) for tensor in (content, position, k, v))
    bias = relative_shift((position.flatten(1, 2) @ positions.mT).view(*position.shape[:3], positions.shape[1]))
    if allowed is not None and allowed.ndim == 4:
        allowed = allowed.transpose(0, 1)
    return attend(content, k, v, bias, allowed, dropout).transpose(0, 1)


class RelativeAttention(Mixer):
    """Multi-head self-attention over contents and relative positions.

    ``qkv`` and ``out`` are laid out as in :class:`core.attention.SoftmaxAttention`; ``position`` is W_p, D -> D without
    bias, its rows ordered by head. Head widths may be odd.

    Initialisation: weights U(-1/sqrt(D), 1/sqrt(D)), biases, u and v zero.

    In evaluation without gradients W_p p(r) is kept for the longest sequence so far that has up to 128 tokens: what a
    shorter one needs is the middle of it. The table follows its weight's version, and is in no state dict; writing
    through ``weight.data`` in evaluation mode is the one change it cannot see. Longer ones are projected in each call.

    Args:
        width: D.
        heads: H; divides D.
        causal: position i reads positions <= i only.
        dropout: probability of dropping an attention probability, in training; N x N numbers a head are then held.

    Raises:
        InputError: ``heads`` does not divide ``width``, or ``dropout`` is outside [0, 1).

    >>> mixer = RelativeAttention(6, 2)
    >>> mixer(torch.zeros(3, 5, 6)).shape, mixer.u.shape
    (torch.Size([3, 5, 6]), torch.Size([2, 3]))
    """

    capabilities = Capabilities(causal=True, packed=True, masked=True, pairwise=True)
    source = "Dai et al., Transformer-XL, arXiv 1901.02860"
    cost = "5 N D^2 + 4 N^2 D - N D; N D^2 less where the positions are kept, and in blocks of long sequences"
    parameter_roles: ClassVar[dict[str, str]] = {"u": "bias", "v": "bias"}

    def __init__(self, width: int, heads: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__(width)
        check_heads(width, heads, dropout, "relative attention")
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.position = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.u = nn.Parameter(torch.zeros(heads, width // heads))
        self.v = nn.Parameter(torch.zeros(heads, width // heads))
        for linear in (self.qkv, self.position, self.out):
            uniform_fan_in_(linear)
        self._kept: _Kept | None = None
        self._sinusoids: SharedTable | None = None

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Attend within each sequence."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = relative_attention(
            q,
            k,
            v,
            self._positions(q),
            content_bias=self.u,
            position_bias=self.v,
            key_mask=mask,
            pair_mask=pair_mask,
            causal=self.causal,
            dropout=self.dropout if self.training else 0.0,
        )
        projected: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return projected

    def train(self, mode: bool = True) -> RelativeAttention:
        """As of every module; forgets the kept positions."""
        self._kept = self._sinusoids = None
        return super().train(mode)

    def input_maps(self) -> Sequence[nn.Module]:
        """``qkv`` alone reads x."""
        return (self.qkv,)

    def output_maps(self) -> Sequence[nn.Module]:
        """The output projection."""
        return (self.out,)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"heads={self.heads}, causal={self.causal}, dropout={self.dropout}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RelativeAttention:
        # A change of device or dtype replaces the weight's data and leaves its version.
        self._kept = self._sinusoids = None
        return cast(RelativeAttention, super()._apply(fn, recurse))  # type: ignore[no-untyped-call]

    def take_heads(self, kept: Sequence[int]) -> RelativeAttention:
        """As of :class:`core.attention.HeadedAttention`."""
        check_kept(kept, self.heads, self.out, type(self).__name__)
        made: dict[int, nn.Module | nn.Parameter] = {
            id(self.qkv): rows_of_heads(self.qkv, kept, self.heads, 3),
            id(self.position): rows_of_heads(self.position, kept, self.heads),
            id(self.out): columns_of_heads(self.out, kept, self.heads),
            **{id(bias): nn.Parameter(bias.detach()[list(kept)].clone()) for bias in (self.u, self.v)},
        }
        taken = copy.deepcopy(self, dict(made))
        taken.heads, taken._kept, taken._sinusoids = len(kept), None, None
        return taken

    @property
    def _inner(self) -> int:
        """Width of the sinusoids, which need not be that of what is read and written."""
        return self.position.in_features

    def _positions(self, q: Tensor) -> Tensor:
        """W_p p(r) for queries ``q (B,H,N,D/H)``: ``(H,2N-1,D/H)``."""
        n, weight = q.shape[2], self.position.weight
        if torch.compiler.is_compiling():
            return self._heads(self.position(relative_positions(n, self._inner, dtype=weight.dtype, device=q.device)))
        if self.training or torch.is_grad_enabled() or weight.is_inference():
            rows = self._sinusoids_of(relative_positions, n, -(-n // _GROWTH) * _GROWTH, weight.dtype)
            return self._heads(self.position(_middle(rows, n)))
        kept, dtype = self._kept, torch.promote_types(q.dtype, torch.float32)
        if n > _KEPT:
            return self._project(n, dtype if n <= WIDENED else q.dtype)
        if kept is None or not kept.serves(weight, n, dtype):
            # Not in advance for longer ones: it is memory that counts here.
            kept = _Kept(weight, weight._version, self._project(n, dtype))
            self._kept = kept if type(kept.table) is Tensor else None
        return _middle(kept.table, n)

    def _project(self, n: int, dtype: torch.dtype) -> Tensor:
        """The same without gradients, computed in ``dtype``."""
        halves = self._sinusoids_of(half_positions, n, n, dtype)
        projected = project_halves(halves[len(halves) - n :], self.position.weight.to(dtype))
        return self._heads(projected.to(dtype))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.view(projected.shape[0], self.heads, projected.shape[1] // self.heads).transpose(0, 1)

    def _sinusoids_of(self, make: Callable[..., Tensor], n: int, longest: int, dtype: torch.dtype) -> Tensor:
        """A table for n tokens or more that the layers of this width share, made for ``longest`` if there is none."""
        table, weight = self._sinusoids, self.position.weight
        if table is None or not table.serves(make, n, dtype, weight.device):
            table = shared_table(make, longest, self._inner, weight, dtype)
            self._sinusoids = table if type(table.rows) is Tensor else None
        return table.rows


@dataclass(frozen=True)
class _Kept:
    """Projected positions ``(H,2L-1,d)`` and the state of the weight that made them."""

    weight: Tensor
    version: int
    table: Tensor

    def serves(self, weight: Tensor, n: int, dtype: torch.dtype) -> bool:
        """Whether this is the table of ``weight`` as it is now, long enough for n tokens, and of this dtype."""
        same = self.weight is weight and self.version == weight._version
        return same and self.table.dtype == dtype and 2 * n - 1 <= self.table.shape[1]


def _middle(table: Tensor, n: int) -> Tensor:
    """The rows of n tokens in a table for as many or more: offsets n-1 to -(n-1)."""
    longest = (table.shape[-2] + 1) // 2
    if longest == n:
        return table
    return table[..., longest - n : longest + n - 1, :]
