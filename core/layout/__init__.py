"""Layouts: entries, repeats and sharing as data, and the builder that makes a stack of residual sublayers of them."""

from __future__ import annotations

from core.layout.build import build
from core.layout.entries import Entry, Layout, Repeat, flatten
from core.layout.feedforwards import feedforward_options
from core.layout.fold import can_fold, fold_scale, fold_scale_, fold_scales
from core.layout.mixers import Request, mixer_options
from core.layout.residual import Residual
from core.layout.scale import InputScale
from core.layout.stack import Description, Stack

__all__ = [
    "Description",
    "Entry",
    "InputScale",
    "Layout",
    "Repeat",
    "Request",
    "Residual",
    "Stack",
    "build",
    "can_fold",
    "feedforward_options",
    "flatten",
    "fold_scale",
    "fold_scale_",
    "fold_scales",
    "mixer_options",
]
