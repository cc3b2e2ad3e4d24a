"""Folding: what only scales and shifts, outside training, moves into the linear maps beside it.

    input scale       W (a * x + b) + c                into the maps that read a sublayer's input:
                                                       W' = W diag(a), c' = c + W b
    norm before       W (s * n(x) + t) + c             likewise, where these maps alone read the norm's result: weight
                                                       and bias of a layer, RMS or group norm; a batch norm as a whole
    batch norm in a   s * (w * h + c) + t              into the depth-wise convolution: w' = s w, c' = s c + t
    convolution

``prepbn`` and ``unifiednorm`` are batch norms outside training. A block names the maps that are all that reads its
input by ``input_maps()``; what reads it otherwise keeps its norm and scale. The norms of ``post`` make the stream
itself, and stay, as does the outer one of ``peri``. Computed in float64 and rounded once.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.attention import Mixer
from core.convolution import ConvolutionModule
from core.errors import InputError
from core.feedforward import FeedForward
from core.layout import Residual
from core.norm import NORMS, BatchNorm, Identity, Norm, PRepBN, UnifiedNorm
from core.norm.base import fold_affine
from core.rewrite.base import Evidence, ModuleT, NoOptions, Pass, blocks_of
from core.rewrite.decisions import block_at, part
from core.rewrite.stacks import name_of, relabelled

_BATCH = (BatchNorm, PRepBN, UnifiedNorm)


class Fold(Pass[NoOptions]):
    """Input scales, affines and batch norms move into the maps beside them."""

    name = "fold"
    status = "exact in evaluation"
    line = "input scales, norms' weights and biases, and whole batch norms move into the maps beside them"
    source = "ours; whole norms: SLAB, arXiv 2405.11582, and Unified Normalization, arXiv 2208.01313"
    options = NoOptions

    def decide(self, model: nn.Module, options: NoOptions, evidence: Evidence) -> dict[str, Any]:
        """The sublayers whose scale goes, those whose norm does, and convolutions, the norms with their names."""
        found = foldable(model)
        if not any(found.values()):
            raise InputError("nothing can be folded", where=self.name)
        return found

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The model without them."""
        folded = copy.deepcopy(model)
        fold_(folded, decision)
        return folded


def foldable(model: nn.Module) -> dict[str, Any]:
    """What can be folded, as the decision of :class:`Fold`.

    >>> from core.layout import Entry, build
    >>> foldable(build((Entry("feedforward", "mlp", {"hidden": 8}, norm="prepbn", scale=True),), width=4))
    {'scales': ['sublayers.0'], 'norms': {'sublayers.0': 'prepbn'}, 'convolutions': {}}
    """
    scales: list[str] = []
    norms: dict[str, str] = {}
    for path, sublayer in exclusive_readers(model).items():
        if sublayer.scale is not None:
            scales.append(path)
        if sublayer.placement in ("pre", "peri") and _has_affine(sublayer.norms[0]):
            norms[path] = name_of(sublayer.norms[0], NORMS)
    convolutions = {
        path: name_of(module.norm, NORMS)
        for path, module in blocks_of(model, ConvolutionModule).items()
        if isinstance(module.norm, _BATCH)
    }
    return {"scales": scales, "norms": norms, "convolutions": convolutions}


def fold_(model: nn.Module, decision: Mapping[str, Any]) -> None:
    """Fold in place: weights are overwritten where they lie.

    Raises:
        InputError: a decision that does not fit the model.
    """
    fitting = exclusive_readers(model)
    for path in part(decision, "scales", list, "fold"):
        if path not in fitting or fitting[path].scale is None:
            raise InputError("has no input scale that can be folded", where=str(path))
        fold_scale_(fitting[path])
    for path, name in part(decision, "norms", dict, "fold").items():
        if path not in fitting or not fitting[path].norms or name_of(fitting[path].norms[0], NORMS) != name:
            raise InputError(f"has no {name} that can be folded", where=str(path))
        fold_norm_(fitting[path])
    for path, name in part(decision, "convolutions", dict, "fold").items():
        module = block_at(model, path, ConvolutionModule, "convolution module")
        if not isinstance(module.norm, _BATCH) or name_of(module.norm, NORMS) != name:
            raise InputError(f"has no {name} that can be folded", where=str(path))
        _fold_convolution_(module, module.norm)
    relabelled(model)


