"""What a contract check is given: a way to build a small member of a table, with all its parameters drawn at random."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from core.attention import MIXERS, Mixer
from core.convolution import CONVOLUTIONS
from core.feedforward import ACTIVATIONS, FEEDFORWARDS, LEARNED_ACTIVATIONS, Activator, FeedForward
from core.norm import NORMS, Norm
from core.testing.attentions import MIXER_ORACLES
from core.testing.convolutions import CONVOLUTION_ORACLES
from core.testing.oracles import NORM_ORACLES, GridOracle, MixerOracle, TokenOracle
from core.testing.positionwise import FEEDFORWARD_ORACLES
from core.testing.tolerances import draw

WIDTH = 6

# Values for the constructor arguments that have no default; a new member with another one adds it here.
REQUIRED: dict[str, Any] = {"heads": 2, "hidden": 5, "tokens": 7}

# Values for others whose default would not matter at the sizes of the suites.
SMALL: dict[str, Any] = {"k": 3, "reduction": 2}

# The grids that so many tokens lie on, for members that need one.
GRIDS = {0: (0, 3), 1: (1, 1), 4: (2, 2), 5: (5, 1), 7: (1, 7), 9: (3, 3), 63: (7, 9), 127: (127, 1), 129: (3, 43)}

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

    def sized(self, tokens: int, dtype: torch.dtype = torch.float64, **options: Any) -> ModuleT:
        """The same, of a member that must know the number of tokens for as many."""
        return self.make(dtype, **({"tokens": tokens} if self.takes("tokens") else {}), **options)

    @property
    def on_grid(self) -> bool:
        """Whether the member needs its tokens to lie on a grid."""
        capabilities = getattr(self.block, "capabilities", None)
        return bool(getattr(self.block, "reads_grid", False) or getattr(capabilities, "grid", False))

    def place(self, tokens: int) -> dict[str, Any]:
        """What a member that needs a grid is told of so many tokens; nothing for others."""
        return {"grid": GRIDS[tokens]} if self.on_grid else {}

    def takes(self, option: str) -> bool:
        """Whether the constructor has this option."""
        return option in inspect.signature(self.block).parameters

    def __str__(self) -> str:
        usual = REQUIRED | SMALL
        chosen = [f"{key}={value}" for key, value in self.options.items() if usual.get(key) != value]
        return "-".join([self.name, *chosen])


MixerCase = Case[Mixer, MixerOracle | GridOracle]
NormCase = Case[Norm, TokenOracle]
FeedForwardCase = Case[FeedForward, TokenOracle | GridOracle]


def mixer_cases() -> list[MixerCase]:
    """Each member of ``MIXERS``, with and without what it offers."""
    return [
        MixerCase(name, block, MIXER_ORACLES[name], _options(block) | variant)
        for name, block in MIXERS.items()
        for variant in _mixer_variants(block)
    ]


def convolution_cases() -> list[MixerCase]:
    """Each member of ``CONVOLUTIONS``, with and without what it offers, also with another norm."""
    return [
        MixerCase(name, block, CONVOLUTION_ORACLES[name], variant)
        for name, block in CONVOLUTIONS.items()
        for variant in (
            *_mixer_variants(block),
            *([{"norm": "layernorm", "norm_options": {"eps": 0.5}}] if _has(block, "norm") else []),
        )
    ]


def _mixer_variants(block: type[Mixer]) -> Iterator[dict[str, Any]]:
    """Its defaults, and each other value of its options of few values: switches, words, positions."""
    yield {}
    hints = get_type_hints(block.__init__)
    for name, parameter in inspect.signature(block).parameters.items():
        if name == "causal" and not block.capabilities.bidirectional:
            continue
        if hints[name] is bool:
            yield {name: not parameter.default}
        elif get_origin(hints[name]) is Literal:
            yield from ({name: word} for word in get_args(hints[name]) if word != parameter.default)
    # What a member inherits is tested in the one that it is from.
    for kind in vars(block).get("positions", ()):
        if kind != "none":
            # Heads of width 6, of several pairs of numbers, and of width 3, where a number is left over.
            yield {"position": kind, "heads": 1}
            yield {"position": kind, "causal": True}


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
        FeedForwardCase(name, block, FEEDFORWARD_ORACLES[name], _options(block) | variant)
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


def _has(block: type[nn.Module], option: str) -> bool:
    return option in inspect.signature(block).parameters


def _options(block: type[nn.Module]) -> dict[str, Any]:
    """Values for the arguments without default, and small ones for some that have one."""
    parameters = list(inspect.signature(block).parameters.values())[1:]
    required = {p.name: REQUIRED[p.name] for p in parameters if p.default is p.empty}
    return required | {name: value for name, value in SMALL.items() if _has(block, name)}
