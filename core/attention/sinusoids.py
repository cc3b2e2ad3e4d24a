"""Sinusoids of offsets between tokens, their linear map, and tables of them that the layers of a model share.

    p(r): component 2m is sin(r / 10000^(2m/D)), component 2m+1 the cosine of the same angle

Sines are odd and cosines even in r, so that of W p(r) = S(r) + C(r) the half of the offsets is enough:
W p(-r) = C(r) - S(r). That is half of the multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def relative_positions(
    n: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Float[Tensor, "offsets D"]:
    """Sinusoids of the offsets n-1, ..., 0, ..., -(n-1) of n tokens, sine and cosine in turn: ``(2n-1,D)``.

    An odd width ends with a sine. Angles are computed in float64.

    >>> relative_positions(2, 2).round(decimals=2).tolist()
    [[0.8399999737739563, 0.5400000214576721], [0.0, 1.0], [-0.8399999737739563, 0.5400000214576721]]
    """
    offsets = torch.arange(2 * n - 1 if n else 0, dtype=torch.float64, device=device)
    frequencies = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angles = (n - 1 - offsets)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].to(dtype)


def half_positions(
    n: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Float[Tensor, "N D"]:
    """Sinusoids of the offsets n-1, ..., 0, all sines before all cosines: what :func:`project_halves` takes.

    >>> half_positions(2, 2).round(decimals=2).tolist()
    [[0.8399999737739563, 0.5400000214576721], [0.0, 1.0]]
    """
    later = relative_positions(n, width, dtype=dtype, device=device)[:n]
    return torch.cat([later[:, 0::2], later[:, 1::2]], dim=1)


def project_halves(halves: Float[Tensor, "N D"], weight: Float[Tensor, "E D"]) -> Float[Tensor, "offsets E"]:
    """``relative_positions(n, D) @ weight.T`` from the half of the offsets; without gradients.

    >>> weight = torch.tensor([[1.0, 2.0]])
    >>> torch.allclose(project_halves(half_positions(3, 2), weight), relative_positions(3, 2) @ weight.T)
    True
    """
    n, sines = len(halves), (halves.shape[1] + 1) // 2
    odd = F.linear(halves[:, :sines], weight[:, 0::2])
    even = F.linear(halves[:, sines:], weight[:, 1::2])
    projected = odd.new_empty(max(2 * n - 1, 0), len(weight))
    torch.add(even, odd, out=projected[:n])
    projected[n:] = even.sub_(odd)[: max(n - 1, 0)].flip(0)
    return projected


class SharedTable:
    """What ``make`` gave for ``n`` tokens; a copy of a layer holds the same one."""

    def __init__(self, make: Callable[..., Tensor], n: int, rows: Tensor) -> None:
        self.make, self.n, self.rows = make, n, rows

    def serves(self, make: Callable[..., Tensor], n: int, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether it is of this kind and long enough for n tokens."""
        return self.make is make and n <= self.n and (self.rows.dtype, self.rows.device) == (dtype, device)

    def __deepcopy__(self, memo: object) -> SharedTable:
        return self


# Each lives as long as a layer holds it.
_SHARED: WeakValueDictionary[tuple[Callable[..., Tensor], int, torch.dtype, torch.device], SharedTable] = (
    WeakValueDictionary()
)


def shared_table(make: Callable[..., Tensor], n: int, width: int, like: Tensor, dtype: torch.dtype) -> SharedTable:
    """The table that other layers hold, if it serves n tokens, or a new one.

    Args:
        make: one of this module's functions.
        n: tokens.
        width: D.
        like: a tensor of the device; what is not a plain tensor, a traced one for example, shares nothing.
        dtype: of the table.
    """
    key, plain = (make, width, dtype, like.device), type(like.detach()) is Tensor
    found = _SHARED.get(key) if plain else None
    if found is None or not found.serves(make, n, dtype, like.device):
        # Made in inference mode, it could never be trained with.
        with torch.inference_mode(False):
            found = SharedTable(make, n, make(n, width, dtype=dtype, device=like.device))
        if plain:
            _SHARED[key] = found
    return found
