"""Mixing along time by convolution; :data:`CONVOLUTIONS` maps the names that configurations use to classes."""

from __future__ import annotations

from core.attention import Mixer
from core.convolution.depthwise import DepthwiseConv
from core.convolution.module import ConvolutionModule
from core.convolution.separable import SeparableConvolution

CONVOLUTIONS: dict[str, type[Mixer]] = {"convolution": ConvolutionModule, "sepconv": SeparableConvolution}

__all__ = ["CONVOLUTIONS", "ConvolutionModule", "DepthwiseConv", "SeparableConvolution"]
