"""The contract of token mixers (``core.attention.Mixer``) as checks: see :data:`MIXER_CHECKS`.

Each takes a case and raises ``AssertionError``. Where a mixer's capabilities rule a request out, the check is that the
request is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import InputError
from core.testing.cases import GRIDS, WIDTH, MixerCase
from core.testing.checks import LENGTHS, agree, compiles, exports, gradients
from core.testing.tolerances import TOLERANCES, assert_close, draw, draw_mask

GARBAGE = (float("nan"), float("inf"), -float("inf"), 1e30)


def matches_oracle(case: MixerCase) -> None:
    """Results and gradients equal the oracle's: odd lengths, dtypes, masks (all combinations of them in float64)."""
    can = case.make().capabilities
    combinations = list(product((False, True)[: 1 + can.masked], (0, 2, 3)[: 1 + 2 * can.pairwise]))
    for n, dtype in product(LENGTHS, _dtypes(case)):
        mixer, x = case.sized(n, dtype), draw(2, n, WIDTH, dtype=dtype)
        chosen = combinations if dtype == torch.float64 else (combinations[0], combinations[-1])
        for masked, axes in chosen:
            mask = draw_mask(2, n) if masked else None
            pairs = draw_mask(*(2, n, n)[-axes:], share=0.3) if axes else None
            agree(
                mixer,
                partial(mixer, mask=mask, pair_mask=pairs, **case.place(n)),
                partial(_oracle(case), mixer, mask=mask, pair_mask=pairs, **case.place(n)),
                x,
                f"{case}, {n} tokens, mask {masked}, pair_mask of {axes} axes",
            )


def ignores_padding(case: MixerCase) -> None:
    """Whatever stands in the padding, and however much there is, real tokens and gradients stay; padding is zero."""
    for n, extra, dtype in product((1, 7, 63), (1, 6), _dtypes(case)):
        mixer, x = case.sized(n + extra, dtype), draw(2, n, WIDTH, dtype=dtype)
        if not mixer.capabilities.masked:
            with pytest.raises(InputError, match="masked"):
                mixer(x, mask=torch.ones(2, n, dtype=torch.bool), **case.place(n))
            continue
        real, place = _surrounded(case, n, extra)
        # A mixer of one length cannot be asked without the padding; there it must not matter what stands in it.
        results = [] if mixer.capabilities.fixed_length else [_alone(mixer, x, case.place(n))]
        for garbage in GARBAGE:
            padded = torch.full((2, len(real), WIDTH), garbage, dtype=dtype)
            padded[:, real] = x
            padded.requires_grad_()
            y = mixer(padded, mask=real.expand(2, -1), **place)
            assert bool((y[:, ~real] == 0).all()), "masked positions are not zero"
            inputs = [padded, *mixer.parameters()]
            grads = torch.autograd.grad(y[:, real].double().square().sum(), inputs, materialize_grads=True)
            assert bool((grads[0][:, ~real] == 0).all()), "a gradient reaches the padding"
            results.append([y[:, real], grads[0][:, real], *grads[1:]])
        for result in results[1:]:
            for got, wanted in zip(result, results[0], strict=True):
                assert_close(got, wanted, dtype, f"{case}, {n} tokens and {extra} of padding")


def keeps_sequences_apart(case: MixerCase) -> None:
    """A batch of many equals each alone, and changing one sequence leaves the others bit-equal."""
    for dtype in _dtypes(case):
        module, x = case.sized(9, dtype), draw(3, 9, WIDTH, dtype=dtype)
        mixer = partial(module, **case.place(9))
        y = mixer(x)
        for b in range(3):
            assert_close(y[b : b + 1], mixer(x[b : b + 1]), dtype, f"{case}, sequence {b} alone")
        changed = x.clone()
        changed[1] = float("nan")
        assert torch.equal(mixer(changed)[[0, 2]], y[[0, 2]]), "a sequence leaks into another"


def takes_packed_rows(case: MixerCase) -> None:
    """Packed rows give what each sequence gives alone, forward and backward; bad offsets are refused."""
    lengths = (3, 0, 1, 7, 63, 0)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    total = sum(lengths)
    for dtype in _dtypes(case):
        mixer, rows = case.sized(max(lengths), dtype), draw(total, WIDTH, dtype=dtype)
        if not mixer.capabilities.packed:
            with pytest.raises(InputError, match="packed"):
                mixer(rows, offsets=offsets, **case.place(63))
            continue
        agree(mixer, partial(mixer, offsets=offsets), partial(_one_by_one, mixer, offsets), rows, f"{case}, packed")
        changed = rows.clone()
        changed[:3] = float("nan")
        assert torch.equal(mixer(changed, offsets=offsets)[3:], mixer(rows, offsets=offsets)[3:]), "packed rows leak"
        for bad in ([0, total - 1], [1, total], [0, 5, 3, total]):
            with pytest.raises(InputError, match="offsets"):
                mixer(rows, offsets=torch.tensor(bad))
        with pytest.raises(InputError, match="mask"):
            mixer(rows, offsets=offsets, mask=torch.ones(6, 63, dtype=torch.bool))


