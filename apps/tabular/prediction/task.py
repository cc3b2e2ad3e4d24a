"""The learning task: losses and monitored metrics of table prediction.

Losses are cross-entropies of logits (one logit for two classes) and the squared error of the standardised target
``(y - mean) / std``. A mixed row answers to both labels: classification adds the two losses, weighted lambda and
1 - lambda; regression meets the mixed target (Chen et al., KDD 2024, arXiv 2301.02819, as released). Sample weights
multiply each label's loss; they are scaled to mean 1 over the split, so that the learning rate keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score
from torch import Tensor

from apps.tabular.prediction.config import Kind, MixingConfig
from apps.tabular.prediction.mixing import Mix, draw_mix
from apps.tabular.prediction.model import ExcelFormer
from core.auxiliary import collected
from core.errors import InputError
from core.training import Task, TensorBatches

Batch = Mapping[str, Tensor]

MONITORS: dict[Kind, tuple[str, bool]] = {
    "binary": ("auc", True),
    "multiclass": ("accuracy", True),
    "regression": ("rmse", False),
}
"""The metric of each kind of target that ``evaluate`` gives beside the loss; whether greater is better."""


def monitor(kind: Kind, watch: Literal["auto", "metric", "loss"]) -> tuple[str, bool]:
    """The validation number that picks the best weights, and whether greater is better; see ``TabularConfig.watch``.

    >>> monitor("binary", "auto"), monitor("multiclass", "auto"), monitor("multiclass", "metric")
    (('auc', True), ('loss', False), ('accuracy', True))
    """
    if watch == "loss" or (watch == "auto" and kind == "multiclass"):
        return "loss", False
    return MONITORS[kind]


class RowDataset(TensorBatches):
    """Encoded rows in memory; indexing with a tensor of rows gives one batch.

    Args:
        x: encoded columns.
        codes: category codes.
        y: class index, or standardised value.
        weight: sample weights, at least 0; scaled to mean 1. All one where absent.

    >>> rows = RowDataset(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.int64), torch.arange(4.0))
    >>> rows[torch.tensor([2, 0])]["y"]
    tensor([2., 0.])
    """

    def __init__(
        self,
        x: Float[Tensor, "R N"],
        codes: Int[Tensor, "R N"],
        y: Float[Tensor, " R"] | Int[Tensor, " R"],
        weight: Float[Tensor, " R"] | None = None,
    ) -> None:
        weight = torch.ones(len(x)) if weight is None else weight.float()
        if not bool((weight >= 0).all() & (weight.sum() > 0) & weight.isfinite().all()):
            raise InputError("sample weights must be finite, at least 0 and not all 0", where="sample_weight")
        super().__init__({"x": x, "codes": codes, "y": y, "weight": weight / weight.mean()})


class TabularTask(Task):
    """One ExcelFormer, one kind of target.

    Args:
        model: its outputs are logits (1 for binary, C for multiclass) or the standardised value (regression).
        kind: what is predicted.
        mixing: augmentation of training batches.
    """

    def __init__(self, model: ExcelFormer, kind: Kind, mixing: MixingConfig | None = None) -> None:
        super().__init__()
        self.model: ExcelFormer = model
        self.kind = kind
        self.mixing = mixing or MixingConfig()
        if self.mixing.kind == "input" and model.config.category_embedding:
            raise InputError(
                "input mixup interpolates numbers, and category codes are not numbers",
                where="mixing.kind",
                mend="use 'feat' or 'hidden', or switch category_embedding off",
            )

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of one training batch, rows mixed as configured."""
        width = self.model.config.width
        mix = draw_mix(self.mixing, len(batch["x"]), self.model.importance, width)
        with collected() as extra:
            outputs = self.model(batch["x"], batch["codes"], mix=mix)
        loss = mixed_loss(self.kind, outputs, batch["y"], batch["weight"], mix).mean()
        return {"loss": loss + extra.total()}

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and monitored metric of a whole split, by sample weight."""
        parts = [(self.model(b["x"], b["codes"]).detach(), b["y"], b["weight"]) for b in batches]
        outputs, y, weight = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        losses = row_loss(self.kind, outputs, y)
        loss = float((losses * weight).sum() / weight.sum())
        name, _ = MONITORS[self.kind]
        return {"loss": loss, name: _score(self.kind, outputs, y, weight, loss)}


def row_loss(kind: Kind, outputs: Float[Tensor, "B C"], y: Tensor) -> Float[Tensor, " B"]:
    """Loss of each row: cross-entropy in nats, or squared error.

    >>> row_loss("regression", torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 3.0]))
    tensor([1., 0.])
    """
    if kind == "binary":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y.to(outputs), reduction="none")
    if kind == "multiclass":
        return F.cross_entropy(outputs, y.long(), reduction="none")
    return (outputs[:, 0] - y.to(outputs)).square()


def mixed_loss(
    kind: Kind, outputs: Float[Tensor, "B C"], y: Tensor, weight: Float[Tensor, " B"], mix: Mix | None
) -> Float[Tensor, " B"]:
    """Weighted loss of each row against its own label and, where mixed, its partner's."""
    if mix is None:
        return weight * row_loss(kind, outputs, y)
    share, other = mix.share, mix.partner
    if kind == "regression":
        target = share * y + (1 - share) * y[other]
        return (share * weight + (1 - share) * weight[other]) * row_loss(kind, outputs, target)
    own = share * weight * row_loss(kind, outputs, y)
    return own + (1 - share) * weight[other] * row_loss(kind, outputs, y[other])


def _score(kind: Kind, outputs: Tensor, y: Tensor, weight: Tensor, loss: float) -> float:
    if kind == "regression":
        return float(np.sqrt(loss))
    if kind == "multiclass":
        return float(((outputs.argmax(1) == y) * weight).sum() / weight.sum())
    if bool((y == y[0]).all()):
        return 0.5  # one class alone ranks nothing
    return float(roc_auc_score(y.numpy(), outputs[:, 0].float().numpy(), sample_weight=weight.numpy()))
