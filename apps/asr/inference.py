"""The network for recognition only: what training needs is folded into the weights around it.

    input scales, batch norms, norms' affines     into the linear maps and convolutions beside them: core.rewrite.fold

Projected positions are kept by relative attention itself, once it is in evaluation mode and runs without gradients.
The copy's weights lie in one piece of memory, and so does what is made on the way: copies of single weights, freed,
would leave the heap full of holes over which the buffers of a pass scatter, which doubles the memory that it touches.
Activations overwrite what they are of.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.asr.model import Squeezeformer
from core.convolution import ConvolutionModule
from core.feedforward import MLP
from core.rewrite.fold import fold_, foldable

# Bytes that the start of every weight is a multiple of, as torch's own allocations are.
_ALIGNMENT = 64


def for_inference(model: Squeezeformer, dtype: torch.dtype | None = None) -> Squeezeformer:
    """A copy of ``model`` that computes the same with fewer operations; in evaluation mode, and not for training.

    Args:
        model: stays as it is.
        dtype: of the copy's weights, and so of all that it computes, its logits included; it takes features of any.
            ``torch.bfloat16`` spares the casts of every weight in every call that autocast makes.

    >>> from apps.asr.config import ModelConfig
    >>> model = Squeezeformer(80, 32, ModelConfig(width=8, layers=2, heads=2, reduce=0)).eval()
    >>> folded, x, lengths = for_inference(model), torch.randn(1, 50, 80), torch.tensor([50])
    >>> torch.allclose(folded(x, lengths)[0], model(x, lengths)[0], atol=1e-5)
    True
    """
    folded = _in_one_piece(model, None).eval()
    fold_(folded, foldable(folded))
    for module in folded.modules():
        if isinstance(module, ConvolutionModule):
            module.in_place = True
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
