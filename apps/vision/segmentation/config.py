"""Every setting of the application, as plain data: numbers, words and nested records, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from apps.vision.segmentation.data.augment import AugmentConfig
from apps.vision.segmentation.data.geometry import CropConfig
from apps.vision.segmentation.data.rare import RareClassConfig
from core.errors import InputError
from core.optim import OptimConfig, ScheduleConfig
from core.training import FitSettings


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. The defaults are Mix Transformer B0 with DAFormer's head, as released."""

    widths: tuple[int, ...] = (32, 64, 160, 256)
    """Width of a token in each stage; strides are 4, 8, 16, 32."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Blocks of each stage; each is attention and feed-forward."""
    heads: tuple[int, ...] = (1, 2, 5, 8)
    """Attention heads of each stage; must divide its width."""
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    """Rows and columns of the grid that keys and values of each stage are made of, in cells of so many tokens."""
    expansion: int = 4
    """Hidden units of a feed-forward, in widths."""
    mixer: str = "sra"
    """Token mixer, a name in ``core.attention.MIXERS``; it must take any number of tokens, and read all of them.
    ``sra``: spatial-reduction attention, the published one. The cost of most others grows with the square of pixels."""
    feedforward: str = "mixffn"
    """Feed-forward, a name in ``core.feedforward.FEEDFORWARDS``. ``mixffn``: with a depth-wise convolution, the
    published one, and with ``sra`` all that tells where a token is besides the transitions."""
    norm: str = "layernorm"
    """Norm of the encoder, a name in ``core.norm.NORMS``."""
    norm_eps: float = 1e-6
    """Inside the square root of the norms of blocks and stages."""
    inner_norm_eps: float = 1e-5
    """Likewise of transitions and reductions. 1e-5 is as released; mmsegmentation has 1e-6 there too."""
    placement: Literal["pre", "post", "peri", "none"] = "pre"
    """Where the norm stands in a sublayer."""
    drop_path: float = 0.1
    """Stochastic depth: probability of dropping what the last block adds to an image, rising from 0 at the first."""
    context: Literal["fused", "last", "none"] = "fused"
    """What the head's branches of several dilations read: the fused features of all stages (DAFormer), those of the
    last stage alone, or nothing, the features being fused by one 1 x 1 convolution (SegFormer)."""
    embedding: Literal["linear", "convolution"] = "linear"
    """How the head brings features to its width: a linear map (DAFormer, SegFormer's authors), or a convolution without
    bias, a norm and ReLU (SegFormer in mmsegmentation)."""
    head_width: int = 256
    """Channels inside the head."""
    dilations: tuple[int, ...] = (1, 6, 12, 18)
    """Of the branches; 1 stands for a 1 x 1 convolution."""
    separable: bool = True
    """Dilated convolutions are depth-wise, with a 1 x 1 convolution after each; otherwise they are full."""
    head_norm: str = "batchnorm"
    """Norm inside the head, a name in ``core.norm.NORMS``."""
    head_dropout: float = 0.1
    """Of whole channels before the classifier."""

    def __post_init__(self) -> None:
        stages = len(self.widths)
        for name in ("widths", "depths", "heads", "reductions", "dilations"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InputError(f"must be numbers of at least 1, got {values}", where=f"model.{name}")
            if name != "dilations" and len(values) != stages:
                raise InputError(f"{len(values)} numbers for {stages} stages", where=f"model.{name}")
        for name in ("expansion", "head_width"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", where=f"model.{name}")
        for name in ("drop_path", "head_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"must lie in [0, 1), got {getattr(self, name)}", where=f"model.{name}")


@dataclass(frozen=True)
class Size:
    """One of the published encoders.

    Attributes:
        widths: of the stages.
        depths: blocks of the stages.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def model(self) -> ModelConfig:
        """The network with this encoder.

        >>> SIZES["b5"].model().depths
        (3, 6, 40, 3)
        """
        return ModelConfig(widths=self.widths, depths=self.depths)


_WIDE = (64, 128, 320, 512)
SIZES: dict[str, Size] = {
    "b0": Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": Size(_WIDE, (2, 2, 2, 2)),
    "b2": Size(_WIDE, (3, 4, 6, 3)),
    "b3": Size(_WIDE, (3, 4, 18, 3)),
    "b4": Size(_WIDE, (3, 8, 27, 3)),
    "b5": Size(_WIDE, (3, 6, 40, 3)),
}
"""Mix Transformers as published with SegFormer (arXiv 2105.15203); DAFormer has B5."""


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How the source's network is brought to the target. The defaults are DAFormer's, as released."""

    kind: Literal["adapt", "none", "target"] = "adapt"
    """``adapt``: the target's images take part, without labels. ``none``: the source alone, which is the lower
    baseline. ``target``: the labels of the target's training images in place of the source's, the upper one."""
    alpha: float = 0.999
    """Share of the old teacher that stays at a step, in the long run."""
    threshold: float = 0.968
    """Probability from which on the teacher counts as confident of a pixel."""
    test: Literal["at_least", "above"] = "at_least"
    """Whether a probability of the threshold itself is confident (as released)."""
    share_of: Literal["batch", "image", "pixel"] = "batch"
    """Of which pixels the share of confident ones, the weight of all pseudo-labels, is taken; ``pixel``: each for
    itself, so that what is not confident counts nothing (FixMatch, arXiv 2001.07685)."""
    balance: float = 0.0
    """How much more a pseudo-label of a rare class counts: by its share of what the teacher says of the batch to the
    power of minus this, 1 in the mean. 0: all alike, as released; 1: each class as much as any other."""
    statistics: Literal["student", "teacher"] = "student"
    """Whose running statistics the student's batch norms keep for use outside training: its own, of source and mixed
    images, or from ``mix_start`` on its teacher's, which are of the target's (after Li et al., arXiv 1603.04779)."""
    style: float = 0.0
    """Probability that a source image takes the light and tint of a target image, for both losses. None as released."""
    style_of: Literal["moments", "histogram"] = "moments"
    """What of it: mean and deviation of each colour, or all of its distribution."""
    ignore_top: int = 15
    """Rows at the top of a target crop that have weight 0, for borders of the camera."""
    ignore_bottom: int = 120
    """Likewise at the bottom, for the hood of the car."""
    mix_classes_of: Literal["batch", "image"] = "batch"
    """Which source labels ClassMix draws the classes of an image from; of the batch as released, by mistake."""
    mix_ignored: bool = True
    """"Not labelled" is a class for ClassMix, as released; its pixels then teach nothing."""
    mix_weight: float = 1.0
    """Weight of the loss on mixed images."""
    mix_start: float = 0.0
    """Share of the steps before which nothing is mixed, nor the time for it spent: the teacher of an untrained network
    teaches noise."""
    mix_ramp: float = 0.0
    """Share of the steps, from there, during which that weight rises from 0."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How mixed images are disturbed."""
    distance: float = 0.005
    """Weight of the feature distance to an ImageNet network on things; it needs ``pretrained``, and is 0 without."""
    distance_share: float = 0.75
    """Of a feature's cell, what a thing must fill."""
    distance_mean: Literal["batch", "image"] = "batch"
    """Whether cells of the batch count alike, or images."""

    def __post_init__(self) -> None:
        for name in ("threshold", "balance", "style", "mix_start", "mix_ramp", "distance_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"must lie in [0, 1], got {getattr(self, name)}", where=f"adaptation.{name}")
        if not 0.0 <= self.alpha < 1.0:
            raise InputError(f"must lie in [0, 1), got {self.alpha}", where="adaptation.alpha")
        for name in ("ignore_top", "ignore_bottom", "mix_weight", "distance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"must be at least 0, got {getattr(self, name)}", where=f"adaptation.{name}")


Watch = Literal["source_miou", "target_agreement", "target_entropy", "target_information", "last"]


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Everything that decides a trained segmentor, besides the data."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    """From the source to the target."""
    source: CropConfig = field(default_factory=CropConfig)
    """Crops of the source."""
    target: CropConfig = field(default_factory=CropConfig)
    """Crops of the target; with ``adaptation.kind`` ``target`` they take the place of the source's."""
    rare_classes: bool = True
    """Draw source images by class, rare ones more often; otherwise each once an epoch."""
    rare: RareClassConfig = field(default_factory=RareClassConfig)
    """How they are drawn then."""
    photometric: bool = False
    """Jitter and blur of the source's images too, in every kind: with ``none`` the baseline that adaptation must
    beat."""
    photometric_augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How much, then."""
    mean_over: Literal["all", "labelled"] = "all"
    """What a loss over pixels is divided by: all of them, as released, or those with a label."""
    batch: int = 2
    """Images of the source, and of the target, in a step."""
    epoch_images: int | None = None
    """Source images of an epoch, after which is evaluated; as many as there are unless given."""
    pretrained: str | None = None
    """File with ImageNet weights of the encoder, in a layout of :mod:`.weights`; the network begins with them."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=6e-5))
    """Optimiser; the rate is the encoder's."""
    head_rate: float = 10.0
    """Learning rate of the head, in those of the encoder."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over the run."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Length of a run. Its seed, and what it watches, are set from ``seed`` and ``watch``."""
    watch: Watch = "source_miou"
    """Validation number that picks the weights. None of them reads a label of the target, but with ``target``, where
    ``source_miou`` is the target's. ``target_agreement``: pixels on which student and teacher agree;
    ``target_entropy``: of the student's probabilities; ``target_information``: entropy of their mean less mean of
    their entropy; ``last``: the weights at the end, whatever was seen."""
    show_target: bool = False
    """Also measure, for the record, student and pseudo-labels on the target's labelled ``valid`` images; it picks
    nothing."""
    seed: int = 0
    """Decides everything random."""

    def __post_init__(self) -> None:
        for name in ("batch", "epoch_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"must be at least 1, got {getattr(self, name)}", where=name)
        if not 0 < self.head_rate < float("inf"):
            raise InputError(f"must be positive, got {self.head_rate}", where="head_rate")
        if self.watch == "target_agreement" and self.adaptation.kind != "adapt":
            mend = "watch source_miou, or let adaptation.kind be adapt"
            raise InputError("there is no teacher to agree with", where="watch", mend=mend)
        if self.source.crop != self.target.crop and self.adaptation.kind == "adapt":
            raise InputError("crops of source and target must be of one size to be mixed", where="target.crop")
