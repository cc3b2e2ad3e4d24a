"""Layouts: entries, repeats and sharing as data, and the builder that makes a stack of residual sublayers of them."""

from __future__ import annotations

from core.layout.build import build
from core.layout.entries import Entry, Layout, Repeat, flatten, rising
from core.layout.feedforwards import feedforward_options
from core.layout.mixers import Request, mixer_options
from core.layout.pyramid import Pyramid, Stage, Transition
from core.layout.recode import Centre, Compress, Restore
from core.layout.residual import Residual
from core.layout.scale import InputScale
from core.layout.stack import Description, Stack

__all__ = [
    "Centre",
    "Compress",
    "Description",
    "Entry",
    "InputScale",
    "Layout",
    "Pyramid",
    "Repeat",
    "Request",
    "Residual",
    "Restore",
    "Stack",
    "Stage",
    "Transition",
    "build",
    "feedforward_options",
    "flatten",
    "mixer_options",
    "rising",
]