def reads(block: nn.Module) -> tuple[nn.Linear, ...]:
    """The linear maps that are all that reads a block's input; none where there is anything else."""
    return _linear(block.input_maps() if isinstance(block, Mixer | FeedForward) else ())


def writes(block: nn.Module) -> tuple[nn.Linear, ...]:
    """The linear maps whose weighted sum is all that a block returns; none where there is anything else."""
    return _linear(block.output_maps() if isinstance(block, Mixer | FeedForward) else ())


def _linear(maps: Any) -> tuple[nn.Linear, ...]:
    """All of them or none: a subclass may compute something else, or be read by more than its weight."""
    return tuple(maps) if all(type(each) is nn.Linear for each in maps) else ()


def exclusive_readers(model: nn.Module) -> dict[str, Residual]:
    """The sublayers, by their paths, whose input linear maps alone read that serve no other sublayer."""
    sublayers = blocks_of(model, Residual)
    users = Counter(id(each) for sublayer in sublayers.values() for each in reads(sublayer.block))
    return {
        path: sublayer
        for path, sublayer in sublayers.items()
        if (maps := reads(sublayer.block)) and all(users[id(each)] == 1 for each in maps)
    }


def assign_(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear map another weight and bias: where the old ones lie, if they are as large."""
    with torch.no_grad():
        if weight.shape == linear.weight.shape:
            linear.weight.copy_(weight)
        else:
            made = weight.to(linear.weight.dtype).clone(memory_format=torch.contiguous_format)
            linear.weight = nn.Parameter(made, requires_grad=linear.weight.requires_grad)
        linear.out_features, linear.in_features = weight.shape
        if bias is None:
            return
        if linear.bias is not None and bias.shape == linear.bias.shape:
            linear.bias.copy_(bias)
        else:
            made = bias.to(linear.weight.dtype).clone()
            linear.bias = nn.Parameter(made, requires_grad=linear.weight.requires_grad)


def fold_scale_(sublayer: Residual) -> None:
    """Move the input scale, where there is one, into the maps that read it."""
    if sublayer.scale is None:
        return
    for linear in reads(sublayer.block):
        folded = fold_affine(linear, sublayer.scale.gain, sublayer.scale.bias)
        assign_(linear, folded.weight, folded.bias)
    sublayer.scale = None


def fold_norm_(sublayer: Residual) -> None:
    """Move of the norm before the block what can be, into the maps that read it; it must have no input scale."""
    norm = sublayer.norms[0]
    assert isinstance(norm, Norm)
    norm = copy.deepcopy(norm).eval()
    bare: Norm = norm
    for linear in reads(sublayer.block):
        bare, folded = norm.fold_into(linear)
        assign_(linear, folded.weight, folded.bias)
    sublayer.norms[0] = bare.train(sublayer.training)


def _fold_convolution_(module: ConvolutionModule, norm: BatchNorm | PRepBN | UnifiedNorm) -> None:
    """Move the batch norm of a convolution module into its depth-wise convolution."""
    batch = norm if isinstance(norm, BatchNorm) else norm.as_batchnorm()
    scale = batch.weight.double() * (batch.running_var.double() + batch.eps).rsqrt()
    shift = batch.bias.double() - scale * batch.running_mean.double()
    conv = module.depthwise
    with torch.no_grad():
        conv.weight.copy_(conv.weight.double() * scale[:, None, None])
        conv.bias.copy_(conv.bias.double() * scale + shift)
    module.norm = Identity(norm.width, eps=norm.eps).train(module.training)


def _has_affine(norm: nn.Module) -> bool:
    """Whether there is a weight or a bias to fold, or a whole norm."""
    return isinstance(norm, _BATCH) or getattr(norm, "weight", None) is not None
