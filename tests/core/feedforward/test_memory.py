import itertools

import pytest
import torch

from core.errors import InputError
from core.feedforward import Memory, MemoryLayer
from core.optim import route
from core.testing.positionwise import memory_layer
from core.testing.tolerances import draw


def drawn(inputs: int = 6, outputs: int = 5, **options: object) -> MemoryLayer:
    layer = MemoryLayer(inputs, outputs, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        layer.tables.copy_(draw(*layer.tables.shape, seed=1))
        layer.bias.copy_(draw(outputs, seed=2))
    return layer


@pytest.mark.parametrize("bits", [1, 2, 3, 6])
def test_a_weight_is_its_corners_share_of_the_softmax(bits: int) -> None:
    layer, x = drawn(bits=bits), draw(40, 6)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits)), dtype=torch.float64)
    rows, weights = layer.addressed(x)
    assert rows.shape == weights.shape == (40, 6 // bits)
    for k in range(6 // bits):
        z = x[:, k * bits : (k + 1) * bits]
        chances = (z @ corners.T).exp()
        chances = chances / chances.sum(-1, keepdim=True)
        torch.testing.assert_close(chances.sum(-1), torch.ones(40, dtype=torch.float64))
        corner = rows[:, k] - k * 2**bits
        assert bool(((corner >= 0) & (corner < 2**bits)).all())
        assert torch.equal(corner, chances.argmax(-1)), "the corner of the signs is the most likely one"
        torch.testing.assert_close(weights[:, k], chances.max(-1).values, rtol=1e-12, atol=1e-12)


def test_the_released_score_has_a_further_factor() -> None:
    x = draw(20, 6)
    plain, released = drawn(bits=3), drawn(bits=3, score="l1_softmax")
    factor = x.view(20, 2, 3).abs().sum(-1)
    torch.testing.assert_close(released.addressed(x)[1], plain.addressed(x)[1] * factor, rtol=1e-12, atol=1e-12)


def test_zero_is_all_ones_and_evenly_uncertain() -> None:
    rows, weights = drawn(bits=3).addressed(torch.zeros(6, dtype=torch.float64))
    assert rows.tolist() == [7, 15]
    torch.testing.assert_close(weights, torch.full((2,), 1 / 8, dtype=torch.float64))


@pytest.mark.parametrize("score", ["softmax", "l1_softmax"])
def test_fused_and_gathered_reading_are_the_definition(score: str) -> None:
    layer, x = drawn(bits=2, score=score), draw(3, 7, 6)
    rows, weights = layer.addressed(x)
    gathered = (weights[..., None] * layer.tables[rows]).sum(-2) + layer.bias
    torch.testing.assert_close(layer(x), gathered, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x), memory_layer(layer, x), rtol=1e-12, atol=1e-12)


def test_one_small_chunk_is_a_table() -> None:
    layer = drawn(2, 5, bits=2)
    x = torch.tensor([[-0.5, 2.0]], dtype=torch.float64)
    weight = 1 / (1 + torch.exp(torch.tensor(-1.0))) / (1 + torch.exp(torch.tensor(-4.0)))
    torch.testing.assert_close(layer(x), weight.double() * layer.tables[1:2] + layer.bias)


def test_permuting_bits_and_rows_together_changes_nothing() -> None:
    layer, x, order = drawn(3, 4, bits=3), draw(30, 3), [2, 0, 1]
    other = drawn(3, 4, bits=3)
    with torch.no_grad():
        for corner in itertools.product((0, 1), repeat=3):
            old = int("".join(map(str, corner)), 2)
            new = int("".join(str(corner[i]) for i in order), 2)
            other.tables[new] = layer.tables[old]
    torch.testing.assert_close(other(x[:, order]), layer(x), rtol=1e-12, atol=1e-12)


def test_gradients_go_through_the_weights_and_into_the_rows_read() -> None:
    layer = drawn(bits=3)
    x = (draw(4, 6) + draw(4, 6).sign() * 0.1).requires_grad_()  # away from a change of sign
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))
    rows, _ = layer.addressed(x)
    (grad,) = torch.autograd.grad(layer(x).sum(), layer.tables)
    read = torch.zeros(len(layer.tables), dtype=torch.bool)
    read[rows.flatten()] = True
    assert torch.equal(grad.any(-1), read)


def test_layers_can_share_an_address() -> None:
    one, two, x = drawn(bits=3), drawn(6, 9, bits=3), draw(5, 6)
    rows, weights = one.addressed(x)
    assert torch.equal(two.read(rows, weights), two(x))


def test_sizes_roles_and_start() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = Memory(64)
    assert (block.first.chunks, block.first.bits, block.second.chunks, block.second.bits) == (8, 8, 8, 10)
    assert block.first.tables.shape == (8 * 256, 80)
    assert block.second.tables.shape == (8 * 1024, 64)
    assert abs(float(block.first.tables.detach().std()) - 0.02) < 1e-3
    assert 5e-4 < float(block.second.bias.detach().std()) < 2e-3
    roles = {entry.name: entry.role for entry in route(block).entries}
    assert roles["first.tables"] == roles["second.tables"] == "embedding"
    assert [Memory(width).first.bits for width in (6, 7, 22, 36, 256)] == [6, 7, 2, 6, 8]


@pytest.mark.untyped
def test_refusals() -> None:
    for options, words in (
        ({"bits": 5}, "5 bits do not divide the width 16"),
        ({"bits": 0}, "0 bits do not divide"),
        ({"bits": 16, "extra_bits": 1}, "1 to 16"),
        ({"extra_bits": -1}, "negative"),
        ({"score": "cosine"}, "no score 'cosine'; softmax or l1_softmax"),
    ):
        with pytest.raises(InputError, match=words):
            Memory(16, **options)  # type: ignore[arg-type]
