"""The network for recognition only: what training needs is folded into the weights around it.

    input scales      W (a * x + b) + c                 into the maps that read the sublayer's input
    batch norms       s * (w * h + c) + t               into the depth-wise convolution before: w' = s w, c' = s c + t

Projected positions are kept by relative attention itself, once it is in evaluation mode and runs without gradients.
Folding is done in float64 and rounded once.
"""

from __future__ import annotations

import copy

import torch

from apps.asr.model import Squeezeformer
from core.convolution import ConvolutionModule
from core.layout import fold_scales
from core.norm import BatchNorm, Identity


def for_inference(model: Squeezeformer, dtype: torch.dtype | None = None) -> Squeezeformer:
    """A copy of ``model`` that computes the same with fewer operations; in evaluation mode, and not for training.

    Args:
        model: stays as it is.
        dtype: of the copy's weights, and so of all that it computes, its logits included; it takes features of any.
            ``torch.bfloat16`` spares the casts of every weight in every call that autocast makes.

    Raises:
        InputError: a scaled block that does not read its input through linear maps.

    >>> from apps.asr.config import ModelConfig
    >>> model = Squeezeformer(80, 32, ModelConfig(width=8, layers=2, heads=2, reduce=0)).eval()
    >>> folded, x, lengths = for_inference(model), torch.randn(1, 50, 80), torch.tensor([50])
    >>> torch.allclose(folded(x, lengths)[0], model(x, lengths)[0], atol=1e-5)
    True
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    folded.before, folded.reduced, folded.after = (
        fold_scales(stack) for stack in (folded.before, folded.reduced, folded.after)
    )
    for module in folded.modules():
        if isinstance(module, ConvolutionModule) and isinstance(module.norm, BatchNorm):
            _fold_norm_(module, module.norm)
    return folded if dtype is None else folded.to(dtype)


def _fold_norm_(module: ConvolutionModule, norm: BatchNorm) -> None:
    """Move the batch norm of a convolution module into its depth-wise convolution, in place."""
    conv = module.depthwise
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    with torch.no_grad():
        conv.weight.copy_(conv.weight.double() * scale[:, None, None])
        conv.bias.copy_(conv.bias.double() * scale + shift)
    module.norm = Identity(norm.width, eps=norm.eps).eval()
