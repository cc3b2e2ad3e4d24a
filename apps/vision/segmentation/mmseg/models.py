"""Our encoder and head as backbone and decode head of mmsegmentation 1.x, for its ``EncoderDecoder`` and ``Runner``.

============================  ========================================================================================
``ManyformerMiT``             the encoder: ``size`` b0 to b5, or any field of :class:`.config.ModelConfig` that is its
``ManyformerDAFormerHead``    the head; ``channels``, ``dropout_ratio``, ``num_classes``, ``loss_decode``,
                              ``ignore_index``, ``sampler``, ``out_channels`` and ``threshold`` as for every decode head
``ManyformerEncoderDecoder``  ``EncoderDecoder`` whose loss has what blocks add to it (routers of experts)
``ManyformerClock``           a hook that tells blocks the step, where their training depends on it
============================  ========================================================================================

The last two are needed by the blocks that they speak of only; a block that was never told the step refuses to train.
:mod:`.names` has the names of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from apps.vision.segmentation.config import SIZES, ModelConfig
from apps.vision.segmentation.head import Head
from apps.vision.segmentation.initialisation import official_head_
from apps.vision.segmentation.mmseg.names import our_names
from apps.vision.segmentation.mmseg.ops import mmseg_module
from apps.vision.segmentation.model import Segmentor, encoder_of
from apps.vision.segmentation.weights import load_weights, read_state
from core.auxiliary import collected
from core.clock import advance
from core.errors import InputError, nearest

_BaseModule: Any = mmseg_module("mmengine.model").BaseModule
_Hook: Any = mmseg_module("mmengine.hooks").Hook
_BaseDecodeHead: Any = mmseg_module("mmseg.models.decode_heads.decode_head").BaseDecodeHead
_EncoderDecoder: Any = mmseg_module("mmseg.models.segmentors").EncoderDecoder

Map = Float[Tensor, "B _ _ _"]
_OF_ENCODER = (
    *("widths", "depths", "heads", "reductions", "expansion", "mixer", "feedforward", "norm"),
    *("norm_eps", "inner_norm_eps", "placement", "drop_path"),
)


class ManyformerMiT(_BaseModule):  # type: ignore[misc]
    """A Mix Transformer of our blocks; gives the features of all stages, strides 4, 8, 16, 32.

    Args:
        size: a name in :data:`.config.SIZES`.
        init_cfg: as in mmengine, but that ``dict(type="Pretrained", checkpoint=FILE)`` takes our own tensors and any
            layout of :mod:`.weights`, so official MiT files, and refuses what does not fit. Without it the network
            starts as its authors' does.
        switches: fields of :class:`.config.ModelConfig` that belong to the encoder: ``widths``, ``depths``, ``mixer``,
            ``feedforward``, ``norm``, ...; they stand over what ``size`` says.

    Raises:
        InputError: no such size or switch, or blocks that do not fit.
    """

    def __init__(
        self,
        size: str = "b0",
        *,
        init_cfg: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        **switches: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if size not in SIZES:
            raise InputError(f"there is no size {size!r}", where="ManyformerMiT", mend=nearest(size, [*SIZES]))
        for name in switches:
            if name not in _OF_ENCODER:
                mend = nearest(name, _OF_ENCODER)
                raise InputError(f"there is no switch {name!r}", where="ManyformerMiT", mend=mend)
        self.config = replace(SIZES[size].model(), **_plain(switches))
        self.encoder = encoder_of(self.config)

    def init_weights(self) -> None:
        """Load what ``init_cfg`` names; the values of construction are the official ones already."""
        config: Any = vars(self)["init_cfg"]
        given = [config] if isinstance(config, Mapping) else list(config or ())
        self.init_cfg = [each for each in given if each["type"] != "Pretrained"]
        super().init_weights()
        self.init_cfg = given
        for each in given:
            if each["type"] == "Pretrained":
                self._load(each["checkpoint"])

    def _load(self, checkpoint: str) -> None:
        state = read_state(checkpoint)
        own = {name: tensor for name, tensor in our_names(state).items() if name.startswith("encoder.stages.")}
        if not own:
            network = Segmentor(1, self.config)  # whose names the layouts are in
            load_weights(network, state, head=False)
            self.encoder.load_state_dict(network.encoder.state_dict())
            return
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            mend = "give the backbone the switches that it was trained with"
            raise InputError(f"does not fit ({error})", where=checkpoint, mend=mend) from error

    def forward(self, inputs: Float[Tensor, "B 3 H W"]) -> tuple[Map, ...]:
        """The maps of the stages, from normalised images."""
        found: tuple[Tensor, ...] = self.encoder(inputs)
        return found


class ManyformerDAFormerHead(_BaseDecodeHead):  # type: ignore[misc]
    """DAFormer's head, and with other switches SegFormer's.

    Args:
        in_channels: of the features that are fused.
        channels: inside the head.
        num_classes: K.
        in_index: which features; the first ones unless given.
        context: as in :class:`.config.ModelConfig`, like the next three.
        embedding: likewise.
        dilations: likewise.
        separable: likewise.
        norm: inside the head, a name in ``core.norm.NORMS``.
        dropout_ratio: of whole channels before the classifier.
        more: of ``BaseDecodeHead``: ``loss_decode``, ``ignore_index``, ``sampler``, ``out_channels``, ``threshold``.

    Raises:
        InputError: aligned corners, or the description of a layer that is built by name here.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        num_classes: int,
        in_index: Sequence[int] | None = None,
        context: str = "fused",
        embedding: str = "linear",
        dilations: Sequence[int] = (1, 6, 12, 18),
        separable: bool = True,
        norm: str = "batchnorm",
        dropout_ratio: float = 0.1,
        **more: Any,
    ) -> None:
        _refuse({"context": context, "embedding": embedding, **more})
        super().__init__(
            list(in_channels),
            channels,
            num_classes=num_classes,
            in_index=list(range(len(in_channels)) if in_index is None else in_index),
            input_transform="multiple_select",
            dropout_ratio=0.0,  # the dropout and the classifier are in our head
            **{"init_cfg": None, **more},
        )
        del self.conv_seg
        self.dropout_ratio = dropout_ratio
        ones = (1,) * len(in_channels)
        shape = {"widths": tuple(in_channels), "depths": ones, "heads": ones, "reductions": ones}
        made = {"context": context, "embedding": embedding, "dilations": tuple(dilations), "separable": separable}
        of_head: dict[str, Any] = {"head_width": channels, "head_norm": norm, "head_dropout": dropout_ratio}
        self.head = Head(self.out_channels, ModelConfig(**shape, **made, **of_head))  # type: ignore[arg-type]
        official_head_(self.head)

    def forward(self, inputs: Sequence[Map]) -> Float[Tensor, "B K h w"]:
        """Logits at the grid of the first feature."""
        logits: Tensor = self.head(self._transform_inputs(inputs))
        return logits


