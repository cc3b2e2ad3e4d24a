"""What is trained, said without an engine.

A task holds a model and knows its losses and metrics. It knows no trainer, no device, no file: the engine moves
batches, draws gradients and decides when to stop. The same task therefore runs in a plain loop, in a notebook, or under
:func:`core.training.fit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn


class Task(ABC):
    """A model with its losses and metrics.

    Several processes may train one task, each with a part of every batch (:func:`core.training.together`). So losses
    are means over the examples of a batch; and a model whose weights are divided is a copy, reached by ``self.model``
    alone, which is called, or by one of the methods named in ``entries``, and not by its parts one by one.

    Attributes:
        model: what is trained; every trainable parameter of the task belongs to it.
        entries: methods of the model that compute with its weights and are called besides the model itself.
    """

    model: nn.Module
    entries: Sequence[str] = ()

    @abstractmethod
    def training_loss(self, batch: Any) -> dict[str, Tensor]:
        """The losses of one batch, called in training mode with gradients on.

        Returns:
            scalars by name, each a mean over the batch's examples, always of the same names; ``"loss"`` is the one
            minimised, the others are reported only.
        """

    @abstractmethod
    def evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Metrics of a whole split, called in evaluation mode with gradients off.

        ``batches`` can be read once. Metrics are of the split, not means over its batches.
        """
