"""What a contract check is given: a way to build a small member of a table, with all its parameters drawn at random."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from core.attention import MIXERS, Mixer
from core.convolution import CONVOLUTIONS
from core.feedforward import ACTIVATIONS, FEEDFORWARDS, LEARNED_ACTIVATIONS, Activator, FeedForward
from core.norm import NORMS, Norm
from core.position import POSITIONS
from core.testing.convolutions import CONVOLUTION_ORACLES
from core.testing.oracles import MIXER_ORACLES, NORM_ORACLES, MixerOracle, TokenOracle
from core.testing.positionwise import FEEDFORWARD_ORACLES
from core.testing.tolerances import draw

WIDTH = 6

# Values for the constructor arguments that have no default; a new member with another one adds it here.
REQUIRED: dict[str, Any] = {"heads": 2, "hidden": 5}

ModuleT = TypeVar("ModuleT", bound=nn.Module)
OracleT = TypeVar("OracleT", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Case(Generic[ModuleT, OracleT]):
    """One member of a table with some options.

    Attributes:
        name: the member's name.
        block: its class; the first constructor argument is the width.
        oracle: the same written out plainly.
        options: its other constructor arguments.
    """

    name: str
    block: Callable[..., ModuleT]
    oracle: OracleT
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, dtype: torch.dtype = torch.float64, **options: Any) -> ModuleT:
        """The block in eval mode, parameters and running statistics drawn at random: zeros and ones hide mistakes."""
        block = self.block(WIDTH, **{**self.options, **options})
        with torch.no_grad():
            for index, parameter in enumerate(block.parameters()):
                parameter.copy_(0.5 * draw(*parameter.shape, seed=1000 + index))
            for index, (buffer, value) in enumerate(block.named_buffers()):
                drawn = 0.5 * draw(*value.shape, seed=2000 + index)
                if buffer.endswith("running_mean"):
                    value.copy_(drawn)
                elif buffer.endswith("running_var"):
                    value.copy_(drawn.exp())
        return block.to(dtype).eval()

    def takes(self, option: str) -> bool:
        """Whether the constructor has this option."""
        return option in inspect.signature(self.block).parameters

    def __str__(self) -> str:
        chosen = [f"{key}={value}" for key, value in self.options.items() if REQUIRED.get(key) != value]
        return "-".join([self.name, *chosen])


MixerCase = Case[Mixer, MixerOracle]
NormCase = Case[Norm, TokenOracle]
FeedForwardCase = Case[FeedForward, TokenOracle]


def mixer_cases() -> list[MixerCase]:
    """Each member of ``MIXERS``, with and without what it offers of causality, positions and an output projection."""
    cases = []
    for name, block in MIXERS.items():
        variants: list[dict[str, Any]] = [{}]
        if block.capabilities.causal:
            variants.append({"causal": True})
        if "project" in inspect.signature(block).parameters:
            variants.append({"project": False, "bias": False})
        if "position" in inspect.signature(block).parameters:
            # Heads of width 6, of several pairs of numbers, and of width 3, where a number is left over.
            kinds = [kind for kind in POSITIONS if kind != "none"]
            variants += [{"position": kind, "heads": 1} for kind in kinds]
            variants += [{"position": kind, "causal": True} for kind in kinds]
        cases += [MixerCase(name, block, MIXER_ORACLES[name], _required(block) | variant) for variant in variants]
    return cases


def convolution_cases() -> list[MixerCase]:
    """Each member of ``CONVOLUTIONS``, also causal, gated and with another norm."""
    return [
        MixerCase(name, block, CONVOLUTION_ORACLES[name], variant)
        for name, block in CONVOLUTIONS.items()
        for variant in (
            {},
            {"causal": True},
            {"activation": "glu"},
            {"norm": "layernorm", "norm_options": {"eps": 0.5}},
        )
    ]


def norm_cases() -> list[NormCase]:
    """Each member of ``NORMS``, also with an eps so large that its place matters, and with what else it offers."""
    offered: list[dict[str, Any]] = [{"affine": False}, {"bias": False}, {"groups": 2}, {"first": "rmsnorm"}]
    cases = []
    for name, block in NORMS.items():
        known = inspect.signature(block).parameters
        variants = [{}, {"eps": 0.5}, *(variant for variant in offered if set(variant) <= set(known))]
        cases += [NormCase(name, block, NORM_ORACLES[name], variant) for variant in variants]
    return cases


def feedforward_cases() -> list[FeedForwardCase]:
    """Each member of ``FEEDFORWARDS`` with each activation, and with what else it offers."""
    return [
        FeedForwardCase(name, block, FEEDFORWARD_ORACLES[name], _required(block) | variant)
        for name, block in FEEDFORWARDS.items()
        for variant in _feedforward_variants(block)
    ]


def _feedforward_variants(block: type[FeedForward]) -> Iterator[dict[str, Any]]:
    yield {}
    offered: list[dict[str, Any]] = [
        *({"activation": name} for name in ACTIVATIONS),
        *({"bias": False}, {"nested": (0.5, 1.0)}, {"project": False, "hidden": WIDTH}),
        *({"router": "average"}, {"renormalise": True}, {"expert": "glu"}, {"active": 1}),
        *({"bits": 2}, {"bits": 3, "extra_bits": 0}, {"score": "l1_softmax"}),
    ]
    if block is not Activator:
        # There a norm follows, to which a shift is nothing: its gradient is 0, and in bfloat16 the noise of a sum.
        offered += [{"activation": name} for name in LEARNED_ACTIVATIONS]
    known = set(inspect.signature(block).parameters)
    yield from (variant for variant in offered if set(variant) <= known)


def _required(block: type[nn.Module]) -> dict[str, Any]:
    """Values for the arguments without default."""
    parameters = list(inspect.signature(block).parameters.values())[1:]
    return {p.name: REQUIRED[p.name] for p in parameters if p.default is p.empty}
