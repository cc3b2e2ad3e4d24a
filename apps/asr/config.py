"""Every setting of the application, as plain data: numbers, words and nested records, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from apps.asr.augment import AugmentConfig
from apps.asr.features import FeatureConfig
from apps.asr.tokenizer import TokenizerConfig
from core.errors import InputError
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. The defaults are Squeezeformer-XS as its authors released it, but for ``conv_masked``."""

    width: int = 144
    """Width D of a token."""
    layers: int = 16
    """Blocks; each is attention, feed-forward, convolution, feed-forward."""
    heads: int = 4
    """Attention heads; must divide the width."""
    reduce: int | None = 7
    """Index of the block before which every second token is dropped; None keeps all of them throughout."""
    recover: int | None = None
    """Index of the block before which they come back; None is the last block."""
    kernel: int = 31
    """Taps of the depthwise convolutions; odd."""
    expansion: int = 4
    """Hidden units of a feed-forward, in widths."""
    mixer: str = "relative"
    """Token mixer, a name in ``core.attention.MIXERS`` or ``core.convolution.CONVOLUTIONS``; it must take a mask and
    any length, and read in both directions."""
    position: Literal["none", "rotary", "alibi"] = "none"
    """Positions of a mixer that lets them be chosen ("softmax", "topk", "nala")."""
    block: Literal["squeezeformer", "macaron"] = "squeezeformer"
    """Order of a block: the published one, or Conformer's with half steps of feed-forward at both ends."""
    feedforward: str = "mlp"
    """Feed-forward, a name in ``core.feedforward.FEEDFORWARDS``. ``mlp``: two layers with Swish, the published one;
    ``glu`` and ``activator``: gated, with as many weights; ``experts``: four of them, two for each token."""
    nested: tuple[float, ...] = ()
    """Shares of a feed-forward's hidden units, of which each step trains one (``mlp`` and ``glu``); none trains all."""
    norm: str = "layernorm"
    """Norm of the sublayers, a name in ``core.norm.NORMS``."""
    norm_eps: float = 1e-3
    """Inside that norm's square root."""
    placement: Literal["pre", "post", "peri", "none"] = "post"
    """Where the norm stands in a sublayer."""
    scale: bool = True
    """Learned scale and shift of what each sublayer reads."""
    conv_norm: str = "batchnorm"
    """Norm inside the convolution modules, a name in ``core.norm.NORMS``."""
    conv_norm_eps: float = 1e-3
    """Inside that norm's square root."""
    conv_momentum: float = 0.015
    """Share of a new batch in the running statistics of a batch norm."""
    conv_masked: bool = True
    """Leave padding out of a batch norm's statistics. False is as released: they depend on how much there is."""
    conv_activation: Literal["swish", "glu"] = "swish"
    """After the first linear map of a convolution module: Swish on 2D channels, or a gate that leaves D."""
    dropout: float = 0.1
    """Of what a sublayer adds, of hidden units, and of the front end."""
    attention_dropout: float = 0.0
    """Of attention probabilities."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "kernel", "expansion"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", where=f"model.{name}")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"must lie in [0, 1), got {getattr(self, name)}", where=f"model.{name}")
        if self.kernel % 2 == 0:
            raise InputError(f"must be odd, got {self.kernel}", where="model.kernel")
        self._check_reduction()

    def _check_reduction(self) -> None:
        if self.reduce is None:
            if self.recover is not None:
                raise InputError("nothing is reduced that could be recovered", where="model.recover", mend="set reduce")
            return
        last = self.layers - 1
        recover = last if self.recover is None else self.recover
        if not 0 <= self.reduce < recover <= last:
            raise InputError(
                f"blocks {self.reduce} and {recover} of {self.layers} cannot reduce and recover",
                where="model.reduce",
                mend=f"0 <= reduce < recover <= {last}, or reduce None",
            )

    @property
    def sections(self) -> tuple[range, range, range]:
        """Indices of the blocks before the reduction, between reduction and recovery, and after it.

        >>> ModelConfig().sections
        (range(0, 7), range(7, 15), range(15, 16))
        >>> ModelConfig(reduce=None).sections
        (range(0, 16), range(16, 16), range(16, 16))
        """
        if self.reduce is None:
            return range(self.layers), range(self.layers, self.layers), range(self.layers, self.layers)
        recover = self.layers - 1 if self.recover is None else self.recover
        return range(self.reduce), range(self.reduce, recover), range(recover, self.layers)


@dataclass(frozen=True)
class Size:
    """One of the published sizes.

    Attributes:
        width: D.
        layers: blocks.
        heads: attention heads.
        reduce: index of the block before which time is halved.
        time_masks: bands of time that SpecAugment hides in training.
    """

    width: int
    layers: int
    heads: int
    reduce: int
    time_masks: int

    def model(self) -> ModelConfig:
        """The network of this size.

        >>> SIZES["sm"].model().width
        256
        """
        return ModelConfig(width=self.width, layers=self.layers, heads=self.heads, reduce=self.reduce)


SIZES: dict[str, Size] = {
    "xs": Size(144, 16, 4, 7, 5),
    "s": Size(196, 18, 4, 8, 5),
    "sm": Size(256, 16, 4, 7, 5),
    "m": Size(324, 20, 4, 9, 7),
    "ml": Size(512, 18, 8, 8, 10),
    "l": Size(640, 22, 8, 10, 10),
}
"""The published sizes, as in the configurations of ``kssteven418/Squeezeformer``."""


FRAME_SECONDS = 0.04
"""Step of the network's outputs."""


@dataclass(frozen=True, kw_only=True)
class AsrConfig:
    """Everything that decides a trained recogniser, besides the data."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """From samples to frames."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What is hidden and bent in training."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """From text to tokens; fitted on the training texts."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over the run."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Length of a run. Its seed, and what it watches, are set from ``seed`` and ``watch``."""
    batch_seconds: float = 60.0
    """Audio of a batch in seconds, padding included; utterances of like length go together."""
    watch: Literal["cer", "wer", "loss"] = "cer"
    """Validation number that picks the best weights: character or word error rate, or the loss."""
    pad_seconds: float = 0.0
    """Silence put before and after every recording, a multiple of 0.08; for clips that are cut tightly."""
    longest: float = 30.0
    """Seconds; a longer training or validation utterance is bad: attention's memory grows with the square."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """What to do with utterances that cannot be learned from: stop before training, or leave them out and count."""
    seed: int = 0
    """Decides everything random."""

    def __post_init__(self) -> None:
        for name in ("batch_seconds", "longest"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"must be positive, got {getattr(self, name)}", where=name)
        steps = self.pad_seconds / (2 * FRAME_SECONDS)
        if not 0 <= self.pad_seconds <= 10 or abs(steps - round(steps)) > 1e-6:
            raise InputError(f"must be a multiple of 0.08 up to 10, got {self.pad_seconds}", where="pad_seconds")
