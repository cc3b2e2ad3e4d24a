"""What is timed is what the tables say: the same sequences, as many weights, the same functions."""

import pytest
import torch

from benchmarks.blocks.calls import draws, feedforward, prepare
from benchmarks.blocks.points import Point, contenders
from core.feedforward import FEEDFORWARDS


def point(family, **other):
    return Point(
        **{"family": family, "tokens": 16, "batch": 2, "width": 32, "precision": "fp32", "mode": "forward"} | other
    )


@pytest.mark.parametrize("mode", ["forward", "step"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["mixer", "norm", "feedforward", "packed"])
def test_everyone_runs_and_a_step_reaches_the_input_and_every_weight(family, precision, mode):
    for name in contenders(family):
        call = prepare(point(family, mode=mode, precision=precision), name)
        call(), call()
        learned = [*call.inputs, *call.module.parameters()]
        assert all((weight.grad is not None) == (mode == "step") for weight in learned), name
        assert call.module.training == (mode == "step")
        assert all(weight.dtype == call.inputs[0].dtype for weight in call.module.parameters())


def test_gradients_do_not_pile_up():
    call = prepare(point("mixer", mode="step"), "softmax")
    call()
    before = call.inputs[0].grad.clone()
    call()
    assert torch.equal(call.inputs[0].grad, before)


@pytest.mark.parametrize("batch", [2, 8, 32])
def test_ragged_batches_are_filled_to_sixty_percent(batch):
    found = draws(batch, 64)
    assert len(found) == len({tuple(lengths.tolist()) for lengths in found}) == 3
    for lengths in found:
        assert lengths.max() == 64
        assert float(lengths.sum()) / (batch * 64) == pytest.approx(0.6, abs=0.0101)


def test_packed_and_padded_are_the_same_sequences():
    packed, padded = (prepare(point("packed"), f"softmax {how}") for how in ("packed", "padded"))
    for number, lengths in enumerate(draws(2, 16)):
        y, z = packed.apply(number), padded.apply(number)
        real = torch.arange(16) < lengths[:, None]
        torch.testing.assert_close(y, z[real])


@pytest.mark.parametrize("width", [64, 256])
def test_feedforwards_with_hidden_units_have_equal_weights(width):
    sizes = {name: sum(w.numel() for w in feedforward(name, width).parameters()) for name in FEEDFORWARDS}
    for name, size in sizes.items():
        if name != "memory":
            assert size == pytest.approx(sizes["mlp"], rel=0.02), name
    assert feedforward("mlp", width).hidden == 4 * width


def test_a_folded_pair_computes_what_it_was_folded_from():
    for norm in ("batchnorm", "prepbn", "unifiednorm"):
        folded, unfolded, linear = (
            prepare(point("folded"), name) for name in (f"{norm} folded", f"{norm} unfolded", "linear")
        )
        torch.testing.assert_close(folded.apply(0), unfolded.apply(0), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(folded.apply(0), linear.apply(0), atol=1e-3)
