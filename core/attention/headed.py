"""What attentions over heads have in common: one map to queries, keys and values, heads, one map from the heads.

    [q; k; v] = W_qkv x + b,   y = W_out [y_1; ...; y_H] + b'

Members write :meth:`HeadedAttention.attend`, which is given heads and gives heads. Packed rows are attended in groups
of sequences of like length (``core.sequence.Ragged.by_length``): the work grows with the sum of the squared lengths,
padding within a group is bounded, and the linear maps see real rows alone.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.attention.base import Mixer
from core.errors import InputError
from core.initialisation import linear_like, uniform_fan_in_
from core.sequence import Ragged


def check_heads(width: int, heads: int, dropout: float, where: str) -> None:
    """Refuse heads that do not divide the width, and a dropout that is no probability."""
    if heads < 1 or width % heads:
        raise InputError(f"{heads} heads do not divide the width {width}", where=where)
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout {dropout} is outside [0, 1)", where=where)


def check_kept(kept: Sequence[int], heads: int, out: nn.Module, where: str) -> None:
    """Refuse heads that are none, in disorder, or all that there is without a map from the heads to the result."""
    if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < heads:
        raise InputError(f"{list(kept)} are none of its heads, 0 to {heads - 1}, in order", where=where)
    if isinstance(out, nn.Identity):
        raise InputError("without an output projection its heads are its result", where=where)


def rows_of_heads(linear: nn.Linear, kept: Sequence[int], heads: int, groups: int = 1) -> nn.Linear:
    """The map to these heads alone, the rows being ``groups`` times all heads."""
    rows = torch.arange(linear.out_features, device=linear.weight.device).view(groups, heads, -1)[:, list(kept)]
    taken = linear_like(linear, linear.in_features, rows.numel())
    with torch.no_grad():
        for name, value in taken.named_parameters():
            value.copy_(linear.get_parameter(name)[rows.flatten()])
    return taken


def columns_of_heads(linear: nn.Linear, kept: Sequence[int], heads: int) -> nn.Linear:
    """The map from these heads alone."""
    columns = torch.arange(linear.in_features, device=linear.weight.device).view(heads, -1)[list(kept)]
    taken = linear_like(linear, columns.numel(), linear.out_features)
    with torch.no_grad():
        taken.weight.copy_(linear.weight[:, columns.flatten()])
        if linear.bias is not None:
            taken.bias.copy_(linear.bias)
    return taken


def attend_groups(
    qkv: Float[Tensor, "total 3 H d"], ragged: Ragged, attend: Callable[..., Tensor]
) -> Float[Tensor, "total H d"]:
    """Attention within each sequence of packed rows, the sequences of like length together.

    Args:
        qkv: queries, keys and values of the rows in the order of ``ragged.by_length``; so is the result.
        ragged: where the sequences lie.
        attend: :meth:`HeadedAttention.attend`; its mask is None where a group has no padding.
    """
    groups = ragged.by_length.groups
    # The first piece is empty: a result, with its gradient, where there is no group at all.
    pieces = [qkv[:0, 0]]
    for group, part in zip(groups, torch.split(qkv, [group.total for group in groups]), strict=True):
        count, longest = len(group.lengths), group.max_length
        full = group.total == count * longest
        padded = part.reshape(count, longest, *part.shape[1:]) if full else group.unpack(part)
        q, k, v = padded.permute(2, 0, 3, 1, 4)
        y = attend(q, k, v, None if full else group.mask, None).transpose(1, 2)
        pieces.append(y.flatten(0, 1) if full else group.pack(y))
    return torch.cat(pieces)


class HeadedAttention(Mixer):
    """Attention over heads, with its linear maps.

    ``qkv`` is one linear map D -> 3D whose rows are ``[q; k; v]``, each third ordered by head: its rows
    ``h*D/H : (h+1)*D/H`` belong to head h. Separate ``W_q, W_k, W_v`` are therefore imported with ``torch.cat``. The
    output projection ``out`` reads the heads in that order.

    Initialisation: ``qkv`` U(-s/sqrt(D), s/sqrt(D)) with s = ``init_scale``; ``out`` the same form with s = 1; biases
    zero.

    Args:
        width: D.
        heads: H; divides D.
        causal: position i reads positions <= i only.
        bias: biases in both maps.
        dropout: of what the member drops in training, kept as an attribute.
        init_scale: s of the range that ``qkv`` is drawn from.
        project: False leaves out the output projection.
        tokens: N of a member of fixed or bounded length.

    Raises:
        InputError: ``heads`` does not divide ``width``, or ``dropout`` is outside [0, 1).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        project: bool = True,
        tokens: int | None = None,
    ) -> None:
        super().__init__(width, tokens)
        check_heads(width, heads, dropout, type(self).__name__)
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias) if project else nn.Identity()
        uniform_fan_in_(self.qkv, init_scale)
        if isinstance(self.out, nn.Linear):
            uniform_fan_in_(self.out, 1.0)

    def take_heads(self, kept: Sequence[int]) -> HeadedAttention:
        """Attention with these heads alone, which compute what they did; the width of a head stays.

        Raises:
            InputError: heads that it does not have, or no output projection.
        """
        check_kept(kept, self.heads, self.out, type(self).__name__)
        assert isinstance(self.out, nn.Linear)
        qkv, out = rows_of_heads(self.qkv, kept, self.heads, 3), columns_of_heads(self.out, kept, self.heads)
        taken = copy.deepcopy(self, {id(self.qkv): qkv, id(self.out): out})
        taken.heads = len(kept)
        return taken

    @abstractmethod
    def attend(
        self,
        q: Float[Tensor, "B H N d"],
        k: Float[Tensor, "B H N d"],
        v: Float[Tensor, "B H N d"],
        mask: Bool[Tensor, "B N"] | None,
        pair_mask: Bool[Tensor, "*B N N"] | None,
    ) -> Float[Tensor, "B H N d"]:
        """What the heads give; masks are those of :meth:`core.attention.Mixer.mix`. Keys and values are finite."""

    def mix(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None, pair_mask: Bool[Tensor, "*B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """Attend within each sequence."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = self.attend(q, k, v, mask, pair_mask)
        projected: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return projected

    def mix_packed(self, rows: Float[Tensor, "total D"], ragged: Ragged) -> Float[Tensor, "total D"]:
        """Attend within each sequence, one group of like length after another."""
        qkv = self.qkv(rows.index_select(0, ragged.by_length.order)).unflatten(-1, (3, self.heads, -1))
        projected: Tensor = self.out(attend_groups(qkv, ragged, self.attend).flatten(1))
        return projected.index_select(0, ragged.by_length.back)

    def input_maps(self) -> Sequence[nn.Module]:
        """The map to queries, keys and values."""
        return (self.qkv,)

    def output_maps(self) -> Sequence[nn.Module]:
        """The output projection, where there is one."""
        return () if isinstance(self.out, nn.Identity) else (self.out,)

    def extra_repr(self) -> str:
        """The options that the submodules do not show, for ``print(module)``."""
        return f"heads={self.heads}, causal={self.causal}, dropout={self.dropout}"
