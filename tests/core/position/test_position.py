import pytest
import torch

from core.errors import InputError
from core.position import POSITIONS, Alibi, Position, Rotary, alibi_slopes, rotate
from core.testing.tolerances import draw


def test_the_product_of_turned_rows_depends_on_their_distance_alone() -> None:
    q, k = draw(7, seed=1), draw(7, seed=2)
    products = rotate(q.expand(40, 7)) @ rotate(k.expand(40, 7)).T
    for distance in range(-39, 40):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-12, atol=1e-12)
    assert float(products.diagonal(1)[0] - products.diagonal(-1)[0]) != pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("width", [1, 2, 7, 36, 49])
def test_turning_keeps_lengths_and_the_first_row(width: int) -> None:
    x = draw(2, 300, width)
    turned = rotate(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=1e-12)
    assert torch.equal(turned[:, 0], x[:, 0])
    if width % 2:
        assert torch.equal(turned[..., -1], x[..., -1])


def test_pairs_are_halves_and_their_angles_fall() -> None:
    first = rotate(torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4))[:, 2]
    angles = torch.tensor([2.0, 2.0 / 100.0], dtype=torch.float64)  # 10000^(-1/2)
    wanted = torch.zeros(4, 4, dtype=torch.float64)
    for m in range(2):
        wanted[m, m], wanted[m, m + 2] = angles[m].cos(), angles[m].sin()
        wanted[m + 2, m], wanted[m + 2, m + 2] = -angles[m].sin(), angles[m].cos()
    torch.testing.assert_close(first, wanted, rtol=1e-12, atol=1e-12)


def test_late_positions_stay_apart_in_bfloat16() -> None:
    x = torch.ones(1, 2000, 2, dtype=torch.bfloat16)
    exact = rotate(x.double())
    assert float((rotate(x).double() - exact).abs().max()) < 2**-7


def test_slopes() -> None:
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(1) == [1 / 256]
    twelve = alibi_slopes(12)
    assert twelve[:8] == alibi_slopes(8)
    assert twelve[8:] == [2.0 ** -(h / 2) for h in (1, 3, 5, 7)]


def test_the_bias_is_symmetric_falls_with_the_distance_and_extends() -> None:
    bias = Alibi(3, 4).bias(9, torch.zeros(1, dtype=torch.float64))
    assert bias.shape == (3, 9, 9)
    assert torch.equal(bias, bias.mT)
    assert bool((bias.diagonal(dim1=1, dim2=2) == 0).all())
    assert torch.equal(bias[:, 0, :].diff(dim=-1), bias[:, 0, 1:2].expand(3, 8))
    assert torch.equal(bias[:, 2:, 2:], bias[:, :7, :7])  # of i - j alone
    assert torch.equal(Alibi(3, 4).bias(5, torch.zeros(1, dtype=torch.float64)), bias[:, :5, :5])


def test_no_position_changes_nothing() -> None:
    x = draw(1, 2, 3, 4)
    position = Position(2, 4)
    assert position.turn(x) is x
    assert Rotary(2, 4).bias(3, x) is None
    assert Alibi(2, 4).turn(x) is x


@pytest.mark.parametrize("kind", POSITIONS.values())
def test_refusals(kind: type[Position]) -> None:
    with pytest.raises(InputError, match="0 heads of 4 numbers"):
        kind(0, 4)
