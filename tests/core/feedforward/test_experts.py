import copy
from typing import Any

import pytest
import torch
from torch import nn

from core.auxiliary import collected
from core.errors import InputError
from core.feedforward import GLU, MLP, Experts, balanced_clusters, split_into_experts
from core.layout import Entry, build
from core.optim import route
from core.rewrite import rewrite
from core.testing.tolerances import draw, draw_mask

WIDTH = 6
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def randomised(module: nn.Module) -> Any:
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=index))
    return module.double().eval()


def drawn(**options: Any) -> Experts:
    block: Experts = randomised(Experts(WIDTH, 5, **{"experts": 4, **options}))
    return block


DENSE = [MLP(WIDTH, 12), GLU(WIDTH, 12), MLP(WIDTH, 12, bias=False, activation="relu"), GLU(WIDTH, 12, bias=False)]


@pytest.mark.parametrize("dense", DENSE, ids=str)
def test_all_experts_are_the_dense_block_and_merge_into_it(dense: MLP | GLU) -> None:
    dense, x = randomised(copy.deepcopy(dense)), draw(20, WIDTH)
    split = split_into_experts(dense, experts=4, active=4)
    torch.testing.assert_close(split(x), dense(x), **EXACT)
    merged = split.merge()
    assert type(merged) is type(dense)
    assert sum(p.numel() for p in split.parameters()) == sum(p.numel() for p in dense.parameters())
    torch.testing.assert_close(merged(x), dense(x), **EXACT)
    fewer = split_into_experts(dense, experts=4, active=2)
    assert not torch.allclose(fewer(x), dense(x))
    torch.testing.assert_close(fewer.merge()(x), dense(x), **EXACT)


@pytest.mark.parametrize("dense", DENSE, ids=str)
def test_fewer_experts_are_a_mask_over_hidden_units(dense: MLP | GLU) -> None:
    """Block masking of the hidden activations, by the mean key of each expert, with the bias once."""
    dense, x = randomised(copy.deepcopy(dense)), draw(20, WIDTH)
    split = split_into_experts(dense, experts=4, active=2, seed=3)
    merged = split.merge()
    keys, shift = merged.keys()
    score = (x @ keys.T if shift is None else x @ keys.T + shift).view(20, 4, 3).mean(-1)
    torch.testing.assert_close(split.scores(x), score, **EXACT)
    kept = torch.zeros(20, 4, dtype=torch.float64).scatter(1, score.topk(2).indices, 1.0)
    up = merged.up(x)
    hidden = merged.activate(up) if isinstance(merged, MLP) else up[:, :12] * merged.activate(up[:, 12:])
    wanted = merged.down(hidden * kept.repeat_interleave(3, dim=1))
    torch.testing.assert_close(split(x), wanted, **EXACT)
    torch.testing.assert_close(split._dense(x, split.gates(x)) + (wanted - wanted), split._gathered(x, split.gates(x)))


def test_experts_take_every_unit_once_and_the_seed_decides() -> None:
    dense = randomised(MLP(WIDTH, 12))
    split, again, other = (split_into_experts(dense, 4, 2, seed=seed) for seed in (1, 1, 2))
    rows = torch.cat([expert.up.weight for expert in split.experts])
    assert [expert.hidden for expert in split.experts] == [3] * 4
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, dense.up.weight.tolist()))
    state = split.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert set(other.state_dict()) == set(state)
    before = torch.get_rng_state()
    split_into_experts(dense, 4, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_reordered_block_has_the_same_experts() -> None:
    dense, x = randomised(MLP(WIDTH, 12)), draw(20, WIDTH)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dense.permute(order)(x), dense(x), **EXACT)


def test_clusters_are_of_equal_size_and_find_what_is_there() -> None:
    centres = 10 * draw(5, 3)
    truth = torch.arange(40) % 5
    labels = balanced_clusters(centres[truth] + 0.1 * draw(40, 3, seed=1), 5)
    assert labels.bincount().tolist() == [8] * 5
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 5
    assert balanced_clusters(torch.zeros(6, 2), 3).bincount().tolist() == [2, 2, 2]
    with pytest.raises(InputError, match="5 groups do not divide 12"):
        balanced_clusters(torch.zeros(12, 2), 5)


@pytest.mark.parametrize("router", ["softmax", "average"])
def test_a_position_is_kept_by_its_own_scores(router: str) -> None:
    block, x = drawn(router=router), draw(30, WIDTH)
    gates = block.gates(x)
    assert ((gates != 0).sum(-1) == 2).all()
    for i in (0, 7, 29):
        torch.testing.assert_close(block.gates(x[i : i + 1]), gates[i : i + 1], **EXACT)
    torch.testing.assert_close(block.train().gates(x) if router == "average" else gates, gates, **EXACT)


def test_gates_are_the_softmax_over_all_experts_or_over_the_kept_ones() -> None:
    plain, scaled, x = drawn(), drawn(renormalise=True), draw(30, WIDTH)
    chances = plain.scores(x).softmax(-1)
    kept = torch.zeros_like(chances).scatter(1, chances.topk(2).indices, 1.0)
    torch.testing.assert_close(plain.gates(x), chances * kept, **EXACT)
    torch.testing.assert_close(scaled.gates(x), chances * kept / (chances * kept).sum(-1, keepdim=True), **EXACT)


