"""The few hot operations that have a faster form than torch's own: the plain reference beside each, one dispatcher.

A kernel is here because ``benchmarks/kernels.py`` measured it faster than its reference; on devices where it was not
measured, the reference runs.
"""

from __future__ import annotations

from core.kernels.depthwise import conv_length, depthwise_conv1d, depthwise_conv1d_reference
from core.kernels.dropout import Dropout, dropout, keep_mask, keep_mask_reference

__all__ = [
    "Dropout",
    "conv_length",
    "depthwise_conv1d",
    "depthwise_conv1d_reference",
    "dropout",
    "keep_mask",
    "keep_mask_reference",
]
