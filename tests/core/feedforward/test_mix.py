"""Pieces of the mixing feed-forward give what all tokens at once give."""

from itertools import product

import pytest
import torch

import core.feedforward.mix as mix
from core.feedforward import MixFFN
from core.feedforward.pieces import pieces
from core.testing.tolerances import draw


@pytest.mark.parametrize("at_once", [1, 40, 90, 200, 500, 100_000])
@pytest.mark.parametrize("grid", [(1, 1), (7, 5), (2, 9), (9, 1)], ids=str)
def test_pieces_give_what_all_at_once_gives(grid, at_once, monkeypatch):
    block = MixFFN(4, 3).double().eval()
    x = draw(3, grid[0] * grid[1], 4)
    with torch.no_grad():
        block.shift.copy_(draw(3))
        wanted = block(x, grid=grid)
        monkeypatch.setattr(mix, "_MANY", 0)
        monkeypatch.setattr(mix, "_PIECE", at_once * 8)
        torch.testing.assert_close(block(x, grid=grid), wanted, rtol=1e-12, atol=1e-12)
        block.choose(2)
        few = block(x, grid=grid)
        monkeypatch.undo()
        torch.testing.assert_close(block(x, grid=grid), few, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("images", "rows", "at_once"), list(product((1, 3), (1, 2, 5, 8), (10, 35, 60, 1000))))
def test_every_row_is_kept_once_with_its_neighbours(images, rows, at_once):
    kept = torch.zeros(images, rows)
    for piece in pieces(images, (rows, 4), 10, at_once):
        first = piece.read.start + piece.kept.start
        last = first + piece.kept.stop - piece.kept.start
        kept[piece.images, first:last] += 1
        assert piece.read.start <= max(0, first - 1)
        assert piece.read.stop >= min(rows, last + 1)
        assert piece.read.stop <= rows
    assert bool((kept == 1).all())


def test_what_looks_at_the_maps_sees_them_whole(monkeypatch):
    block, seen = MixFFN(4, 3).eval(), []
    block.up.register_forward_hook(lambda module, given, result: seen.append(result.shape[1]))
    monkeypatch.setattr(mix, "_MANY", 0)
    monkeypatch.setattr(mix, "_PIECE", 1)
    with torch.no_grad():
        block(torch.randn(2, 12, 4), grid=(3, 4))
    assert seen == [12]
