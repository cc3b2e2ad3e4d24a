from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from apps.asr.config import ModelConfig
from apps.asr.inference import for_inference
from apps.asr.model import Squeezeformer
from core.convolution import ConvolutionModule
from core.norm import Identity

TINY = ModelConfig(width=6, layers=3, heads=2, reduce=1, kernel=5)


def random_model(**changes: object) -> Squeezeformer:
    torch.manual_seed(0)
    model = Squeezeformer(8, 7, replace(TINY, **changes))
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else value + 0.3 * torch.randn_like(value))
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixer": "softmax", "position": "alibi"},
        {"mixer": "minimal"},  # a scale that cannot be folded stays
        {"feedforward": "glu", "conv_activation": "glu"},
        {"conv_norm": "layernorm"},
        {"conv_norm": "prepbn", "feedforward": "experts", "norm": "groupnorm"},
        {"conv_norm": "unifiednorm", "feedforward": "memory", "block": "macaron"},
        {"placement": "pre", "reduce": None},
        {"scale": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_computes_the_same(changes, dtype, most):
    model = random_model(**changes).to(dtype)
    before = copy.deepcopy(model.state_dict())
    folded = for_inference(model)
    x, lengths = torch.randn(3, 41, 8, dtype=dtype), torch.tensor([41, 40, 23])
    with torch.no_grad():
        got, counts = folded(x, lengths)
        wanted, own = model(x, lengths)
    assert torch.equal(counts, own)
    for row, n in enumerate(own.tolist()):
        torch.testing.assert_close(got[row, :n], wanted[row, :n], rtol=most, atol=most)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_is_left_to_fold():
    model = random_model().train()
    folded = for_inference(model)
    assert model.training
    assert not folded.training
    assert not any("scale" in name or "running" in name for name in folded.state_dict())
    norms = [module.norm for module in folded.modules() if isinstance(module, ConvolutionModule)]
    assert len(norms) == 3
    assert all(isinstance(norm, Identity) for norm in norms)


def test_kept_positions_serve_every_length():
    model = random_model()
    folded = for_inference(model)
    with torch.inference_mode():
        for frames in (40, 200, 36, 4, 1100):
            x, lengths = torch.randn(1, frames, 8), torch.tensor([frames])
            torch.testing.assert_close(folded(x, lengths)[0], model(x, lengths)[0], rtol=1e-4, atol=2e-5)


def test_weights_in_sixteen_bits_are_cast_once_and_near():
    model = random_model()
    x, lengths = torch.randn(3, 41, 8), torch.tensor([41, 40, 23])
    folded = for_inference(model, torch.bfloat16)
    with torch.inference_mode():
        got, counts = folded(x, lengths)
        wanted = model(x, lengths)[0]
    assert {value.dtype for value in folded.state_dict().values()} == {got.dtype} == {torch.bfloat16}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    for row, n in enumerate(counts.tolist()):
        assert float((got[row, :n] - wanted[row, :n]).norm() / wanted[row, :n].norm()) < 0.05


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_all_weights_lie_in_one_piece_of_their_own(dtype):
    model = random_model()
    folded = for_inference(model, dtype)
    tensors = [*folded.parameters(), *folded.buffers()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    spans = sorted((tensor.data_ptr(), tensor.numel() * tensor.element_size()) for tensor in tensors)
    assert all(start % 64 == 0 for start, _ in spans)
    assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(spans))
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}.isdisjoint(
        tensor.untyped_storage().data_ptr() for tensor in tensors
    )


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lengths", [[41, 41], [41, 23]])
def test_a_second_call_gives_the_same_and_no_call_changes_weights_or_features(dtype, lengths):
    folded, x, counts = for_inference(random_model(), dtype), torch.randn(2, 41, 8), torch.tensor(lengths)
    weights, features = copy.deepcopy(folded.state_dict()), x.clone()
    with torch.inference_mode():
        first, again = folded(x, counts)[0], folded(x, counts)[0]
    for row, n in enumerate(folded.output_lengths(counts).tolist()):
        assert torch.equal(first[row, :n], again[row, :n])
    assert torch.equal(x, features)
    assert all(torch.equal(value, weights[name]) for name, value in folded.state_dict().items())
