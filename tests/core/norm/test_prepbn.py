import copy
import itertools

import pytest
import torch
from torch import nn

from core.clock import advance
from core.errors import InputError
from core.norm import BatchNorm, LayerNorm, PRepBN, RMSNorm
from core.optim import route
from core.testing.tolerances import draw, draw_mask

WIDTH = 5
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def drawn(**options: object) -> PRepBN:
    """In training, with parameters and statistics drawn at random."""
    norm = PRepBN(WIDTH, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for index, (name, value) in enumerate([*norm.named_parameters(), *norm.named_buffers()]):
            value.copy_(
                draw(*value.shape, seed=index).exp() if name.endswith("var") else draw(*value.shape, seed=index)
            )
    return norm


def test_evaluation_folds_into_the_linear_map_that_follows() -> None:
    norm = drawn().eval()
    linear = nn.Linear(WIDTH, 3, bias=False, dtype=torch.float64)
    _, folded = norm.fold_into(linear)
    x = draw(50, WIDTH)
    torch.testing.assert_close(folded(x), linear(norm(x)), rtol=1e-10, atol=1e-10)
    assert folded.bias is not None, "the map gains a bias"
    with pytest.raises(InputError, match=r"prepbn: it folds in evaluation mode only; call eval\(\) first"):
        norm.train().fold_into(linear)


def test_it_is_a_batch_norm_outside_training() -> None:
    norm, x = drawn(eps=0.01).eval(), draw(50, WIDTH)
    plain = norm.as_batchnorm()
    assert type(plain) is BatchNorm
    assert not plain.training
    torch.testing.assert_close(plain(x), norm(x), **EXACT)
    skip = norm.batch(x) + norm.alpha * x
    torch.testing.assert_close(norm(x), skip, **EXACT)


@pytest.mark.parametrize(("first", "kind"), [("layernorm", LayerNorm), ("rmsnorm", RMSNorm)])
def test_it_starts_as_the_first_norm_and_ends_as_the_batch_norm(first: str, kind: type) -> None:
    norm, x = drawn(first=first), draw(4, 7, WIDTH)
    alone = copy.deepcopy(norm.batch)
    assert isinstance(norm.first, kind)
    advance(norm, 0, 10)
    torch.testing.assert_close(norm(x), norm.first(x), **EXACT)
    alone(x)
    assert torch.equal(norm.batch.running_mean, alone.running_mean), "statistics move where the share is 1"
    advance(norm, 5, 10)
    torch.testing.assert_close(norm(x), alone(x) + norm.alpha * x, **EXACT)
    advance(norm, 2, 10)
    wanted = 0.6 * norm.first(x) + 0.4 * (alone(x) + norm.alpha * x)
    torch.testing.assert_close(norm(x), wanted, **EXACT)


def shares(of: int, **options: float) -> list[float]:
    norm, found = PRepBN(2, **options), []  # type: ignore[arg-type]
    for step in range(of + 3):
        norm.at_step(step, of)
        assert norm.share is not None
        found.append(norm.share)
    return found


@pytest.mark.parametrize("of", [1, 2, 7, 100])
@pytest.mark.parametrize("options", [{}, {"fade": 1.0}, {"fade": 0.3, "warm": 0.2}, {"fade": 0.01}], ids=str)
def test_the_share_falls_from_one_to_exactly_zero(of: int, options: dict[str, float]) -> None:
    found = shares(of, **options)
    assert found[0] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert found[of] == 0.0
    assert found[max(1, round(options.get("fade", 0.5) * of), round(options.get("warm", 0.0) * of) + 1)] == 0.0


def test_a_warm_up_leaves_the_statistics_alone() -> None:
    norm, x = drawn(warm=0.2), draw(4, 7, WIDTH)
    before = copy.deepcopy(norm.state_dict())
    for step in range(20):
        advance(norm, step, 100)
        assert norm.share == 1.0
        norm(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    advance(norm, 20, 100)
    norm(x)
    assert not torch.equal(norm.batch.running_mean, before["batch.running_mean"])


@pytest.mark.parametrize("step", [0, 3, 9])
def test_padding_reaches_nothing_and_packed_rows_are_the_same(step: int) -> None:
    mask = draw_mask(3, 6, seed=2)
    x = draw(3, 6, WIDTH)
    results = []
    for given, its_mask in ((x.masked_fill(~mask[..., None], float("nan")), mask), (x[mask], None)):
        norm = drawn()
        advance(norm, step, 10)
        leaf = given.clone().requires_grad_()
        y = norm(leaf, its_mask)
        by_x, *rest = torch.autograd.grad(
            y.square().sum(), [leaf, *norm.parameters()], materialize_grads=True, allow_unused=True
        )
        if its_mask is not None:
            assert not bool(y[~mask].any())
            y, by_x = y[mask], by_x[mask]
        results.append([y, by_x, *rest, norm.batch.running_mean, norm.batch.running_var])
    for padded, packed in zip(*results, strict=True):
        torch.testing.assert_close(padded, packed, rtol=1e-10, atol=1e-11)


def test_gradients_in_training_are_true() -> None:
    norm, mask = drawn(), draw_mask(2, 5, seed=2)
    advance(norm, 2, 10)
    x = draw(2, 5, WIDTH).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: norm(x, mask), (x, *norm.parameters()))


def test_a_resumed_training_is_the_unbroken_one() -> None:
    def trained(norm: PRepBN, steps: range) -> PRepBN:
        for step in steps:
            advance(norm, step, 10)
            norm(draw(3, 4, WIDTH, seed=step)).square().sum().backward()
            with torch.no_grad():
                for parameter in norm.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad
                    parameter.grad = None
        return norm

    whole, second = trained(drawn(), range(8)), drawn()
    second.load_state_dict(trained(drawn(), range(4)).state_dict())
    trained(second, range(4, 8))
    assert second.share == whole.share
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


@pytest.mark.untyped
def test_roles_and_refusals() -> None:
    roles = {entry.name: entry.role for entry in route(PRepBN(3)).entries}
    assert roles.pop("alpha") == "gain"
    assert set(roles.values()) == {"norm"}
    for options in ({"fade": 0.0}, {"fade": 1.1}, {"warm": 0.5}, {"warm": -0.1}, {"momentum": 0.0}):
        with pytest.raises(InputError, match=r"fade|momentum"):
            PRepBN(3, **options)
    with pytest.raises(InputError, match="prepbn: no first norm 'batchnorm'; known: layernorm, rmsnorm"):
        drawn(first="batchnorm")