def is_causal_when_asked(case: MixerCase) -> None:
    """Changing token r changes what it changes in the oracle, and leaves the rest, if causal the earlier, bit-equal."""
    mixer, x, place = case.sized(9), draw(2, 9, WIDTH), case.place(9)
    causal, oracle = bool(getattr(mixer, "causal", False)), partial(_oracle(case), **place)
    pairs = torch.ones(9, 9, dtype=torch.bool)
    mask = torch.ones(2, 9, dtype=torch.bool)
    can = mixer.capabilities
    for masks in ({}, {"mask": mask} if can.masked else {}, {"pair_mask": pairs} if can.pairwise else {}):
        y, plain = mixer(x, **masks, **place), oracle(mixer, x, None, None)
        for r in range(9):
            changed = x.clone()
            changed[:, r] += 1
            moved = (mixer(changed, **masks, **place) != y).any(-1)
            reached = (oracle(mixer, changed, None, None) != plain).any(-1)
            assert torch.equal(moved, reached), f"{case}: token {r} reaches {moved.tolist()}"
            assert not (causal and bool(moved[:, :r].any())), f"{case}: token {r} reaches earlier ones"


def survives_queries_without_keys(case: MixerCase) -> None:
    """A query that may read nothing gives the result of zeros, and finite gradients; in training too."""
    dropouts = (0.0, 0.5) if case.takes("dropout") else (0.0,)
    for dtype, dropout in product(TOLERANCES, dropouts):
        mixer = case.sized(7, dtype, **({"dropout": dropout} if dropout else {})).train()
        if not (mixer.capabilities.masked and mixer.capabilities.pairwise):
            return
        x = draw(2, 7, WIDTH, dtype=dtype).requires_grad_()
        pairs = draw_mask(7, 7)
        pairs[3] = False
        mask = torch.ones(2, 7, dtype=torch.bool)
        mask[1] = False
        with torch.random.fork_rng():
            y = mixer(x, mask=mask, pair_mask=pairs)
        wanted = case.oracle(mixer, x.double(), mask, torch.zeros(7, 7, dtype=torch.bool))
        assert_close(y[0, 3], wanted[0, 3], dtype, f"{case}, a query without keys")
        assert bool((y[1] == 0).all()), "an empty sequence is not zero"
        for grad in torch.autograd.grad(y.sum(), [x, *mixer.parameters()]):
            assert bool(grad.isfinite().all()), f"{case}: a gradient is not finite in {dtype}"


def has_true_gradients(case: MixerCase) -> None:
    """Numeric and analytic gradients agree, masks included."""
    mixer, x = case.sized(4), draw(2, 4, WIDTH)
    can = mixer.capabilities
    mask = draw_mask(2, 4, seed=3) if can.masked else None
    pairs = draw_mask(4, 4, share=0.4, seed=4) if can.pairwise else None
    gradients(mixer, partial(mixer, mask=mask, pair_mask=pairs, **case.place(4)), x)


def is_deterministic(case: MixerCase) -> None:
    """Two calls are bit-equal; dropout acts in training only and follows the seed."""
    mixer, x, place = case.sized(9), draw(2, 9, WIDTH), case.place(9)
    assert torch.equal(mixer(x, **place), mixer(x, **place))
    if not case.takes("dropout"):
        return
    dropping = case.sized(9, dropout=0.5)
    assert torch.equal(dropping(x, **place), mixer(x, **place)), "dropout acts outside training"
    results = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(dropping.train()(x, **place))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2]), "dropout does not follow the seed"


def refuses_what_does_not_fit(case: MixerCase) -> None:
    """Wrong shapes and float masks end in one line that names the mixer's class."""
    mixer, x = case.sized(4), draw(2, 4, WIDTH)
    name = type(mixer).__name__
    bad: list[tuple[Tensor, dict[str, Tensor]]] = [(x[0], {}), (x[..., 1:], {})]
    if mixer.capabilities.fixed_length or mixer.capabilities.bounded_length:
        bad.append((draw(2, 5, WIDTH), {}))
    if mixer.capabilities.masked:
        bad += [(x, {"mask": torch.ones(2, 5, dtype=torch.bool)}), (x, {"mask": torch.ones(2, 4)})]
    if mixer.capabilities.pairwise:
        bad += [(x, {"pair_mask": torch.ones(2, 4, dtype=torch.bool)}), (x, {"pair_mask": torch.ones(4, 4)})]
    for argument, masks in bad:
        with pytest.raises(InputError, match=name):
            mixer(argument, **masks, **case.place(4))


