"""The contract of feed-forwards (``core.feedforward.FeedForward``) as checks: see :data:`FEEDFORWARD_CHECKS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.testing.cases import WIDTH, FeedForwardCase
from core.testing.checks import LENGTHS, agree, compiles, exports, gradients
from core.testing.tolerances import TOLERANCES, assert_close, draw


def matches_oracle(case: FeedForwardCase) -> None:
    """Results and gradients equal the oracle's in every dtype."""
    for n, dtype in product(LENGTHS, TOLERANCES):
        block, x = case.make(dtype), draw(2, n, WIDTH, dtype=dtype)
        agree(block, block, partial(case.oracle, block), x, f"{case}, {n} positions")


def treats_positions_alone(case: FeedForwardCase) -> None:
    """A position's result depends on no other position, and any leading axes will do."""
    block, x = case.make(), draw(3, 5, WIDTH)
    y = block(x)
    assert_close(block(x[1, 2]), y[1, 2], torch.float64, f"{case}, one position")
    assert_close(block(x.view(3, 5, 1, WIDTH))[:, :, 0], y, torch.float64, f"{case}, more axes")
    changed = x.clone()
    changed[:, 2] = float("nan")
    others = [0, 1, 3, 4]
    assert torch.equal(block(changed)[:, others], y[:, others]), "a position leaks into another"


def orders_hidden_units(case: FeedForwardCase) -> None:
    """Reordering hidden units keeps the function; silencing the last ones equals a block with the first ones only."""
    block: Any = case.make()
    if not isinstance(block.down, nn.Linear):
        return
    x, hidden, kept = draw(4, WIDTH), block.hidden, block.hidden - 2
    shuffled: Any = case.make()
    _take_units(block, shuffled, torch.tensor([3, 1, 4, 0, 2]))
    assert_close(shuffled(x), block(x), torch.float64, f"{case}, units reordered")
    small: Any = case.make(hidden=kept)
    _take_units(block, small, torch.arange(kept))
    with torch.no_grad():
        block.down.weight[:, kept:hidden] = 0
    assert_close(small(x), block(x), torch.float64, f"{case}, the first {kept} units")


def _take_units(source: Any, target: Any, units: torch.Tensor) -> None:
    """Give ``target`` the chosen hidden units of ``source``."""
    with torch.no_grad():
        for name, value in source.up.named_parameters():
            halves = value.unflatten(0, (-1, source.hidden))
            target.up.get_parameter(name).copy_(halves[:, units].flatten(0, 1))
        target.down.weight.copy_(source.down.weight[:, units])
        if source.down.bias is not None:
            target.down.bias.copy_(source.down.bias)


def drops_in_training_only(case: FeedForwardCase) -> None:
    """Dropout follows the seed in training and does nothing outside it."""
    block, x = case.make(dropout=0.5), draw(2, 9, WIDTH)
    assert torch.equal(block(x), case.make()(x))
    results = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(block.train()(x))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def has_true_gradients(case: FeedForwardCase) -> None:
    """Numeric and analytic gradients agree."""
    block = case.make()
    gradients(block, block, draw(3, WIDTH))


def refuses_nonsense(case: FeedForwardCase) -> None:
    """Sizes below one, and an activation that does not exist."""
    for options in ({"hidden": 0}, {"activation": "rleu"}):
        with pytest.raises(InputError, match=r"hidden|did you mean 'relu'"):
            case.make(**options)


def compiles_and_exports(case: FeedForwardCase) -> None:
    """``torch.compile(backend="aot_eager")`` as one graph, and ``torch.export`` with free sizes."""
    compiles(case.make(), draw(2, 7, WIDTH), {})
    exports(case.make(), (draw(2, 7, WIDTH), {}), (draw(3, 5, WIDTH), {}))


FEEDFORWARD_CHECKS: dict[str, Callable[[FeedForwardCase], None]] = {
    check.__name__: check
    for check in (
        matches_oracle,
        treats_positions_alone,
        orders_hidden_units,
        drops_in_training_only,
        has_true_gradients,
        refuses_nonsense,
        compiles_and_exports,
    )
}
