"""Weights of other ExcelFormer programs: key layouts, reading, and writing.

``WhatAShot/ExcelFormer`` (official): the same function as ours with the published switches, so that weights pass both
ways and predictions agree.

    tokenizer.{weight,bias} value side, tokenizer.{weight2,bias2} tanh side        (N,D)
    layers.i.attention.{W_q,W_k,W_v,W_out}.{weight,bias}; layers.i.norm0 (i >= 1); layers.i.norm1
    layers.i.linear0 (2D,D): rows 0..D value, D..2D tanh
    last_fc (1,N); last_normalization; last_activation; head (C,D)

``pyg-team/pytorch-frame`` computes another function: it normalises before the first attention too, and its skip around
attention starts from the normalised tokens. Its tokeniser, attention, feed-forward, norms and read-out (our
``head="paper"``) each compute what ours do, so the weights can start a training, and are taken only when asked for.

Neither state holds the order of the columns or their transforms: these stay with the table encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from apps.tabular.prediction.config import ModelConfig
from apps.tabular.prediction.model import ExcelFormer
from core.errors import InputError

State = Mapping[str, Tensor]
KeyMap = dict[str, tuple[str, ...]]
"""Our key to theirs; several are joined along the first axis."""


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file, or from a torch file that holds tensors and nothing else.

    Raises:
        InputError: no such file, or one that holds anything but named tensors.
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
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError("holds more than named tensors", where=str(path), mend="save a bare state_dict()")
    return dict(state)


def load_official(model: ExcelFormer, state: State) -> None:
    """Set ``model`` to official weights; it then computes the official function of columns in the official order.

    Args:
        model: built with the sizes of the weights and the published switches (``ModelConfig()`` has them all).
        state: an official state dict.

    Raises:
        InputError: a switch that is not the published one, or a key that is missing, foreign or of another size.
    """
    _load(model, state, _official_map(model.config))


def to_official(model: ExcelFormer) -> dict[str, Tensor]:
    """Copies of the weights of ``model`` under official names.

    >>> small = ExcelFormer(3, 1, ModelConfig(width=8, heads=2, layers=1))
    >>> to_official(small)["layers.0.linear0.weight"].shape
    torch.Size([16, 8])
    """
    ours = model.state_dict()
    state: dict[str, Tensor] = {}
    for key, names in _official_map(model.config).items():
        state.update(zip(names, (part.clone() for part in ours[key].chunk(len(names))), strict=True))
    return state


def load_pytorch_frame(model: ExcelFormer, state: State, *, partial: bool = False) -> tuple[str, ...]:
    """Start ``model`` from the weights of a ``torch_frame.nn.ExcelFormer``.

    Args:
        model: built with ``head="paper"`` and otherwise published switches.
        state: state dict of the other model.
        partial: the caller knows that predictions will not agree, and wants the weights as a start.

    Returns:
        The keys that have no counterpart: column statistics, the norm before the first attention, column numbers.

    Raises:
        InputError: without ``partial``; and as :func:`load_official`.
    """
    if not partial:
        raise InputError(
            "a pytorch-frame ExcelFormer computes another function (norm before the first attention, "
            "skip from normalised tokens)",
            where="load_pytorch_frame",
            mend="pass partial=True to start a training from its weights",
        )
    keys = _pytorch_frame_map(model.config)
    columns = "excelformer_encoder.encoder_dict.numerical."
    first = "excelformer_convs.0.norm_1."
    left = {columns + "mean", columns + "std", columns + "fill_values", first + "weight", first + "bias"}
    left |= {f"excelformer_convs.{block}.DiaM.seq_ids" for block in range(model.config.layers)}
    _load(model, {key: tensor for key, tensor in state.items() if key not in left}, keys)
    return tuple(sorted(left & state.keys()))


def _load(model: ExcelFormer, state: State, keys: KeyMap) -> None:
    ours = model.state_dict()
    wanted = {name for names in keys.values() for name in names}
    foreign = sorted(state.keys() - wanted)
    if foreign:
        raise InputError(f"the key {foreign[0]!r} has no place in this model", where="state dict")
    for key, names in keys.items():
        shape = (ours[key].shape[0] // len(names), *ours[key].shape[1:])
        for name in names:
            _check(name, state, shape)
    model.load_state_dict({key: torch.cat([state[name] for name in names]) for key, names in keys.items()})


def _check(name: str, state: State, shape: tuple[int, ...]) -> None:
    if name not in state:
        raise InputError(f"the key {name!r} is missing", where="state dict")
    if tuple(state[name].shape) != shape:
        raise InputError(f"{name!r} has size {tuple(state[name].shape)}, the model {shape}", where="state dict")


def _official_map(config: ModelConfig) -> KeyMap:
    _demand(config, head="official")
    pairs: list[tuple[str, tuple[str, ...]]] = [
        ("tokenizer.value_weight", ("tokenizer.weight",)),
        ("tokenizer.value_bias", ("tokenizer.bias",)),
        ("tokenizer.gate_weight", ("tokenizer.weight2",)),
        ("tokenizer.gate_bias", ("tokenizer.bias2",)),
        *_affine("head.tokens", "last_fc"),
        *_affine("head.norm", "last_normalization"),
        ("head.activation.weight", ("last_activation.weight",)),
        *_affine("head.output", "head"),
    ]
    for block in range(config.layers):
        mixer, feedforward, theirs = (
            f"stack.sublayers.{2 * block}",
            f"stack.sublayers.{2 * block + 1}",
            f"layers.{block}",
        )
        attention = f"{theirs}.attention"
        pairs += _affine(f"{mixer}.block.qkv", f"{attention}.W_q", f"{attention}.W_k", f"{attention}.W_v")
        pairs += _affine(f"{mixer}.block.out", f"{attention}.W_out") if config.heads > 1 else ()
        pairs += _affine(f"{mixer}.norms.0", f"{theirs}.norm0") if block else ()
        pairs += _affine(f"{feedforward}.norms.0", f"{theirs}.norm1")
        pairs += _affine(f"{feedforward}.block.up", f"{theirs}.linear0")
    return dict(pairs)


def _pytorch_frame_map(config: ModelConfig) -> KeyMap:
    _demand(config, head="paper")
    columns, decoder = "excelformer_encoder.encoder_dict.numerical", "excelformer_decoder"
    pairs: list[tuple[str, tuple[str, ...]]] = [
        ("tokenizer.value_weight", (f"{columns}.W_2",)),
        ("tokenizer.value_bias", (f"{columns}.b_2",)),
        ("tokenizer.gate_weight", (f"{columns}.W_1",)),
        ("tokenizer.gate_bias", (f"{columns}.b_1",)),
        *_affine("head.tokens", f"{decoder}.lin_f"),
        ("head.activation.weight", (f"{decoder}.activation.weight",)),
        *_affine("head.output", f"{decoder}.lin_d"),
    ]
    for block in range(config.layers):
        mixer, feedforward = f"stack.sublayers.{2 * block}", f"stack.sublayers.{2 * block + 1}"
        theirs = f"excelformer_convs.{block}"
        attention, gated = f"{theirs}.DiaM", f"{theirs}.AiuM"
        pairs += _affine(f"{mixer}.block.qkv", f"{attention}.lin_q", f"{attention}.lin_k", f"{attention}.lin_v")
        pairs += _affine(f"{mixer}.block.out", f"{attention}.lin_out") if config.heads > 1 else ()
        pairs += _affine(f"{mixer}.norms.0", f"{theirs}.norm_1") if block else ()
        pairs += _affine(f"{feedforward}.norms.0", f"{theirs}.norm_2")
        # Their first map is the gate.
        pairs += _affine(f"{feedforward}.block.up", f"{gated}.lin_2", f"{gated}.lin_1")
    return dict(pairs)


def _affine(ours: str, *theirs: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for part in ("weight", "bias"):
        yield f"{ours}.{part}", tuple(f"{name}.{part}" for name in theirs)


def _demand(config: ModelConfig, *, head: str) -> None:
    published = {"mixer": "softmax", "norm": "layernorm", "feedforward": "glu", "placement": "pre", "head": head}
    for name, value in {**published, "category_embedding": False}.items():
        if getattr(config, name) != value:
            raise InputError(
                f"these weights need {name}={value!r}, not {getattr(config, name)!r}", where=f"model.{name}"
            )
