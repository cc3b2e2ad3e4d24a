"""Low-rank adapters of frozen linear maps (LoRA; Hu et al., arXiv 2106.09685).

    y = W x + b + s B A drop(x),   A in R^(r x n), B in R^(m x r),   s = alpha / r, or alpha / sqrt(r) rank-stabilised

A starts U(-1/sqrt(n), 1/sqrt(n)), which is the published Kaiming start with a = sqrt(5), and B at zero: at first the
map is W itself. W and b are frozen; a step changes r (m + n) numbers. Of a map to queries, keys and values, chosen
thirds can have adapters, each its own A and B.

Merging, W + s B A, is a function that gives a new model; no mode of a module changes a weight. Unlike the program of
the authors (github.com/microsoft/LoRA), whose ``eval()`` merges in place: a state saved then holds other weights under
the same names, and in 16 bits turning to and fro drifts.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError
from core.kernels import Dropout
from core.rewrite.base import ModuleT, blocks_of, module_at, replaced
from core.rewrite.low_rank import LowRankLinear

THIRDS = "qkv"
"""The thirds of a map to queries, keys and values, in the order of its rows."""


class LoRALinear(nn.Module):
    """A frozen linear map with adapters of low rank.

    Args:
        base: W and b; frozen from now on.
        rank: r.
        alpha: numerator of s.
        dropout: probability of dropping a number that A reads, in training.
        rank_stabilised: divide by sqrt(r) instead of r (Kalajdzievski, arXiv 2312.03732).
        thirds: of the rows of a map to queries, keys and values, those with adapters, of "q", "k" and "v"; one adapter
            of all rows unless given.
        seed: of the start of A.

    Attributes:
        enabled: whether the adapters count.

    Raises:
        InputError: a rank that the map does not have, an ``alpha`` that is no number, or thirds that are none.

    >>> layer = LoRALinear(nn.Linear(6, 12), rank=2, thirds="qv")
    >>> sum(p.numel() for p in layer.parameters() if p.requires_grad) == 2 * 2 * (6 + 4)
    True
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rank_stabilised: bool = False,
        thirds: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__()
        pieces = 3 if thirds else 1
        inputs, outputs = base.in_features, base.out_features // pieces
        if base.out_features % pieces or not set(thirds) <= set(THIRDS) or len(set(thirds)) < len(thirds):
            raise InputError(f"{thirds!r} are no thirds of {base.out_features} rows", where="lora", mend="such as 'qv'")
        if not 1 <= rank <= min(inputs, outputs):
            what = f"rank {rank} is not that of a map from {inputs} to {outputs}"
            raise InputError(what, where="lora", mend=f"1 to {min(inputs, outputs)}")
        if not math.isfinite(alpha):
            raise InputError(f"alpha is no number but {alpha}", where="lora")
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.rank_stabilised = rank, alpha, rank_stabilised
        self.scale = alpha / (math.sqrt(rank) if rank_stabilised else rank)
        self.thirds = "".join(third for third in THIRDS if third in thirds)
        self.dropout = Dropout(dropout)
        self.enabled = True
        generator = torch.Generator().manual_seed(seed)
        count = len(self.thirds) or 1
        self.adapters = nn.ModuleList(_start(base, rank, outputs, generator) for _ in range(count))

    def forward(self, x: Float[Tensor, "*shape n"]) -> Float[Tensor, "*shape m"]:
        """Map every vector."""
        y: Tensor = self.base(x)
        if not self.enabled:
            return y
        read, adapters = self.dropout(x), list(self.adapters)
        if not self.thirds:
            whole: Tensor = y + self.scale * adapters[0](read)
            return whole
        pieces = list(y.chunk(3, dim=-1))
        for third, adapter in zip(self.thirds, adapters, strict=True):
            at = THIRDS.index(third)
            pieces[at] = pieces[at] + self.scale * adapter(read)
        return torch.cat(pieces, dim=-1)

    def merged(self) -> nn.Linear:
        """One linear map W + s B A, computed in float64 and cast once; it can be trained."""
        linear = copy.deepcopy(self.base)
        with torch.no_grad():
            weight = self.base.weight.double()
            pieces = list(weight.chunk(3 if self.thirds else 1))
            for at, adapter in self._places():
                pieces[at] = pieces[at] + self.scale * adapter.second.weight.double() @ adapter.first.weight.double()
            linear.weight.copy_(torch.cat(pieces))
        return linear.requires_grad_(True)

    def _places(self) -> list[tuple[int, LowRankLinear]]:
        """The adapters, each with the number of its piece of the rows."""
        places = [THIRDS.index(third) for third in self.thirds] or [0]
        adapters = [each for each in self.adapters if isinstance(each, LowRankLinear)]
        return list(zip(places, adapters, strict=True))

    def change(self, x: Float[Tensor, "*shape n"], third: str) -> Float[Tensor, "*shape m"] | None:
        """What the adapters add to a third of a map to queries, keys and values; None where it has none."""
        if not self.thirds:
            y: Tensor = self.scale * self.adapters[0](x)
            return y.chunk(3, dim=-1)[THIRDS.index(third)]
        found = dict(zip(self.thirds, self.adapters, strict=True)).get(third)
        return None if found is None else self.scale * found(x)

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        return f"rank={self.rank}, scale={self.scale:g}" + (f", thirds={self.thirds}" if self.thirds else "")


