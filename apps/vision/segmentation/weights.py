"""Weights of other programs: which layout a state dict has, and its tensors under our names and back.

=============  =====================================================  ==========================================
layout         encoder                                                head
=============  =====================================================  ==========================================
official       ``patch_embed1.proj``, ``block1.0.attn.q``, ``norm1``  DAFormer ``embed_layers``, ``fuse_layer``;
                                                                      SegFormer ``linear_c1``, ``linear_fuse``
mmsegmentation ``layers.0.0.projection``, ``layers.0.1.0.attn.attn``  SegFormer ``convs``, ``fusion_conv``
=============  =====================================================  ==========================================

Encoders may stand under ``backbone.`` or ``encoder.`` (segmentation-models-pytorch has the official names there), heads
under ``decode_head.``; a checkpoint of an adaptation has three networks, the student's under ``model.``, the teacher's
under ``ema_model.`` and the ImageNet network's under ``imnet_model.``. What a program keeps besides the network (an
ImageNet classifier ``head.``, batch counters) is left out and said; anything else that has no place is refused.

Names say nothing of the eps inside norms. Official weights, and those of segmentation-models-pytorch, belong to
``inner_norm_eps`` 1e-5 (the default); what mmsegmentation trained, to 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from apps.vision.segmentation.config import ModelConfig
from apps.vision.segmentation.model import Segmentor
from core.errors import InputError

State = Mapping[str, Tensor]
Part = Literal["student", "teacher", "imagenet"]
PREFIXES: dict[str, str] = {"student": "model.", "teacher": "ema_model.", "imagenet": "imnet_model."}
"""Of the networks in a checkpoint of an adaptation."""


class Rule(NamedTuple):
    """One of their tensors, and ours that it is made of.

    Attributes:
        theirs: name.
        ours: names; several are joined along the first axis.
        point: theirs is a 1 x 1 convolution where ours is a linear map.
        turned: blocks of columns that are theirs in the opposite order.
    """

    theirs: str
    ours: tuple[str, ...]
    point: bool = False
    turned: int = 1


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What :func:`load_weights` did.

    Attributes:
        encoder: layout of the encoder.
        head: layout of the head; None where the file had none, and ours stays as it was.
        left: names of theirs that have no place here, and need none.
    """

    encoder: str
    head: str | None
    left: tuple[str, ...]


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file, or from a torch file that is read without executing anything.

    A torch file may hold them under ``state_dict``, beside plain values.

    Raises:
        InputError: no such file, or one that cannot be read so.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise a dozen kinds for a damaged or foreign file
        raise InputError("cannot be read as tensors", where=str(path), mend="save a bare state_dict()") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError("holds more than named tensors", where=str(path), mend="save a bare state_dict()")
    return dict(state)


def load_weights(model: Segmentor, state: State, *, part: Part = "student", head: bool = True) -> Loaded:
    """Give ``model`` the weights of another program's network.

    Args:
        model: built with the sizes of the weights.
        state: their state dict, of a whole network or of an encoder.
        part: which network of a checkpoint of an adaptation.
        head: False leaves the head as it is, whatever the file has.

    Raises:
        InputError: an unknown layout, another function (a head that computes something else), or a key that is missing,
            foreign or of another size.
    """
    state = _of_part(state, part)
    encoder, heads = _divided(state)
    layout = _encoder_layout(encoder)
    taken, left = _taken(model, "encoder.", encoder, _ENCODERS[layout](model.config), layout)
    found = None
    if head and heads:
        found = _head_layout(heads)
        more, also = _taken(model, "head.", heads, _HEADS[found](model.config), found)
        taken, left = {**taken, **more}, [*left, *also]
    else:
        left += [f"decode_head.{name}" for name in heads]
    model.load_state_dict({**model.state_dict(), **taken})
    return Loaded(encoder=layout, head=found, left=tuple(sorted(left)))


def encoder_state(model: Segmentor, layout: Literal["official", "mmsegmentation"]) -> dict[str, Tensor]:
    """Copies of the encoder's weights under the names of a layout, without prefix.

    >>> state = encoder_state(Segmentor(2, ModelConfig(depths=(1, 1, 1, 1))), "mmsegmentation")
    >>> state["layers.0.1.0.attn.attn.in_proj_weight"].shape
    torch.Size([96, 32])
    """
    return _given(model, "encoder.", _ENCODERS[layout](model.config))


def head_state(model: Segmentor, layout: Literal["daformer", "segformer", "mmsegmentation"]) -> dict[str, Tensor]:
    """Likewise of the head, without its prefix ``decode_head.``.

    Raises:
        InputError: a head that the layout has no names for.
    """
    return _given(model, "head.", _HEADS[layout](model.config))


# --------------------------------------------------------------------------------------------------------- layouts


def _of_part(state: State, part: Part) -> State:
    """The one network, of several; all, where there is one."""
    if not any(name.startswith("ema_model.") for name in state) and not all(n.startswith("model.") for n in state):
        return state
    prefix = PREFIXES[part]
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not found:
        raise InputError(f"has no network {prefix!r}", where="state dict", mend="name another part")
    return found


