"""The mixer that a configuration names, in a host that has needs of its own and standard options to offer.

A host is a model with a place for any mixer. It says what the mixer must be able to do (:class:`Request`), which is
honoured or refused, and offers what it has at hand (heads, dropout, the number of tokens, ...), of which a mixer is
given what its constructor takes. So a new member of the tables can be named in every host whose request it meets.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.attention import Mixer
from core.errors import InputError, nearest
from core.layout.build import TABLES


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a mixer must be able to do.

    Attributes:
        causal: keep position i from reading later ones; without it, every position must be able to read all.
        masked: leave out padding.
        pairwise: follow a mask of which key a query may read.
        any_length: take sequences of every length.
        grid: the tokens lie on a grid, which the host tells; a mixer that needs one fits.
        position: name in ``core.position.POSITIONS`` of the positions in its scores.
    """

    causal: bool = False
    masked: bool = False
    pairwise: bool = False
    any_length: bool = False
    grid: bool = False
    position: str = "none"

    def lacking(self, mixer: type[Mixer]) -> str | None:
        """What keeps ``mixer`` from it, in words that go on from "it"; None if nothing does.

        >>> from core.attention import StickBreakingAttention
        >>> Request().lacking(StickBreakingAttention)
        'reads earlier tokens alone'
        """
        can = mixer.capabilities
        lacking = {
            "cannot be kept from reading later tokens": self.causal and not (can.causal or can.independent),
            "reads earlier tokens alone": not self.causal and not can.bidirectional,
            "takes no mask of real tokens": self.masked and not can.masked,
            "takes no mask of pairs of tokens": self.pairwise and not can.pairwise,
            "is made for a number of tokens": self.any_length and (can.fixed_length or can.bounded_length),
            "needs a grid of tokens": can.grid and not self.grid,
            f"takes no position {self.position!r}": self.position not in ("none", *mixer.positions),
        }
        return next((words for words, true in lacking.items() if true), None)


def mixer_options(
    name: str, request: Request, offered: Mapping[str, Any], *, host: str, where: str = "model.mixer"
) -> dict[str, Any]:
    """The options of an entry for the mixer ``name``: what the request asks, and what it takes of what is offered.

    Args:
        name: in the tables of ``core.attention`` and ``core.convolution``.
        request: what it must be able to do.
        offered: options that are dropped where the mixer's constructor has none of that name.
        host: what asks, in words: "recordings".
        where: the field that holds the name.

    Raises:
        InputError: no such mixer, or one that cannot do what is asked; it names those that can.

    >>> mixer_options("softmax", Request(causal=True), {"heads": 8, "tokens": 5}, host="tables")
    {'heads': 8, 'causal': True, 'position': 'none'}
    >>> mixer_options("pooling", Request(masked=True), {"heads": 8}, host="recordings")
    {}
    """
    mixers = TABLES["mixer"]
    if name not in mixers:
        raise InputError(f"no mixer {name!r}", where=where, mend=nearest(name, list(mixers)))
    known = {known: mixer for known, mixer in mixers.items() if issubclass(mixer, Mixer)}
    lacking = request.lacking(known[name])
    if lacking is not None:
        able = ", ".join(sorted(other for other, mixer in known.items() if request.lacking(mixer) is None))
        raise InputError(f"{name!r} does not fit {host}: it {lacking}", where=where, mend=f"these fit: {able}")
    everything = {**offered, "causal": request.causal, "position": request.position}
    taken = inspect.signature(known[name]).parameters
    return {option: value for option, value in everything.items() if option in taken}
