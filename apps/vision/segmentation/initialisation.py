"""How the network starts without weights, as SegFormer and DAFormer do.

    linear maps of the encoder         weight truncated normal of deviation 0.02; bias 0
    convolutions of the encoder        weight N(0, sqrt(2 / (k k C_out / groups))); bias 0
    classifier                         weight N(0, 0.01); bias 0
    other maps of the head             weight N(0, sqrt(2 / fan_in)) (He et al., arXiv 1502.01852) [U]; bias 0

Norms stay at 1 and 0, as they are built. The deviation of a depth-wise filter is sqrt(2 / 9).
"""

from __future__ import annotations

import math

from torch import nn

from apps.vision.segmentation.head import Classifier, Head
from core.feedforward import MixFFN


def official_(encoder: nn.Module, head: Head) -> None:
    """Give the maps of a fresh network the official values, in place."""
    official_encoder_(encoder)
    official_head_(head)


def official_encoder_(encoder: nn.Module) -> None:
    """Of an encoder alone."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, MixFFN):
            nn.init.normal_(module.taps, std=math.sqrt(2 / 9))
            continue
        else:
            continue
        _zero_bias_(module)


def official_head_(head: Head) -> None:
    """Of a head alone."""
    for module in head.modules():
        if isinstance(module, Classifier):
            nn.init.normal_(module.weight, std=0.01)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / math.prod(module.weight.shape[1:])))
        else:
            continue
        _zero_bias_(module)


def _zero_bias_(module: nn.Linear | nn.Conv2d) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
