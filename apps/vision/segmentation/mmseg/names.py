"""Names of our network's tensors here and in mmsegmentation, where encoder and head stand apart.

``encoder.…`` is ``backbone.encoder.…`` there, ``head.…`` is ``decode_head.head.…``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_PLACES = {"encoder.": "backbone.encoder.", "head.": "decode_head.head."}


def mmseg_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a :class:`.model.Segmentor` as that of an ``EncoderDecoder`` of our parts.

    >>> import torch
    >>> list(mmseg_names({"encoder.stages.0.norm.weight": torch.ones(2), "head.classifier.bias": torch.ones(2)}))
    ['backbone.encoder.stages.0.norm.weight', 'decode_head.head.classifier.bias']
    """
    return {_renamed(name, _PLACES): tensor for name, tensor in state.items()}


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`mmseg_names`."""
    places = {theirs: ours for ours, theirs in _PLACES.items()}
    return {_renamed(name, places): tensor for name, tensor in state.items()}


def _renamed(name: str, places: Mapping[str, str]) -> str:
    for old, new in places.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
