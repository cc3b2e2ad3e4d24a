"""Weights of other programs: the same function, wherever theirs is installed; names both ways wherever not."""

import importlib
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from apps.vision.segmentation.config import SIZES, ModelConfig
from apps.vision.segmentation.mmseg import without_compiled_ops
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.weights import encoder_state, head_state, load_weights, read_state
from core.errors import InputError

SMALL = ModelConfig(depths=(1, 1, 2, 1), drop_path=0.0, head_dropout=0.0)
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}


def scattered(module, seed=0):
    """A module in evaluation mode with all numbers drawn, running statistics included: ones and zeros hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else 0.2 * drawn)
                if value.ndim == 1 and name.endswith("weight"):
                    value.add_(1)
    return module.eval()


def model_of(config=SMALL, classes=5):
    return scattered(Segmentor(classes, config), seed=1)


def theirs(name):
    """A peer, or a skip; what its import warns of is its own affair."""
    pytest.importorskip(name.partition(".")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def mmseg(name):
    pytest.importorskip("mmengine")
    pytest.importorskip("mmcv")
    without_compiled_ops()
    return theirs(f"mmseg.{name}")


def agree(ours, wanted, dtype):
    for mine, other in zip(ours, wanted, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(mine, other, rtol=0, atol=TOLERANCES[dtype] * max(1.0, scale))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_features_are_those_of_mmsegmentation(eps, dtype):
    peer = mmseg("models.backbones").MixVisionTransformer(
        embed_dims=32, num_layers=list(SMALL.depths), num_heads=list(SMALL.heads), drop_path_rate=0.0
    )
    # It has 1e-6 everywhere; the official program has 1e-5 in transitions and reductions.
    for name, module in peer.named_modules():
        if isinstance(module, torch.nn.LayerNorm) and name.endswith(("0.norm", "attn.norm")):
            module.eps = eps
    scattered(peer.to(dtype))
    model = model_of(replace(SMALL, inner_norm_eps=eps)).to(dtype)
    loaded = load_weights(model, peer.state_dict())
    assert (loaded.encoder, loaded.head, loaded.left) == ("mmsegmentation", None, ())
    images = torch.randn(2, 3, 96, 72, dtype=dtype)
    with torch.no_grad():
        agree(model.features(images), peer(images), dtype)
    named = encoder_state(model, "mmsegmentation")
    assert all(torch.equal(tensor, peer.state_dict()[name]) for name, tensor in named.items())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_features_are_those_of_segmentation_models_pytorch(dtype):
    peer = theirs("segmentation_models_pytorch").encoders.get_encoder("mit_b0", weights=None)
    peer = scattered(peer.to(dtype))
    model = model_of(SIZES["b0"].model()).to(dtype)
    loaded = load_weights(model, {f"encoder.{name}": tensor for name, tensor in peer.state_dict().items()})
    assert loaded.encoder == "official"
    images = torch.randn(1, 3, 96, 64, dtype=dtype)
    with torch.no_grad():
        agree(model.features(images), peer(images)[-4:], dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_context_is_that_of_mmsegmentation(dtype):
    """DAFormer's branches are its separable module, fused by hand."""
    heads = mmseg("models.decode_heads.sep_aspp_head")
    options = {"conv_cfg": None, "norm_cfg": {"type": "BN"}, "act_cfg": {"type": "ReLU"}}
    dilations = SMALL.dilations
    peer = scattered(
        heads.DepthwiseSeparableASPPModule(dilations=dilations, in_channels=64, channels=16, **options).to(dtype)
    )
    model = model_of(replace(SMALL, head_width=16)).to(dtype)
    assert model.head.context is not None
    state = head_state(model, "daformer")
    peer.load_state_dict(
        {n.removeprefix("fuse_layer.aspp_modules."): t for n, t in state.items() if "aspp_modules" in n}, strict=False
    )
    x = torch.randn(2, 64, 13, 9, dtype=dtype)
    with torch.no_grad():
        agree([branch(x) for branch in model.head.context.branches], peer(x), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_segformer_of_mmsegmentation_is_loaded_whole(dtype):
    module = mmseg("models.decode_heads")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"in_channels": list(SMALL.widths), "in_index": [0, 1, 2, 3], "channels": 16, "num_classes": 5}
        peer = scattered(module.SegformerHead(**options, norm_cfg={"type": "BN"}, dropout_ratio=0.0).to(dtype))
    model = model_of(replace(SMALL, context="none", embedding="convolution", head_width=16)).to(dtype)
    state = {f"backbone.{name}": tensor for name, tensor in encoder_state(model, "mmsegmentation").items()}
    loaded = load_weights(model, {**state, **{f"decode_head.{n}": t for n, t in peer.state_dict().items()}})
    assert (loaded.encoder, loaded.head, loaded.left) == ("mmsegmentation", "mmsegmentation", ())
    features = [
        torch.randn(2, width, side, side + 1, dtype=dtype)
        for width, side in zip(SMALL.widths, (16, 8, 4, 2), strict=True)
    ]
    with torch.no_grad():
        agree([model.logits(features)], [peer(features)], dtype)