def _start(base: nn.Linear, rank: int, outputs: int, generator: torch.Generator) -> LowRankLinear:
    """An adapter that adds nothing yet, in the dtype of ``base``; the random state of the caller stays as it is."""
    with torch.device("meta"):
        adapter = LowRankLinear(base.in_features, outputs, rank, bias=False)
    adapter = adapter.to_empty(device=base.weight.device).to(base.weight.dtype)
    bound = 1 / math.sqrt(base.in_features)
    with torch.no_grad():
        drawn = torch.empty(rank, base.in_features, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
        adapter.first.weight.copy_(drawn)
        adapter.second.weight.zero_()
    return adapter


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of all adapters by their names in the model: all that a training of them changes.

    >>> [*adapter_state(nn.Sequential(LoRALinear(nn.Linear(3, 3), rank=1)))]
    ['0.adapters.0.first.weight', '0.adapters.0.second.weight']
    """
    prefixes = tuple(f"{path}.adapters." if path else "adapters." for path in blocks_of(model, LoRALinear))
    return {name: value for name, value in model.state_dict().items() if name.startswith(prefixes)}


def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill the adapters of a model.

    Args:
        model: with adapters; its other weights stay as they are.
        state: of :func:`adapter_state`, for all adapters and nothing else.

    Raises:
        InputError: names that are missing or that the model does not have, or tensors of other shapes; nothing is
            filled then.
    """
    own = adapter_state(model)
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unexpected:
        what = f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        raise InputError(f"these are not the model's adapters ({what})", where="adapters")
    for name, value in own.items():
        if value.shape != state[name].shape:
            what = f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
            raise InputError(what, where="adapters")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


@contextlib.contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """Let a model compute without its adapters for a while; afterwards each is as it was, also after an error."""
    layers = list(blocks_of(model, LoRALinear).values())
    before = [layer.enabled for layer in layers]
    try:
        for layer in layers:
            layer.enabled = False
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.enabled = enabled


def unmerge(merged: ModuleT, adapted: nn.Module) -> ModuleT:
    """A copy of a merged model with the weights that it had before the adapters were made.

    They are the ones that ``adapted`` kept, so that nothing is lost; taking s B A off again would lose the last digits
    in float32, and most of them in 16 bits.

    Args:
        merged: by the pass ``merge`` from ``adapted``.
        adapted: the model with the adapters.

    Raises:
        InputError: ``merged`` was not made from ``adapted``, or its maps have changed since.
    """
    bases: dict[str, nn.Module] = {}
    for path, layer in blocks_of(adapted, LoRALinear).items():
        found, wanted = module_at(merged, path), layer.merged()
        if type(found) is not nn.Linear or not _same(found, wanted):
            raise InputError("is not what these adapters were merged into", where=path)
        bases[path] = copy.deepcopy(layer.base).to(found.weight).requires_grad_(True)
    if not bases:
        raise InputError("the model has no adapters", where="unmerge")
    return replaced(merged, bases)


def _same(a: nn.Linear, b: nn.Linear) -> bool:
    """Whether two maps have the same numbers, up to a rounding."""
    for one, other in ((a.weight, b.weight), (a.bias, b.bias)):
        if one is None or other is None:
            if one is not other:
                return False
        elif one.shape != other.shape or not torch.allclose(one, other.to(one), rtol=1e-5, atol=1e-6):
            return False
    return True
