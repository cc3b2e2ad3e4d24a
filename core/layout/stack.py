"""A stack of residual sublayers, applied one after another to one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.grid import Grid
from core.layout.entries import Entry
from core.layout.recode import Recode
from core.layout.residual import Residual
from core.norm import Norm
from core.sequence import Ragged

_READ = ("mask", "grid")
"""What feed-forwards may read, if they say so."""


@dataclass(frozen=True)
class Description:
    """What :meth:`Stack.describe` says about one applied sublayer; reused weights count as 0 ``parameters``.

    ``shared`` says that its block came before.
    """

    kind: str
    name: str
    norm: str
    placement: str
    parameters: int
    shared: bool

    def __str__(self) -> str:
        norm = "no norm" if self.placement == "none" else f"{self.placement} {self.norm}"
        count = f"{self.parameters:,} parameters"
        if self.shared:
            count = f"block shared, {count}" if self.parameters else "shared"
        return f"{self.kind} {self.name}, {norm}, {count}"


class Stack(nn.Module):
    """Residual sublayers in order; made by :func:`core.layout.build`.

    Padding goes in as zeros and comes out as zeros: nothing in it (a NaN, say) reaches a real token or a gradient.

    Args:
        width: D.
        entries: one for each distinct sublayer.
        sublayers: likewise.
        order: indices into the two, in the order of application; an index that comes again is a shared sublayer.

    Attributes:
        recodings: by what position in ``order`` they come before, its length being the end; none in what is built.
    """

    def __init__(
        self, width: int, entries: Sequence[Entry], sublayers: Sequence[Residual], order: Sequence[int]
    ) -> None:
        super().__init__()
        self.width, self.entries, self.order = width, tuple(entries), tuple(order)
        self.sublayers = nn.ModuleList(sublayers)
        self.recodings = nn.ModuleDict()

    def forward(
        self,
        x: Float[Tensor, "*tokens D"],
        *,
        mask: Bool[Tensor, "B N"] | None = None,
        pair_mask: Bool[Tensor, "*B N N"] | None = None,
        offsets: Int[Tensor, "S"] | Ragged | None = None,
        grid: Grid | None = None,
    ) -> Float[Tensor, "*tokens D"]:
        """Apply the sublayers to ``x (B,N,D)``, or to packed rows ``(total,D)`` with ``offsets``.

        ``mask``, ``pair_mask``, ``offsets`` and ``grid`` are those of ``core.attention.Mixer``. Mixers get all of it;
        norms get the mask; feed-forwards get mask and grid where they read them.
        """
        if offsets is not None and not isinstance(offsets, Ragged):
            offsets = Ragged.from_offsets(offsets, total=x.shape[0])
        if offsets is not None and mask is None and pair_mask is None and self._goes_by_sequences():
            return offsets.pack(self(offsets.unpack(x), mask=offsets.mask))
        padding = None if mask is None else ~mask[:, :, None]
        known = {"mask": mask, "pair_mask": pair_mask, "offsets": offsets, "grid": grid}
        stream = x if padding is None else x.masked_fill(padding, 0.0)
        sublayers = list(self.sublayers)
        for position, index in enumerate(self.order):
            sublayer = sublayers[index]
            given = known
            if self.entries[index].kind == "feedforward":
                given = {name: known[name] for name in _READ if getattr(sublayer.block, f"reads_{name}", False)}
            stream = sublayer(self._recoded(stream, position), norm_mask=mask, packed=offsets, **given)
        stream = self._recoded(stream, len(self.order))
        return stream if padding is None else stream.masked_fill(padding, 0.0)

    def recode(self, position: int, recoding: Recode) -> None:
        """Put a step before the sublayer applied at ``position``; at the end where that is their number."""
        self.recodings[str(position)] = recoding

    def _recoded(self, stream: Tensor, position: int) -> Tensor:
        key = str(position)
        return self.recodings[key](stream) if key in self.recodings else stream

    def describe(self) -> tuple[Description, ...]:
        """One description for each applied sublayer; their parameters add up to :meth:`parameter_count`.

        >>> from core.layout import Entry, build
        >>> for line in build((Entry("mixer", "softmax", {"heads": 2}),), width=8).describe():
        ...     str(line)
        'mixer softmax, pre layernorm, 304 parameters'
        """
        lines: list[Description] = []
        seen: set[int] = set()
        for index in self.order:
            entry, sublayer = self.entries[index], self.sublayers[index]
            count = sum(p.numel() for p in sublayer.parameters() if id(p) not in seen)
            shared = id(sublayer.block) in seen
            lines.append(Description(entry.kind, entry.name, entry.norm, entry.placement, count, shared))
            seen |= {id(sublayer.block), *map(id, sublayer.parameters())}
        return tuple(lines)

    def _goes_by_sequences(self) -> bool:
        """Whether a norm must be told where sequences begin, which packed rows do not say."""
        return any(isinstance(module, Norm) and module.by_sequence for module in self.modules())

    def parameter_count(self) -> int:
        """Numbers in all parameters, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
