"""The contract of feed-forwards (``core.feedforward.FeedForward``) as checks: see :data:`FEEDFORWARD_CHECKS`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from core.clock import advance
from core.errors import InputError
from core.feedforward import HiddenUnits
from core.testing.cases import WIDTH, FeedForwardCase
from core.testing.checks import LENGTHS, agree, compiles, exports, gradients
from core.testing.tolerances import TOLERANCES, assert_close, draw, draw_mask


def matches_oracle(case: FeedForwardCase) -> None:
    """Results and gradients equal the oracle's in every dtype."""
    for n, dtype in product(LENGTHS, TOLERANCES):
        block, x, place = case.make(dtype), draw(2, n, WIDTH, dtype=dtype), case.place(n)
        agree(block, partial(block, **place), partial(case.oracle, block, **place), x, f"{case}, {n} positions")


def treats_positions_alone(case: FeedForwardCase) -> None:
    """A position's result depends on no other position, and any leading axes will do; unless a block reads a grid."""
    if case.on_grid:
        return
    block, x = case.make(), draw(3, 5, WIDTH)
    y = block(x)
    assert_close(block(x[1, 2]), y[1, 2], torch.float64, f"{case}, one position")
    assert_close(block(x.view(3, 5, 1, WIDTH))[:, :, 0], y, torch.float64, f"{case}, more axes")
    changed = x.clone()
    changed[:, 2] = float("nan")
    others = [0, 1, 3, 4]
    assert_close(block(changed)[:, others], y[:, others], torch.float64, f"{case}: a position leaks into another")


def follows_the_grid(case: FeedForwardCase) -> None:
    """A block that reads a grid equals its oracle on those of every shape, whatever stands in the padding."""
    if not case.on_grid:
        return
    module = case.make()
    block: Callable[..., Tensor] = module
    oracle: Callable[..., Tensor] = case.oracle
    x, mask = draw(2, 12, WIDTH), draw_mask(2, 12)
    for grid in ((3, 4), (4, 3), (1, 12), (12, 1)):
        agree(module, partial(block, grid=grid), partial(oracle, block, grid=grid), x, f"{case} on {grid}")
        if module.reads_mask:
            y, wanted = block(x, grid=grid, mask=mask), oracle(block, x, grid=grid, mask=mask)
            assert_close(y[mask], wanted[mask], x.dtype, f"{case} on {grid}, masked")
            changed = block(x.masked_fill(~mask[:, :, None], 9.0), grid=grid, mask=mask)
            assert torch.equal(changed[mask], y[mask]), "padding is read"
    for place in ({}, {"grid": (3, 5)}):
        with pytest.raises(InputError, match=f"{type(module).__name__}: .* grid"):
            block(x, **place)


def orders_hidden_units(case: FeedForwardCase) -> None:
    """Hidden units, where a block has them, add up: any choice of them is a block of its kind.

    Reordered they compute the same; the first ones, or all but some, what is left when the others are silenced; divided
    and added up, or joined again, the whole.
    """
    block, x, place = case.make(), draw(1, 4, WIDTH), case.place(4)
    if not isinstance(block, HiddenUnits) or not isinstance(block.down, nn.Linear):
        return
    wanted, before = block(x, **place), copy.deepcopy(block.state_dict())
    assert_close(block.permute(torch.tensor([3, 1, 4, 0, 2]))(x, **place), wanted, torch.float64, f"{case}, reordered")
    parts = block.partition(torch.tensor([1, 0, 1, 2, 1]))
    assert [part.hidden for part in parts] == [1, 3, 1]
    assert_close(torch.stack([part(x, **place) for part in parts]).sum(0), wanted, torch.float64, f"{case}, divided")
    assert_close(HiddenUnits.join(parts)(x, **place), wanted, torch.float64, f"{case}, joined again")
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items()), "the original changed"
    for left, kept in ((block.slice(3), (0, 1, 2)), (block.prune([0, 3]), (1, 2, 4))):
        silenced = case.make()
        assert isinstance(silenced, HiddenUnits)
        with torch.no_grad():
            silenced.projection().weight[:, [unit for unit in range(5) if unit not in kept]] = 0
        assert_close(left(x, **place), silenced(x, **place), torch.float64, f"{case}, the units {kept}")
        fresh = case.block(WIDTH, **{**case.options, "hidden": left.hidden}).double().eval()
        fresh.load_state_dict(left.state_dict())
        assert torch.equal(fresh(x, **place), left(x, **place)), "a plain block of that size is another function"
    with pytest.raises(InputError):
        block.slice(6)
    for units in (range(5), [7]):
        with pytest.raises(InputError):
            block.prune(units)


def drops_in_training_only(case: FeedForwardCase) -> None:
    """Dropout follows the seed in training and does nothing outside it."""
    if not case.takes("dropout"):
        return
    block, x, place = case.make(dropout=0.5), draw(2, 9, WIDTH), case.place(9)
    assert torch.equal(block(x, **place), case.make()(x, **place))
    results = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            advance(block.train(), 0, 1)
            results.append(block(x, **place))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def has_true_gradients(case: FeedForwardCase) -> None:
    """Numeric and analytic gradients agree."""
    block = case.make()
    gradients(block, partial(block, **case.place(4)), draw(1, 4, WIDTH))


def refuses_nonsense(case: FeedForwardCase) -> None:
    """Sizes below one, and an activation that does not exist."""
    with pytest.raises(InputError, match="width"):
        case.block(0, **case.options)
    for options in ({"hidden": 0}, {"activation": "rleu"}):
        if all(case.takes(option) for option in options):
            with pytest.raises(InputError, match=r"hidden|did you mean 'relu'"):
                case.make(**options)


def compiles_and_exports(case: FeedForwardCase) -> None:
    """``torch.compile(backend="aot_eager")`` as one graph, and ``torch.export`` with free sizes."""
    compiles(case.make(), draw(2, 7, WIDTH), case.place(7))
    place = case.place(9)
    exports(case.make(), (draw(2, 9, WIDTH), place), (draw(3, 9 if case.on_grid else 5, WIDTH), place))


FEEDFORWARD_CHECKS: dict[str, Callable[[FeedForwardCase], None]] = {
    check.__name__: check
    for check in (
        matches_oracle,
        treats_positions_alone,
        follows_the_grid,
        orders_hidden_units,
        drops_in_training_only,
        has_true_gradients,
        refuses_nonsense,
        compiles_and_exports,
    )
}