def test_one_expert_is_a_plain_block() -> None:
    block, x = drawn(experts=1, active=1), draw(9, WIDTH)
    torch.testing.assert_close(block(x), block.experts[0](x), **EXACT)


def test_nothing_is_dropped_unless_there_is_a_capacity() -> None:
    block, x = drawn(noise=0.0), draw(1, WIDTH).expand(12, WIDTH)
    torch.testing.assert_close(block.train()(x), block.eval()(x), **EXACT)
    tight = drawn(noise=0.0, capacity=0.5)
    torch.testing.assert_close(tight.eval()(x), block(x), **EXACT)
    gates, free = tight.train().gates(x), block.gates(x)
    assert torch.equal(gates[:3], free[:3]), "ceil(0.5 * 12 * 2 / 4) positions fit"
    assert not bool(gates[3:].any())
    mixed = draw(40, WIDTH, seed=3)
    gates, free = tight.gates(mixed), block.gates(mixed)
    assert ((gates != 0).sum(0) <= 10).all()
    lost = (free != 0) & (gates == 0)
    assert bool((lost.sum(-1) == 1).any()), "an expert is lost where the other one of a position is kept"
    assert torch.equal(gates[~lost], free[~lost]), "the other gates stay as they are"


def test_the_loss_of_balance() -> None:
    block, x = drawn(noise=0.0, balance=0.3), draw(50, WIDTH)
    with collected() as extra:
        block.train()(x)
        block(x)
    chances = block.scores(x).softmax(-1)
    shares = torch.zeros_like(chances).scatter(1, chances.topk(2).indices, 0.5).mean(0)
    wanted = 0.3 * 16 * (shares * chances.mean(0)).mean()
    torch.testing.assert_close(extra.total(), 2 * wanted, **EXACT)
    assert torch.autograd.grad(extra.total(), block.router.weight)[0].any()
    with torch.no_grad():
        block.router.weight.zero_()
    with collected() as even:
        block(x)
    torch.testing.assert_close(even.total(), torch.tensor(0.3, dtype=torch.float64), **EXACT)
    with collected() as none:
        block.eval()(x)
        drawn(balance=0.0).train()(x)
        drawn(router="average").train()(x)
    assert none.losses == []


def test_masked_positions_count_nowhere() -> None:
    block, mask = drawn(noise=0.0, capacity=0.6).train(), draw_mask(3, 8, seed=1)
    x = draw(3, 8, WIDTH)
    dirty = x.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    with collected() as padded:
        y = block(dirty, mask)
    with collected() as packed:
        wanted = block(x[mask])
    torch.testing.assert_close(y[mask], wanted, **EXACT)
    assert not bool(y[~mask].any())
    torch.testing.assert_close(padded.total(), packed.total(), **EXACT)
    grads = torch.autograd.grad(y.square().sum() + padded.total(), [dirty, *block.parameters()])
    assert all(bool(grad.isfinite().all()) for grad in grads)
    stack = build((Entry("feedforward", "experts", {"hidden": 5}),), WIDTH).double().train()
    with collected() as extra:
        stack(x.masked_fill(~mask[..., None], 7.0), mask=mask)
    with collected() as alone, torch.random.fork_rng():
        stack.sublayers[0].block.noise = 0.0
        stack(x[mask][None])
    assert len(extra.losses) == len(alone.losses) == 1


def test_noise_is_of_training_and_follows_the_seed() -> None:
    block, x = drawn(noise=4.0).train(), draw(40, WIDTH)
    found = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(block.gates(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    spread = (block.scores(x) - block.scores(x)).abs().max()
    assert float(spread.detach()) == 0.0


@pytest.mark.parametrize("router", ["softmax", "average"])
def test_an_input_scale_folds_into_router_and_experts(router: str) -> None:
    entry = Entry("feedforward", "experts", {"hidden": 5, "router": router}, scale=True)
    stack, x = randomised(build((entry,), WIDTH)).eval(), draw(12, WIDTH)
    torch.testing.assert_close(rewrite(stack, "fold").model(x), stack(x), rtol=1e-10, atol=1e-11)


@pytest.mark.untyped
def test_roles_and_refusals() -> None:
    roles = {entry.name: entry.role for entry in route(Experts(WIDTH, 5, router="average")).entries}
    assert roles["bias"] == "bias"
    assert {role for name, role in roles.items() if name.endswith("weight")} == {"matrix"}
    for options, words in (
        ({"active": 5}, "5 of 4 experts cannot be active"),
        ({"active": 0}, "0 of 4"),
        ({"expert": "memory"}, "experts are mlp or glu"),
        ({"router": "top"}, "routers softmax or average"),
        ({"capacity": 0.0}, "too small"),
        ({"noise": -1.0}, "too small"),
    ):
        with pytest.raises(InputError, match=words):
            Experts(WIDTH, 5, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="weighted by a softmax are no plain feed-forward"):
        drawn().merge()