def is_told_its_grid(case: MixerCase) -> None:
    """On grids of every shape what needs one equals its oracle, and refuses to go without; others do not see it."""
    x = draw(3, 12, WIDTH)
    module = case.sized(12)
    if not case.on_grid:
        assert torch.equal(module(x, grid=(3, 4)), module(x)), "a grid changes what needs none"
    for grid in ((3, 4), (4, 3), (1, 12), (12, 1), (2, 6)) if case.on_grid else ():
        mask = draw_mask(3, 12) if module.capabilities.masked else None
        for given in (None, mask):
            mixer = partial(module, mask=given, grid=grid)
            wanted = partial(_oracle(case), module, mask=given, pair_mask=None, grid=grid)
            agree(module, mixer, wanted, x, f"{case} on {grid}")
        order = torch.tensor([2, 0, 1])
        assert_close(module(x[order], grid=grid), module(x, grid=grid)[order], x.dtype, f"{case}, another order")
    with pytest.raises(InputError, match="12 tokens do not fill a grid of 3 x 5"):
        module(x, grid=(3, 5))
    if case.on_grid:
        with pytest.raises(InputError, match=rf"{type(module).__name__}: .* needs the tokens to lie on a grid"):
            module(x)
    elif module.capabilities.packed:
        with pytest.raises(InputError, match="packed rows lie on no grid"):
            module(x[0], offsets=torch.tensor([0, 12]), grid=(3, 4))


def compiles_to_one_graph(case: MixerCase) -> None:
    """``torch.compile(backend="aot_eager")``, whole, with and without a mask."""
    n = 9 if case.on_grid else 7
    compiles(case.sized(n), draw(2, n, WIDTH), case.place(n))
    if case.make().capabilities.masked:
        compiles(case.sized(n), draw(2, n, WIDTH), {"mask": draw_mask(2, n), **case.place(n)})


def can_be_exported(case: MixerCase) -> None:
    """``torch.export``, for other batch sizes and, unless its length or grid is fixed, other lengths."""
    can = case.make().capabilities
    n = 9 if can.grid else 7
    sizes = ((2, n), (3, n if can.fixed_length or can.grid else 5))
    calls = [
        (draw(*size, WIDTH), {**({"mask": draw_mask(*size)} if can.masked else {}), **case.place(n)}) for size in sizes
    ]
    exports(case.sized(9 if can.bounded_length else n), *calls)


MIXER_CHECKS: dict[str, Callable[[MixerCase], None]] = {
    check.__name__: check
    for check in (
        matches_oracle,
        ignores_padding,
        keeps_sequences_apart,
        takes_packed_rows,
        is_causal_when_asked,
        survives_queries_without_keys,
        has_true_gradients,
        is_deterministic,
        refuses_what_does_not_fit,
        is_told_its_grid,
        compiles_to_one_graph,
        can_be_exported,
    )
}


def _dtypes(case: MixerCase) -> tuple[torch.dtype, ...]:
    """Those in which results can be compared: a choice among near-equal scores depends on their rounding."""
    return (torch.float64,) if case.make().capabilities.selects else tuple(TOLERANCES)


def _one_by_one(mixer: torch.nn.Module, offsets: Tensor, rows: Tensor) -> Tensor:
    """Each packed sequence given to the mixer by itself, in float64."""
    parameters = {name: p.double() for name, p in mixer.named_parameters()}
    pieces = [rows[a:b][None] for a, b in pairwise(offsets.tolist())]
    return torch.cat([torch.func.functional_call(mixer, parameters, (piece,))[0] for piece in pieces])


def _oracle(case: MixerCase) -> Callable[..., Tensor]:
    """Of a case, with a grid or without."""
    return case.oracle


def _surrounded(case: MixerCase, n: int, extra: int) -> tuple[Tensor, dict[str, Any]]:
    """Where n tokens lie in so much padding (after them, or on a grid below and on the right), and what is told."""
    if not case.on_grid:
        return torch.arange(n + extra) < n, {}
    rows, columns = GRIDS[n]
    real = torch.zeros(rows + 1, columns + extra, dtype=torch.bool)
    real[:rows, :columns] = True
    return real.flatten(), {"grid": tuple(real.shape)}


def _alone(mixer: torch.nn.Module, x: Tensor, place: Mapping[str, Any]) -> list[Tensor]:
    """The result without padding, its gradient by ``x`` and by the parameters."""
    leaf = x.detach().requires_grad_()
    y = mixer(leaf, **place)
    inputs = [leaf, *mixer.parameters()]
    return [y, *torch.autograd.grad(y.double().square().sum(), inputs, materialize_grads=True)]