HEADS = [
    ("daformer", SMALL),
    ("daformer", replace(SMALL, separable=False, head_width=8)),
    ("segformer", replace(SMALL, context="none", head_width=24)),
    ("mmsegmentation", replace(SMALL, context="none", embedding="convolution", head_width=24)),
]


@pytest.mark.parametrize("encoder", ["official", "mmsegmentation"])
@pytest.mark.parametrize(("head", "config"), HEADS, ids=[f"{name}-{config.separable}" for name, config in HEADS])
def test_names_go_both_ways(encoder, head, config):
    first, second = model_of(config), Segmentor(5, config).eval()
    state = {
        **{f"backbone.{name}": tensor for name, tensor in encoder_state(first, encoder).items()},
        **{f"decode_head.{name}": tensor for name, tensor in head_state(first, head).items()},
    }
    loaded = load_weights(second, state)
    assert (loaded.encoder, loaded.head, loaded.left) == (encoder, head, ())
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    # The head alone can be left as it is.
    third = Segmentor(5, config)
    before = third.head.state_dict()["classifier.weight"].clone()
    assert load_weights(third, state, head=False).head is None
    assert torch.equal(third.head.classifier.weight, before)


def test_the_official_segformer_joins_features_from_last_to_first():
    config = replace(SMALL, context="none", head_width=3)
    model = model_of(config)
    weight = head_state(model, "segformer")["linear_fuse.conv.weight"]
    assert model.head.fuse is not None
    assert torch.equal(weight[:, :3], model.head.fuse.conv.weight[:, 9:])


def checkpoint():
    """Of an adaptation: three networks, counters of batches, an ImageNet classifier."""
    parts = {"model.": 1, "ema_model.": 2, "imnet_model.": 3}
    state = {}
    for prefix, seed in parts.items():
        network = scattered(Segmentor(5, SMALL), seed)
        encoder, head = encoder_state(network, "official"), head_state(network, "daformer")
        state |= {f"{prefix}backbone.{name}": tensor for name, tensor in encoder.items()}
        state |= {f"{prefix}decode_head.{name}": tensor for name, tensor in head.items()}
        state[f"{prefix}decode_head.fuse_layer.bottleneck.bn.num_batches_tracked"] = torch.tensor(7)
        state[f"{prefix}backbone.head.weight"] = torch.zeros(2, 2)
    return state


@pytest.mark.parametrize(("part", "seed"), [("student", 1), ("teacher", 2), ("imagenet", 3)])
def test_a_part_of_an_adaptation(part, seed):
    model = Segmentor(5, SMALL)
    loaded = load_weights(model, checkpoint(), part=part)
    assert (loaded.encoder, loaded.head, loaded.left) == ("official", "daformer", ("head.weight",))
    wanted = scattered(Segmentor(5, SMALL), seed).state_dict()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in wanted.items())


def changed(**changes):
    state = {**encoder_state(model_of(), "official"), **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


BAD = [
    (changed(**{"block1.0.attn.q.bias": None}), "'block1.0.attn.q.bias' is missing"),
    (changed(**{"block3.7.norm1.weight": torch.zeros(3)}), "'block3.7.norm1.weight' has no place"),
    (changed(**{"norm1.weight": torch.zeros(3)}), r"'norm1.weight' has size \(3,\), the model \(32,\)"),
    ({"conv1.weight": torch.zeros(3)}, "no Mix Transformer of a known layout"),
    ({**changed(), "decode_head.aux.weight": torch.zeros(3)}, "its head is of no known layout"),
]


@pytest.mark.parametrize(("state", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_fit_is_refused_and_changes_nothing(state, message):
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_weights(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_another_function_is_refused():
    with pytest.raises(InputError, match="these weights need mixer='sra', not 'pooling'"):
        load_weights(Segmentor(5, replace(SMALL, mixer="pooling")), changed())


def test_files(tmp_path):
    state = changed()
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    for name in ("a.pth", "b.safetensors"):
        assert read_state(tmp_path / name).keys() == state.keys()
    torch.save({"state_dict": state, "model": model_of()}, tmp_path / "c.pth")  # a pickled object is not executed
    torch.save([1, 2], tmp_path / "d.pth")
    (tmp_path / "e.pth").write_bytes(b"no")
    for name, message in (("c", "cannot be read"), ("d", "more than named"), ("e", "cannot be read"), ("f", "no such")):
        with pytest.raises(InputError, match=message):
            read_state(tmp_path / f"{name}.pth")
