from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import InputError
from core.norm import BatchNorm
from core.optim import route
from core.testing.tolerances import draw, draw_mask

WIDTH = 5
GARBAGE = (float("nan"), float("inf"), 1e30)


def pair(dtype: torch.dtype = torch.float64, **options: Any) -> tuple[BatchNorm, nn.BatchNorm1d]:
    """Ours and torch's with the same weights and statistics, in training mode."""
    theirs = nn.BatchNorm1d(WIDTH, eps=options.get("eps", 1e-5), momentum=options.get("momentum", 0.1))
    with torch.no_grad():
        for index, value in enumerate((theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var)):
            assert value is not None
            value.copy_(draw(WIDTH, seed=index).exp())
    ours = BatchNorm(WIDTH, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def gradients(y: Tensor, x: Tensor, module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad((y * draw(*y.shape, seed=9)).sum(), [x, *module.parameters()]))


@pytest.mark.parametrize("options", [{}, {"eps": 1e-3, "momentum": 0.015}, {"momentum": 1.0}])
@pytest.mark.parametrize("masked", [False, True])
def test_training_is_torchs_on_the_real_rows(masked: bool, options: dict[str, Any]) -> None:
    ours, theirs = pair(**options)
    for step in range(3):
        x = draw(4, 7, WIDTH, seed=step) * 3 + 2
        mask = draw_mask(4, 7, seed=step) if masked else torch.ones(4, 7, dtype=torch.bool)
        leaf, rows = x.clone().requires_grad_(), x[mask].requires_grad_()
        y, wanted = ours(leaf, mask if masked else None), theirs(rows)
        torch.testing.assert_close(y[mask], wanted, rtol=1e-12, atol=1e-12)
        assert not bool(y[~mask].any())
        by_x, *by_parameters = gradients(y[mask], leaf, ours)
        by_rows, *by_theirs = gradients(wanted, rows, theirs)
        torch.testing.assert_close(by_x[mask], by_rows, rtol=1e-10, atol=1e-12)
        assert not bool(by_x[~mask].any())
        torch.testing.assert_close(by_parameters, by_theirs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x.flatten(0, 1)).view_as(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_reaches_nothing_in_training(garbage: float) -> None:
    results = []
    mask = draw_mask(3, 9, seed=4)
    for filler, extra in ((0.0, 0), (garbage, 0), (garbage, 5)):
        norm, _ = pair()
        x = draw(3, 9, WIDTH).masked_fill(~mask[..., None], filler)
        x = torch.cat([x, torch.full((3, extra, WIDTH), filler, dtype=x.dtype)], 1).requires_grad_()
        full = torch.cat([mask, torch.zeros(3, extra, dtype=torch.bool)], 1)
        y = norm(x, full)
        by_x, *rest = torch.autograd.grad(y.square().sum(), [x, *norm.parameters()])
        assert not bool(by_x[~full].any())
        results.append([y[full], by_x[full], *rest, norm.running_mean, norm.running_var])
    for result in results[1:]:
        for got, wanted in zip(result, results[0], strict=True):
            assert torch.equal(got, wanted)


def test_the_mask_can_be_left_out_of_account() -> None:
    ours, theirs = pair(masked=False)
    x, mask = draw(2, 6, WIDTH), draw_mask(2, 6)
    torch.testing.assert_close(ours(x, mask), theirs(x.flatten(0, 1)).view_as(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_a_batch_without_tokens_changes_nothing() -> None:
    for x, mask in (
        (torch.full((2, 3, WIDTH), float("nan")), torch.zeros(2, 3, dtype=torch.bool)),
        (torch.zeros(2, 0, WIDTH), None),
    ):
        norm, _ = pair(torch.float32)
        before = {name: value.clone() for name, value in norm.state_dict().items()}
        leaf = x.requires_grad_()
        y = norm(leaf, mask)
        assert y.shape == x.shape
        for grad in torch.autograd.grad(y.sum(), [leaf, *norm.parameters()]):
            assert not bool(grad.any())
        assert not bool(y.any())
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_one_token_has_a_mean_and_no_variance() -> None:
    norm, _ = pair()
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    x = draw(1, 3, WIDTH)
    y = norm(x, torch.tensor([[False, True, False]]))
    torch.testing.assert_close(y[0, 1], norm.bias)
    torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * x[0, 1])
    assert torch.equal(norm.running_var, var)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_have_float32_statistics(dtype: torch.dtype) -> None:
    x = (30 + draw(4000, WIDTH)).to(dtype)
    norm = BatchNorm(WIDTH, momentum=1.0)
    y = norm(x)
    assert y.dtype == dtype
    assert norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean.double(), x.double().mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var.double(), x.double().var(0), rtol=1e-4, atol=0)
    halved = BatchNorm(WIDTH, momentum=1.0).to(dtype)
    torch.testing.assert_close(halved(x), y)
    torch.testing.assert_close(halved.running_var, norm.running_var.to(dtype))


def test_gradients_in_training_are_true() -> None:
    norm, _ = pair()
    mask = draw_mask(2, 4, seed=2)

    def run(x: Tensor, *_: Tensor) -> Tensor:
        return norm(x, mask)

    x = draw(2, 4, WIDTH).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *norm.parameters()))


def test_constant_tokens_stay_finite_in_training() -> None:
    norm = BatchNorm(WIDTH)
    x = torch.full((4, WIDTH), 3.0, requires_grad=True)
    y = norm(x)
    # torch's mean of equal numbers is off by a rounding, which 1/sqrt(eps) enlarges
    torch.testing.assert_close(y, torch.zeros_like(y), rtol=0, atol=1e-3)
    assert bool(torch.autograd.grad(y.square().sum(), x)[0].isfinite().all())


def test_folding_takes_the_whole_norm_and_refuses_training() -> None:
    norm, _ = pair()
    linear = nn.Linear(WIDTH, 3, bias=False, dtype=torch.float64)
    with pytest.raises(InputError, match=r"batchnorm: a batch norm folds in evaluation mode only; call eval\(\) first"):
        norm.fold_into(linear)
    bare, folded = norm.eval().fold_into(linear)
    x = draw(6, WIDTH)
    assert torch.equal(bare(x), x)
    torch.testing.assert_close(folded(x), linear(norm(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 1.5, float("nan")])
def test_a_momentum_outside_its_range_is_refused(momentum: float) -> None:
    with pytest.raises(InputError, match="batchnorm: momentum"):
        BatchNorm(4, momentum=momentum)


def test_the_optimiser_takes_its_parameters_for_a_norms() -> None:
    assert [entry.role for entry in route(BatchNorm(4)).entries] == ["norm", "norm"]
