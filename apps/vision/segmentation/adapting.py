"""A segmentor with its teacher: an average of its weights over time that is never trained.

Source: Tarvainen and Valpola (arXiv 1703.01780), as DAFormer (arXiv 2111.14887) has it. At the beginning of step t:

    t = 0    h = f
    t > 0    h <- a h + (1 - a) f,    a = min(1 - 1 / (t + 1), alpha)

over parameters alone. The teacher's batch norms take the statistics of the batch they are given, as in training; their
running statistics are their own and follow the target's batches; only when it is compared with the student outside
training does the teacher use them. It never drops anything.

The step is what the engine says (``core.clock``): nothing is counted here, so that weights and step are all there is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.clock import untold
from core.norm import Norm


@runtime_checkable
class Segments(Protocol):
    """What can be adapted: a module that gives features, and logits of them."""

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        """Maps of normalised images, the coarsest last."""
        ...

    def logits(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B K h w"]:
        """Logits of the classes on some grid."""
        ...


class Adapting(nn.Module):
    """A student and its teacher.

    Args:
        student: what is trained, any :class:`Segments`.
        alpha: share of the old teacher that stays, in the long run.

    >>> student = nn.Linear(1, 1)
    >>> _ = nn.init.zeros_(student.weight)
    >>> pair = Adapting(student, 0.9)
    >>> pair.at_step(0, 10)
    >>> _ = nn.init.ones_(student.weight)
    >>> pair.at_step(1, 10)
    >>> pair.teacher.weight.item()
    0.5
    """

    def __init__(self, student: nn.Module, alpha: float) -> None:
        super().__init__()
        self.student, self.alpha = student, alpha
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self._told: tuple[int, int] | None = None
        self.train(self.training)

    @property
    def told(self) -> tuple[int, int]:
        """The step, and of how many.

        Raises:
            InputError: nobody said.
        """
        if self._told is None:
            raise untold("adaptation")
        return self._told

    @torch.no_grad()
    def at_step(self, step: int, of: int) -> None:
        """Let the teacher follow the student to the beginning of a step."""
        self._told = step, of
        own, live = list(self.teacher.parameters()), list(self.student.parameters())
        if step == 0:
            for teacher, student in zip(own, live, strict=True):
                teacher.copy_(student)
        else:
            lerp = get_ema_multi_avg_fn(follows(step, self.alpha))  # type: ignore[no-untyped-call]
            lerp(own, live, 0)

    def train(self, mode: bool = True) -> Adapting:
        """Training or evaluation of the student; of the teacher, only the norms are ever in training mode."""
        super().train(mode)
        self.teacher.eval()
        for norm in _norms(self.teacher):
            norm.train(mode)
        return self

    @torch.no_grad()
    def share_statistics(self, of: Literal["student", "teacher"]) -> None:
        """Give the norms of both the running statistics of one: the teacher's are of the target's images alone, and
        none before it was asked for the first time."""
        norms = {"student": _norms(self.student), "teacher": _norms(self.teacher)}
        other = "teacher" if of == "student" else "student"
        for own, shared in zip(norms[other], norms[of], strict=True):
            for buffer, value in zip(own.buffers(), shared.buffers(), strict=True):
                buffer.copy_(value)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        """The student's features."""
        return cast(Segments, self.student).features(images)

    def logits(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B K h w"]:
        """The student's logits of its features."""
        return cast(Segments, self.student).logits(features)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K h w"]:
        """The student's logits."""
        return logits_of(self.student, images)

    @torch.no_grad()
    def taught(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K h w"]:
        """The teacher's logits."""
        return logits_of(self.teacher, images)


def _norms(network: nn.Module) -> list[nn.Module]:
    """Whatever may keep statistics of batches, ours or torch's."""
    return [module for module in network.modules() if isinstance(module, Norm | nn.modules.batchnorm._NormBase)]


def follows(step: int, alpha: float) -> float:
    """a, the share of the old teacher that stays at a step.

    >>> follows(1, 0.999), round(follows(2, 0.999), 4), follows(999, 0.999), follows(5000, 0.999)
    (0.5, 0.6667, 0.999, 0.999)
    """
    return min(1.0 - 1.0 / (step + 1), alpha)


def logits_of(network: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K h w"]:
    """Features, then logits of them."""
    segments = cast(Segments, network)
    return segments.logits(segments.features(images))
