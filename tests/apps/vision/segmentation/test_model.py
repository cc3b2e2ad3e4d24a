"""The network: published sizes to the digit, images of any size, heads that compute what they say."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from apps.vision.segmentation import head
from apps.vision.segmentation.config import SIZES, ModelConfig
from apps.vision.segmentation.head import Head
from apps.vision.segmentation.model import Segmentor
from core.errors import InputError
from core.layout import build, rising
from core.layout.build import TABLES
from core.optim import route

SMALL = ModelConfig(widths=(8, 12, 16, 20), depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), head_width=6)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("b0", 3.32), ("b1", 13.15), ("b2", 24.20), ("b3", 44.07), ("b4", 60.84), ("b5", 81.44)],
)
def test_encoders_have_the_published_sizes(size, parameters):
    with torch.device("meta"):
        assert round(count(Segmentor(19, SIZES[size].model()).encoder) / 1e6, 2) == parameters


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 3_712_275),
        ({"context": "none"}, 530_707),
        ({"context": "none", "head_width": 768}, 3_164_947),
        ({"separable": False}, 9_969_939),
    ],
    ids=str,
)
def test_heads_have_the_published_sizes(changes, parameters):
    with torch.device("meta"):
        assert count(Head(19, replace(SIZES["b5"].model(), **changes))) == parameters


@pytest.mark.parametrize("size", [(64, 64), (65, 33), (37, 101), (7, 3), (1, 1)], ids=str)
def test_images_of_any_size(size):
    model = Segmentor(5, SMALL).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        features = model.features(images)
        logits = model(images)
    rows, columns = size
    for level, (feature, width) in enumerate(zip(features, SMALL.widths, strict=True)):
        assert tuple(feature.shape) == (2, width, -(-rows // (4 * 2**level)), -(-columns // (4 * 2**level)))
    assert tuple(logits.shape) == (2, 5, -(-rows // 4), -(-columns // 4))
    assert bool(logits.isfinite().all())
    assert [tuple(f.shape[2:]) for f in features] == list(model.encoder.sizes(*size))
    # An image gives the same in any batch.
    with torch.no_grad():
        torch.testing.assert_close(model(images[:1]), logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.untyped
@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 0, 8)])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(InputError, match=r"Segmentor: images of shape .* are not"):
        Segmentor(5, SMALL).features(images)


@pytest.mark.parametrize("context", ["none", "last"])
@pytest.mark.parametrize("embedding", ["linear", "convolution"])
def test_fusing_before_enlarging_is_fusing_after(context, embedding):
    config = replace(SMALL, context=context, embedding=embedding, head_dropout=0.0)
    head = Head(5, config).double().eval()
    features = [torch.randn(2, w, s, s + 2).double() for w, s in zip(SMALL.widths, (16, 8, 4, 2), strict=True)]
    with torch.no_grad():
        maps = [embed(f) for embed, f in zip(head.embeddings, features, strict=False)]
        maps += [] if head.context is None else [head.context(features[-1])]
        wide = [F.interpolate(z, (16, 18), mode="bilinear", align_corners=False) for z in maps]
        wanted = head.classifier(head.fuse(torch.cat(wide, dim=1)))
        torch.testing.assert_close(head(features), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(12, 36), (17, 5), (40, 31)])
@pytest.mark.parametrize("dilation", [6, 7, 8, 12, 18])
def test_a_depth_wise_convolution_of_any_dilation_is_torchs(dilation, size, monkeypatch):
    half = head.ConvNorm(5, 5, SMALL, dilation=dilation, depthwise=True).double().eval()
    images = torch.randn(2, 5, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    taken = []
    plain = head._by_subgrids
    monkeypatch.setattr(head, "_by_subgrids", lambda conv, x: taken.append(1) or plain(conv, x))
    found, wanted = (x.clone(memory_format=torch.preserve_format).requires_grad_() for x in (images, images))
    with torch.no_grad():
        half.conv.weight.copy_(torch.randn_like(half.conv.weight))
    y, z = half(found), half.finish(half.conv(wanted))
    assert torch.allclose(y, z, atol=1e-12)
    assert bool(taken) == (dilation > 6)
    weight = torch.randn_like(z)
    ours = torch.autograd.grad((y * weight).sum(), (found, half.conv.weight))
    theirs = torch.autograd.grad((z * weight).sum(), (wanted, half.conv.weight))
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(ours, theirs, strict=True))
    with torch.no_grad():
        assert not torch.allclose(z, half.finish(half.conv(wanted.flip(2))))


def test_every_switch_can_be_set():
    images = torch.randn(1, 3, 32, 48)
    for name, changes in {
        "placement": {"placement": "peri"},
        "norm": {"norm": "rmsnorm", "head_norm": "groupnorm"},
        "mixer": {"mixer": "pooling"},
        "attention": {"mixer": "softmax"},
        "linear attention": {"mixer": "nala"},
        "feedforward": {"feedforward": "glu"},
        "head": {"context": "last", "dilations": (1, 2)},
    }.items():
        assert Segmentor(3, replace(SMALL, **changes))(images).shape == (1, 3, 8, 12), name


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"^model.mixer: 'linformer' does not fit images: .*; these fit: .*sra"):
        Segmentor(3, replace(SMALL, mixer="linformer"))
    with pytest.raises(InputError, match=r"^model.heads: 3 numbers for 4 stages$"):
        replace(SMALL, heads=(1, 2, 2))
    with pytest.raises(InputError, match=r"^model.drop_path: must lie in \[0, 1\)"):
        replace(SMALL, drop_path=1.0)


def test_stochastic_depth_rises_over_all_blocks():
    model = Segmentor(5, replace(SMALL, drop_path=0.4))
    rates = [sub.drop_path for stage in model.encoder.parts() for sub in stage.stack.sublayers]
    assert rates == [rate for rate in rising(0.4, 5) for _ in range(2)]
    assert rates == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])


def test_parameters_have_their_roles():
    """The classifier is a head, filters are matrices, norms and biases are not decayed."""
    roles = {entry.name: entry.role for entry in route(Segmentor(5, SMALL)).entries}
    assert [name for name, role in roles.items() if role == "head"] == ["head.classifier.weight"]
    assert {roles[name] for name in roles if name.endswith(("taps", "reduce.weight", "conv.weight"))} == {"matrix"}
    assert {role for name, role in roles.items() if ".norm" in name} == {"norm"}


def test_initial_values():
    torch.manual_seed(0)
    model = Segmentor(19, SIZES["b0"].model())
    state = model.state_dict()
    for name, deviation in {
        "encoder.stages.3.stack.sublayers.0.block.query.weight": 0.02,
        "encoder.stages.0.transition.conv.weight": (2 / (49 * 32)) ** 0.5,
        "encoder.stages.3.stack.sublayers.1.block.taps": (2 / 9) ** 0.5,
        "head.classifier.weight": 0.01,
    }.items():
        assert float(state[name].std()) == pytest.approx(deviation, rel=0.05), name
    biases = [tensor for name, tensor in state.items() if name.endswith((".bias", ".shift"))]
    assert not any(bool(bias.any()) for bias in biases)


def test_grid_blocks_are_told_the_grid_by_the_stack():
    layout = tuple(entry for stage in (Segmentor(5, SMALL).encoder.parts()[0],) for entry in stage.stack.entries)
    stack = build(layout, 8)
    assert set(TABLES["mixer"]) >= {"sra"}
    with pytest.raises(InputError, match="needs the tokens to lie on a grid"):
        stack(torch.zeros(1, 12, 8))
    assert stack(torch.zeros(1, 12, 8), grid=(3, 4)).shape == (1, 12, 8)
