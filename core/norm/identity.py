"""No normalisation: y = x. For places where a layout names a norm and the model has none.

(ExcelFormer, arXiv 2301.02819, and FT-Transformer, arXiv 2106.11959, have none before their first mixer.)
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.norm.base import Norm, fold_affine


class Identity(Norm):
    """The norm that does nothing.

    ``width`` and ``eps`` are taken so that it can stand wherever a norm is named.

    >>> Identity(2)(torch.tensor([[1.0, 7.0]])).tolist()
    [[1.0, 7.0]]
    """

    source = "ours; ExcelFormer, arXiv 2301.02819, has none before its first mixer"
    cost = "nothing; folds away in evaluation"

    def forward(
        self, x: Float[Tensor, "*tokens D"], mask: Bool[Tensor, "*tokens"] | None = None
    ) -> Float[Tensor, "*tokens D"]:
        """Return ``x`` itself."""
        return x

    def fold_into(self, linear: nn.Linear) -> tuple[Identity, nn.Linear]:
        """An identity and a copy of the linear map."""
        ones = torch.ones(self.width, device=linear.weight.device)
        return Identity(self.width, eps=self.eps).train(self.training), fold_affine(linear, ones, None)
