"""A stack of residual sublayers, applied one after another to one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.layout.entries import Entry
from core.layout.residual import Residual
from core.sequence import Ragged


@dataclass(frozen=True)
class Description:
    """What :meth:`Stack.describe` says about one applied sublayer; reused weights count as 0 ``parameters``."""

    kind: str
    name: str
    norm: str
    placement: str
    parameters: int
    shared: bool

    def __str__(self) -> str:
        norm = "no norm" if self.placement == "none" else f"{self.placement} {self.norm}"
        count = "shared" if self.shared else f"{self.parameters:,} parameters"
        return f"{self.kind} {self.name}, {norm}, {count}"


class Stack(nn.Module):
    """Residual sublayers in order; made by :func:`core.layout.build`.

    Padding goes in as zeros and comes out as zeros: nothing in it (a NaN, say) reaches a real token or a gradient.

    Args:
        width: D.
        entries: one for each distinct sublayer.
        sublayers: likewise.
        order: indices into the two, in the order of application; an index that comes again is a shared sublayer.
    """

    def __init__(
        self, width: int, entries: Sequence[Entry], sublayers: Sequence[Residual], order: Sequence[int]
    ) -> None:
        super().__init__()
        self.width, self.entries, self.order = width, tuple(entries), tuple(order)
        self.sublayers = nn.ModuleList(sublayers)

    def forward(
        self,
        x: Float[Tensor, "*tokens D"],
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        pair_mask: Bool[Tensor, "*B N N"] | None = None,
        offsets: Int[Tensor, "S"] | Ragged | None = None,
    ) -> Float[Tensor, "*tokens D"]:
        """Apply the sublayers to ``x (B,N,D)``, or to packed rows ``(total,D)`` with ``offsets``.

        ``mask``, ``pair_mask`` and ``offsets`` are those of ``core.attention.Mixer``. Mixers get all, norms the mask.
        """
        if offsets is not None and not isinstance(offsets, Ragged):
            offsets = Ragged.from_offsets(offsets, total=x.shape[0])
        padding = None if mask is None else ~mask[:, :, None]
        context = {"mask": mask, "pair_mask": pair_mask, "offsets": offsets}
        stream = x if padding is None else x.masked_fill(padding, 0.0)
        for index in self.order:
            is_mixer = self.entries[index].kind == "mixer"
            stream = self.sublayers[index](stream, norm_mask=mask, **(context if is_mixer else {}))
        return stream if padding is None else stream.masked_fill(padding, 0.0)

    def describe(self) -> tuple[Description, ...]:
        """One description for each applied sublayer; their parameters add up to :meth:`parameter_count`.

        >>> from core.layout import Entry, build
        >>> for line in build((Entry("mixer", "softmax", {"heads": 2}),), width=8).describe():
        ...     str(line)
        'mixer softmax, pre layernorm, 304 parameters'
        """
        lines, seen = [], set()
        for index in self.order:
            entry, shared = self.entries[index], index in seen
            count = 0 if shared else sum(p.numel() for p in self.sublayers[index].parameters())
            lines.append(Description(entry.kind, entry.name, entry.norm, entry.placement, count, shared))
            seen.add(index)
        return tuple(lines)

    def parameter_count(self) -> int:
        """Numbers in all parameters, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