class ManyformerEncoderDecoder(_EncoderDecoder):  # type: ignore[misc]
    """``EncoderDecoder`` whose loss has, as ``loss_blocks``, what blocks contribute (:mod:`core.auxiliary`)."""

    def loss(self, inputs: Float[Tensor, "B 3 H W"], data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """The losses of a batch."""
        with collected() as extra:
            losses: dict[str, Tensor] = super().loss(inputs, data_samples)
        return {**losses, "loss_blocks": extra.total().to(inputs.device)}


class ManyformerClock(_Hook):  # type: ignore[misc]
    """Tells the blocks of a model the step that comes next (:mod:`core.clock`): schedules of norms, nested sizes."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """What mmengine calls before a step."""
        advance(runner.model, runner.iter, runner.max_iters)


def _plain(switches: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of a config as the tuples that they stand for."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in switches.items()}


def _refuse(more: Mapping[str, Any]) -> None:
    where = "ManyformerDAFormerHead"
    if more.get("align_corners"):
        mend = "leave align_corners out"
        raise InputError("features are enlarged with corners not aligned", where=where, mend=mend)
    for name in ("norm_cfg", "act_cfg", "conv_cfg", "input_transform"):
        if name in more:
            mend = "say norm='batchnorm', or another norm" if name == "norm_cfg" else "leave it out"
            raise InputError(f"{name} means nothing here", where=where, mend=mend)
    for name, known in (("context", ("fused", "last", "none")), ("embedding", ("linear", "convolution"))):
        if more[name] not in known:
            raise InputError(f"there is no {name} {more[name]!r}", where=where, mend=nearest(more[name], known))
