"""The network for recognition only: what training needs is folded into the weights around it.

    input scales      W (a * x + b) + c                 into the maps that read the sublayer's input
    batch norms *     s * (w * h + c) + t               into the depth-wise convolution before: w' = s w, c' = s c + t

* and ``prepbn`` and ``unifiednorm``, which are batch norms in evaluation mode.

Projected positions are kept by relative attention itself, once it is in evaluation mode and runs without gradients.
Folding is done in float64 and rounded once. The copy's weights lie in one piece of memory, and so does what is made on
the way: copies of single weights, freed, would leave the heap full of holes over which the buffers of a pass scatter,
which doubles the memory that it touches. Activations overwrite what they are of.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.asr.model import Squeezeformer
from core.convolution import ConvolutionModule
from core.feedforward import MLP
from core.layout import Residual, can_fold, fold_scale_
from core.norm import BatchNorm, Identity, PRepBN, UnifiedNorm

# Bytes that the start of every weight is a multiple of, as torch's own allocations are.
_ALIGNMENT = 64


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
    folded = _in_one_piece(model, None).eval()
    for module in folded.modules():
        if isinstance(module, Residual) and can_fold(module):
            fold_scale_(module)
        elif isinstance(module, ConvolutionModule):
            module.in_place = True
            norm = module.norm.as_batchnorm() if isinstance(module.norm, PRepBN | UnifiedNorm) else module.norm
            if isinstance(norm, BatchNorm):
                _fold_norm_(module, norm)
        elif isinstance(module, MLP) and module.activate is F.silu:
            module.activate = _silu_
    return _in_one_piece(folded, dtype)


def _in_one_piece(model: Squeezeformer, dtype: torch.dtype | None) -> Squeezeformer:
    """A copy of ``model`` whose parameters and buffers, in ``dtype`` or their own, lie side by side."""
    tensors = (*model.parameters(), *model.buffers())
    kinds = [dtype or tensor.dtype for tensor in tensors]
    sizes = [tensor.numel() * kind.itemsize for tensor, kind in zip(tensors, kinds, strict=True)]
    places = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
    whole = torch.empty(sum(places), dtype=torch.uint8, device=tensors[0].device)
    pieces = torch.split(whole, places)
    placed: dict[int, object] = {}
    for tensor, kind, size, piece in zip(tensors, kinds, sizes, pieces, strict=True):
        copied = piece[:size].view(kind).view(tensor.shape).copy_(tensor.detach())
        placed[id(tensor)] = nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied
    return copy.deepcopy(model, placed)


def _silu_(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)


def _fold_norm_(module: ConvolutionModule, norm: BatchNorm) -> None:
    """Move the batch norm of a convolution module into its depth-wise convolution, in place."""
    conv = module.depthwise
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    with torch.no_grad():
        conv.weight.copy_(conv.weight.double() * scale[:, None, None])
        conv.bias.copy_(conv.bias.double() * scale + shift)
    module.norm = Identity(norm.width, eps=norm.eps).eval()
