"""Our classes in the registries of mmsegmentation, under their own names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from apps.vision.segmentation.mmseg.ops import mmseg_module
from core.errors import InputError

_HERE = __name__.rpartition(".")[0]
NAMES: Mapping[str, tuple[str, str]] = {
    "ManyformerMiT": ("MODELS", "models"),
    "ManyformerDAFormerHead": ("MODELS", "models"),
    "ManyformerEncoderDecoder": ("MODELS", "models"),
    "ManyformerClock": ("HOOKS", "models"),
    "ManyformerDataset": ("DATASETS", "datasets"),
    "LoadManyformerImage": ("TRANSFORMS", "datasets"),
    "LoadManyformerLabels": ("TRANSFORMS", "datasets"),
}
"""Each with its registry in ``mmseg.registry`` and its module here."""


def register() -> None:
    """Let configs of mmsegmentation name what :data:`NAMES` lists; a second call changes nothing.

    A config says ``custom_imports = dict(imports=["apps.vision.segmentation.mmseg.plugin"])`` instead.

    Raises:
        InputError: mmsegmentation is not installed, or another class has one of the names.
    """
    registries = mmseg_module("mmseg.registry")
    for name, (kind, module) in NAMES.items():
        registry = getattr(registries, kind)
        ours = getattr(importlib.import_module(f"{_HERE}.{module}"), name)
        known = registry.module_dict.get(name)
        if known is None:
            registry.register_module(module=ours, name=name)
        elif known is not ours:
            raise InputError(f"{name!r} is another class already", where=f"mmsegmentation's {kind}")