def _divided(state: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's tensors and the head's, without prefixes and counters of batches."""
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    heads = {n.removeprefix("decode_head."): tensor for n, tensor in kept.items() if n.startswith("decode_head.")}
    rest = {name: tensor for name, tensor in kept.items() if not name.startswith("decode_head.")}
    for prefix in ("backbone.", "encoder."):
        inside = {name.removeprefix(prefix): tensor for name, tensor in rest.items() if name.startswith(prefix)}
        if inside:
            return {**inside, **{name: rest[name] for name in rest if not name.startswith(prefix)}}, heads
    return rest, heads


def _encoder_layout(state: State) -> str:
    for layout, name in {
        "official": "patch_embed1.proj.weight",
        "mmsegmentation": "layers.0.0.projection.weight",
    }.items():
        if name in state:
            return layout
    raise InputError(
        "is no Mix Transformer of a known layout",
        where="state dict",
        mend="official, segmentation-models-pytorch and mmsegmentation names are known",
    )


def _head_layout(state: State) -> str:
    marks = {"daformer": "embed_layers.0.proj.weight", "segformer": "linear_c1.proj.weight"}
    for layout, name in {**marks, "mmsegmentation": "convs.0.conv.weight"}.items():
        if name in state:
            return layout
    mend = "load the encoder alone with head=False"
    raise InputError("its head is of no known layout", where="state dict", mend=mend)


def _taken(
    model: Segmentor, prefix: str, state: State, rules: Iterator[Rule], layout: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Our tensors made of theirs, and the names of theirs that need no place."""
    ours, taken, used = model.state_dict(), {}, set()
    for rule in rules:
        if rule.theirs not in state:
            raise InputError(f"the key {rule.theirs!r} is missing", where=f"{layout} weights")
        tensor = _blocks_turned(state[rule.theirs], rule.turned)
        shapes = [ours[prefix + name].shape for name in rule.ours]
        wanted = (sum(shape[0] for shape in shapes), *shapes[0][1:], *((1, 1) if rule.point else ()))
        if tuple(tensor.shape) != wanted:
            why = f"{rule.theirs!r} has size {tuple(tensor.shape)}, the model {wanted}"
            raise InputError(why, where=f"{layout} weights", mend="build the model with the sizes of the weights")
        parts = torch.split(tensor.flatten(1) if rule.point else tensor, [shape[0] for shape in shapes])
        taken.update({prefix + name: piece.clone() for name, piece in zip(rule.ours, parts, strict=True)})
        used.add(rule.theirs)
    rest = sorted(state.keys() - used)
    foreign = [name for name in rest if not name.startswith(_UNUSED)]
    if foreign:
        raise InputError(f"the key {foreign[0]!r} has no place in this model", where=f"{layout} weights")
    return taken, rest


def _given(model: Segmentor, prefix: str, rules: Iterator[Rule]) -> dict[str, Tensor]:
    ours, given = model.state_dict(), {}
    for rule in rules:
        tensor = torch.cat([ours[prefix + name] for name in rule.ours])
        tensor = tensor[:, :, None, None] if rule.point else tensor
        given[rule.theirs] = _blocks_turned(tensor, rule.turned).clone()
    return given


def _blocks_turned(tensor: Tensor, blocks: int) -> Tensor:
    return tensor if blocks == 1 else torch.cat(tensor.chunk(blocks, dim=1)[::-1], dim=1)


_UNUSED = ("head.", "conv_seg.")
"""Beginnings of names that need no place: an ImageNet classifier, and mmsegmentation's second name of a classifier."""


# ----------------------------------------------------------------------------------------------------------- rules


def _affine(theirs: str, *ours: str, point: bool = False) -> Iterator[Rule]:
    yield Rule(f"{theirs}.weight", tuple(f"{name}.weight" for name in ours), point)
    yield Rule(f"{theirs}.bias", tuple(f"{name}.bias" for name in ours))


def _official(config: ModelConfig) -> Iterator[Rule]:
    """The encoder under its authors' names."""
    _demand(config, mixer="sra", feedforward="mixffn", norm="layernorm", placement="pre")
    for s, depth in enumerate(config.depths):
        stage, one = f"stages.{s}", s + 1
        yield from _affine(f"patch_embed{one}.proj", f"{stage}.transition.conv")
        yield from _affine(f"patch_embed{one}.norm", f"{stage}.transition.norm")
        yield from _affine(f"norm{one}", f"{stage}.norm")
        for i in range(depth):
            block, mixer, feedforward = f"block{one}.{i}", *_sublayers(stage, i)
            yield from _affine(f"{block}.norm1", f"{mixer}.norms.0")
            yield from _affine(f"{block}.norm2", f"{feedforward}.norms.0")
            yield from _affine(f"{block}.attn.q", f"{mixer}.block.query")
            yield from _affine(f"{block}.attn.kv", f"{mixer}.block.key_value")
            yield from _affine(f"{block}.attn.proj", f"{mixer}.block.out")
            if config.reductions[s] > 1:
                yield from _affine(f"{block}.attn.sr", f"{mixer}.block.reduce")
                yield from _affine(f"{block}.attn.norm", f"{mixer}.block.norm")
            yield from _affine(f"{block}.mlp.fc1", f"{feedforward}.block.up")
            yield from _affine(f"{block}.mlp.fc2", f"{feedforward}.block.down")
            yield Rule(f"{block}.mlp.dwconv.dwconv.weight", (f"{feedforward}.block.taps",))
            yield Rule(f"{block}.mlp.dwconv.dwconv.bias", (f"{feedforward}.block.shift",))


def _mmsegmentation(config: ModelConfig) -> Iterator[Rule]:
    """The encoder under the names of mmsegmentation 1.x."""
    _demand(config, mixer="sra", feedforward="mixffn", norm="layernorm", placement="pre")
    for s, depth in enumerate(config.depths):
        stage, theirs = f"stages.{s}", f"layers.{s}"
        yield from _affine(f"{theirs}.0.projection", f"{stage}.transition.conv")
        yield from _affine(f"{theirs}.0.norm", f"{stage}.transition.norm")
        yield from _affine(f"{theirs}.2", f"{stage}.norm")
        for i in range(depth):
            block, mixer, feedforward = f"{theirs}.1.{i}", *_sublayers(stage, i)
            yield from _affine(f"{block}.norm1", f"{mixer}.norms.0")
            yield from _affine(f"{block}.norm2", f"{feedforward}.norms.0")
            for kind in ("weight", "bias"):
                joined = (f"{mixer}.block.query.{kind}", f"{mixer}.block.key_value.{kind}")
                yield Rule(f"{block}.attn.attn.in_proj_{kind}", joined)
            yield from _affine(f"{block}.attn.attn.out_proj", f"{mixer}.block.out")
            if config.reductions[s] > 1:
                yield from _affine(f"{block}.attn.sr", f"{mixer}.block.reduce")
                yield from _affine(f"{block}.attn.norm", f"{mixer}.block.norm")
            yield from _affine(f"{block}.ffn.layers.0", f"{feedforward}.block.up", point=True)
            yield from _affine(f"{block}.ffn.layers.4", f"{feedforward}.block.down", point=True)
            yield Rule(f"{block}.ffn.layers.1.weight", (f"{feedforward}.block.taps",))
            yield Rule(f"{block}.ffn.layers.1.bias", (f"{feedforward}.block.shift",))


def _sublayers(stage: str, block: int) -> tuple[str, str]:
    return f"{stage}.stack.sublayers.{2 * block}", f"{stage}.stack.sublayers.{2 * block + 1}"


def _conv_norm(theirs: str, ours: str, turned: int = 1) -> Iterator[Rule]:
    yield Rule(f"{theirs}.conv.weight", (f"{ours}.conv.weight",), turned=turned)
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield Rule(f"{theirs}.bn.{name}", (f"{ours}.norm.{name}",))


def _daformer(config: ModelConfig) -> Iterator[Rule]:
    """DAFormer's head."""
    _demand(config, context="fused", embedding="linear", head_norm="batchnorm")
    for level in range(len(config.widths)):
        yield from _affine(f"embed_layers.{level}.proj", f"embeddings.{level}")
    for index, dilation in enumerate(config.dilations):
        theirs, ours = f"fuse_layer.aspp_modules.{index}", f"context.branches.{index}"
        if dilation == 1 or not config.separable:
            yield from _conv_norm(theirs, ours)
        else:
            yield from _conv_norm(f"{theirs}.depthwise_conv", f"{ours}.0")
            yield from _conv_norm(f"{theirs}.pointwise_conv", f"{ours}.1")
    yield from _conv_norm("fuse_layer.bottleneck", "context.bottleneck")
    yield from _affine("conv_seg", "classifier")


def _segformer(config: ModelConfig) -> Iterator[Rule]:
    """SegFormer's head under its authors' names; they join the features from the last to the first."""
    _demand(config, context="none", embedding="linear", head_norm="batchnorm")
    for level in range(len(config.widths)):
        yield from _affine(f"linear_c{level + 1}.proj", f"embeddings.{level}")
    yield from _conv_norm("linear_fuse", "fuse", turned=len(config.widths))
    yield from _affine("linear_pred", "classifier")


def _mmsegmentation_head(config: ModelConfig) -> Iterator[Rule]:
    """SegFormer's head as in mmsegmentation."""
    _demand(config, context="none", embedding="convolution", head_norm="batchnorm")
    for level in range(len(config.widths)):
        yield from _conv_norm(f"convs.{level}", f"embeddings.{level}")
    yield from _conv_norm("fusion_conv", "fuse")
    yield from _affine("conv_seg", "classifier")


_ENCODERS = {"official": _official, "mmsegmentation": _mmsegmentation}
_HEADS = {"daformer": _daformer, "segformer": _segformer, "mmsegmentation": _mmsegmentation_head}


def _demand(config: ModelConfig, **wanted: str) -> None:
    for name, value in wanted.items():
        if getattr(config, name) != value:
            why = f"these weights need {name}={value!r}, not {getattr(config, name)!r}"
            raise InputError(why, where=f"model.{name}")
