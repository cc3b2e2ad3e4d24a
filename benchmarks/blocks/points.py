"""What is measured: the points of every family, who meets at them, and who is the plain one of whom.

A *point* is a load (batch, length of a sequence, width), a precision and a pass. The *contenders* of a point take turns
in one process; each is held against the plain one of its kind in the same rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from core.attention import MIXERS, Mixer
from core.convolution import CONVOLUTIONS
from core.feedforward import FEEDFORWARDS
from core.norm import NORMS

Family = Literal["mixer", "norm", "feedforward", "packed", "folded"]
Precision = Literal["fp32", "bf16"]
Pass = Literal["forward", "step"]
FAMILIES: tuple[Family, ...] = get_args(Family)

HEADS, WIDTH = 8, 256
#: Members whose work is claimed to grow with the length, not with its square, and who are held to that.
LINEAR = ("convolution", "linformer", "nala", "nala causal", "pooling", "sepconv")
#: Of the others: pairs of positions in a batch, heads included, up to which they are run. Some hold them all, in
#: several copies on the way back.
MOST_PAIRS = 1 << 25
#: Lengths at which one sequence is run, from which exponents are fitted; below, batches have as many tokens as these.
FITTED = (1024, 2048, 4096, 8192)
#: Length from which a linear mixer is to be faster than softmax attention.
FASTER_FROM = 2048
CAUSAL = " causal"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row of a table, and whom it is about.

    Attributes:
        family: of blocks.
        tokens: of a sequence; in a ragged batch, of the longest one.
        batch: sequences.
        width: D.
        precision: of weights and numbers.
        mode: a forward pass without gradients in evaluation mode, or a forward and backward pass in training mode.
    """

    family: Family
    tokens: int
    batch: int
    width: int
    precision: Precision
    mode: Pass


#: (batch, tokens, width) of a family.
LOADS: dict[Family, tuple[tuple[int, int, int], ...]] = {
    "mixer": (
        *((16, 128, WIDTH), (4, 512, WIDTH)),
        *((1, tokens, WIDTH) for tokens in FITTED),
        *((4, 512, width) for width in (64, 1024)),
    ),
    "norm": tuple((batch, 128, width) for width in (64, 256, 1024) for batch in (2, 16)),
    "feedforward": tuple((batch, 128, width) for width in (64, 256, 1024) for batch in (2, 16)),
    "packed": ((32, 64, WIDTH), (16, 256, WIDTH), (8, 512, WIDTH)),
    "folded": ((4, 512, 64), (4, 512, WIDTH)),
}


def points(family: Family) -> Iterator[Point]:
    """Every point of a family; a folded norm has no training."""
    for batch, tokens, width in LOADS[family]:
        for mode in get_args(Pass):
            for precision in get_args(Precision):
                if family != "folded" or mode == "forward":
                    yield Point(family=family, tokens=tokens, batch=batch, width=width, precision=precision, mode=mode)


def mixers() -> dict[str, type[Mixer]]:
    """Every mixer by its name."""
    return {**MIXERS, **CONVOLUTIONS}


def is_causal(mixer: str) -> bool:
    """Whether a contender is causal: by its name, or because it can be nothing else."""
    return mixer.endswith(CAUSAL) or not mixers()[mixer].capabilities.bidirectional


def contenders(family: Family) -> Sequence[str]:
    """Who takes part, the plain ones first."""
    if family == "mixer":
        # A grid of tokens has more to it than a length.
        able = sorted(name for name, mixer in mixers().items() if not mixer.capabilities.grid)
        return _first(["softmax", "softmax causal"], [*able, "nala causal"])
    if family == "norm":
        return _first(["layernorm"], sorted(NORMS))
    if family == "feedforward":
        return _first(["mlp"], sorted(name for name, block in FEEDFORWARDS.items() if not block.reads_grid))
    if family == "packed":
        able = _first(["softmax"], sorted(name for name, mixer in mixers().items() if mixer.capabilities.packed))
        return [f"{name} {how}" for name in able for how in ("padded", "packed")]
    norms = ("batchnorm", "prepbn", "unifiednorm")
    return ["linear", *(f"{name} {how}" for name in norms for how in ("folded", "unfolded"))]


def _first(plain: Sequence[str], names: Sequence[str]) -> list[str]:
    return [*plain, *(name for name in names if name not in plain)]


def plain_of(family: Family, contender: str) -> str:
    """Whom a contender is held against; itself, if it is the plain one.

    >>> plain_of("mixer", "stickbreaking"), plain_of("packed", "nala packed"), plain_of("norm", "rmsnorm")
    ('softmax causal', 'nala padded', 'layernorm')
    """
    if family == "mixer":
        return "softmax causal" if is_causal(contender) else "softmax"
    if family == "packed":
        return f"{contender.rpartition(' ')[0]} padded"
    return {"norm": "layernorm", "feedforward": "mlp", "folded": "linear"}[family]


def is_run(point: Point, contender: str) -> bool:
    """Whether a contender's work and memory at a point are within bounds; the plain one's always are."""
    if point.family != "mixer" or contender in (*LINEAR, plain_of("mixer", contender)):
        return True
    if mixers()[contender.removesuffix(CAUSAL)].capabilities.independent:
        return True
    return point.batch * HEADS * point.tokens**2 <= MOST_PAIRS
