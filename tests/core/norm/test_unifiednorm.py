"""Unified normalisation against its rules, scripted step by step in plain numbers."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.clock import advance
from core.errors import InputError
from core.norm import BatchNorm, UnifiedNorm
from core.optim import route
from core.testing.tolerances import draw, draw_mask

WIDTH = 3
EPS, MOMENTUM = 1e-3, 0.9  # of the running value, as the paper has it


class Script:
    """The rules for one sequence of batches of rows ``(n, WIDTH)``, by a ring with a slot for each step."""

    def __init__(
        self, weight: Tensor, bias: Tensor, *, window: int, warmup: int, unscaled: int, filtered: bool
    ) -> None:
        self.weight, self.bias, self.w = weight.tolist(), bias.tolist(), window
        self.warmup, self.unscaled, self.filtered = warmup, unscaled, filtered
        self.running = [1.0] * WIDTH
        self.squares = [[0.0] * WIDTH for _ in range(window)]
        self.products = [[0.0] * WIDTH for _ in range(window)]
        self.ema = [0.0] * WIDTH
        self.skips, self.n = 0, 0

    def step(self, x: list[list[float]], grad: list[list[float]], positions: int) -> dict[str, Any]:
        """Output, gradients; ``positions`` are those that the mean of the gradients runs over."""
        self.n += 1
        slot, channels, rows = self.n % self.w, range(WIDTH), range(len(x))
        q = [sum(row[c] ** 2 for row in x) / len(x) for c in channels]
        roots = [math.sqrt(value) for row in self.squares for value in row]
        mean = sum(roots) / len(roots)
        recorded = sum((root - mean) ** 2 for root in roots) / (len(roots) - 1)
        self.squares[slot] = list(q)
        skip = self.filtered and self.n >= self.warmup and self.n > self.w and self._outlier(recorded)
        if skip:
            self.squares[slot] = list(self.running)
            self.skips += 1
        early = self.n <= self.w or self.n < self.warmup
        v = q if early or skip else [self._geometric(c) for c in channels]
        r = [1.0] * WIDTH
        if self.n > max(self.unscaled, self.warmup) and not skip:
            r = [min(5.0, max(0.2, math.sqrt((v[c] + EPS) / (self.running[c] + EPS)))) for c in channels]
        self.running = [MOMENTUM * self.running[c] + (1 - MOMENTUM) * v[c] for c in channels]
        z = [[row[c] / math.sqrt(v[c] + EPS) for c in channels] for row in x]
        g = [[row[c] * self.weight[c] * r[c] for c in channels] for row in grad]
        p = [sum(g[i][c] * z[i][c] for i in rows) / positions for c in channels]
        self.products[slot] = list(self.ema) if skip else list(p)
        m = p if early or skip else [sum(row[c] for row in self.products) / self.w for c in channels]
        self.ema = [MOMENTUM * self.ema[c] + (1 - MOMENTUM) * m[c] for c in channels]
        e = m if skip else self.ema
        return {
            "y": [[z[i][c] * self.weight[c] + self.bias[c] for c in channels] for i in rows],
            "x": [[(g[i][c] - e[c] * z[i][c]) / math.sqrt(v[c] + EPS) for c in channels] for i in rows],
            "weight": [sum(grad[i][c] * r[c] * z[i][c] for i in rows) for c in channels],
            "bias": [sum(grad[i][c] for i in rows) for c in channels],
        }

    def _geometric(self, c: int) -> float:
        return math.prod(row[c] for row in self.squares) ** (1 / self.w)

    def _outlier(self, recorded: float) -> bool:
        gaps = [sum(row[c] for row in self.squares) / self.w - self._geometric(c) for c in range(WIDTH)]
        return any(gap > self.w * recorded for gap in gaps)


def drawn(**options: Any) -> UnifiedNorm:
    norm = UnifiedNorm(WIDTH, eps=EPS, **options).double()
    with torch.no_grad():
        norm.weight.copy_(draw(WIDTH, seed=1))
        norm.bias.copy_(draw(WIDTH, seed=2))
    return norm


def run(norm: UnifiedNorm, x: Tensor, grad: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    leaf = x.clone().requires_grad_()
    y = norm(leaf, mask)
    found = torch.autograd.grad(y, [leaf, norm.weight, norm.bias], grad)
    return {"y": y.detach(), "x": found[0], "weight": found[1], "bias": found[2]}


def near(actual: Tensor, wanted: Any, note: str) -> None:
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), wanted, rtol=1e-10, atol=1e-11, msg=lambda text: f"{note}: {text}")


@pytest.mark.parametrize(
    ("options", "of"),
    [
        ({"warmup": 5, "window": 3}, 1000),
        ({"warmup": 0, "window": 2}, 40),
        ({"warmup": 4, "window": 4, "filtered": True}, 60),
        ({"warmup": 4000, "window": 3}, 70),  # a tenth of the training
        ({"warmup": 4000}, 10**6),  # never over
    ],
    ids=str,
)
def test_every_step_follows_the_rules(options: dict[str, Any], of: int) -> None:
    norm = drawn(**options)
    warmup = min(options["warmup"], of // 10)
    script = Script(
        norm.weight.detach(),
        norm.bias.detach(),
        window=norm.window,
        warmup=warmup,
        unscaled=min(1000, of // 10),
        filtered=norm.filtered,
    )
    for step in range(24):
        size = 8.0 if step in (13, 20) else 1.0 + 0.1 * step
        x, grad = size * draw(6, WIDTH, seed=step), draw(6, WIDTH, seed=100 + step)
        advance(norm, step, of)
        found, wanted = run(norm, x, grad), script.step(x.tolist(), grad.tolist(), 6)
        for name, value in wanted.items():
            near(found[name], value, f"{name} of step {step}")
        near(norm.running_var, script.running, f"running value of step {step}")
        near(norm.mean_product, script.ema, f"mean product of step {step}")
    assert int(norm.skips) == script.skips
    assert (script.skips > 0) == norm.filtered


def test_an_outlier_is_left_out_and_the_window_keeps_the_running_value() -> None:
    norm = drawn(warmup=4, window=4, filtered=True)
    for step in range(9):
        advance(norm, step, 1000)
        norm(draw(40, WIDTH, seed=step))
    skips = int(norm.skips)
    before, batch = norm.running_var.clone(), 100.0 * draw(40, WIDTH, seed=50)
    advance(norm, 9, 1000)
    y = norm(batch)
    assert int(norm.skips) == skips + 1
    assert torch.equal(norm.squares[-1], before)
    root = (batch.square().mean(0) + EPS).sqrt()
    torch.testing.assert_close(y, batch / root * norm.weight + norm.bias)


def test_the_warm_up_is_division_by_the_batchs_own_root_mean_square() -> None:
    norm, x = drawn(), draw(4, 5, WIDTH)
    advance(norm, 0, 100_000)
    wanted = x / (x.square().mean((0, 1)) + EPS).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), wanted, rtol=1e-12, atol=1e-12)


def test_equal_batches_are_their_own_geometric_mean() -> None:
    norm, x = drawn(warmup=0), draw(4, 5, WIDTH)
    for step in range(12):
        advance(norm, step, 20)
        y = norm(x)
    wanted = x / (x.square().mean((0, 1)) + EPS).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    window = norm.squares
    assert bool((window.mean(0) - window.log().mean(0).exp() >= -1e-12).all())
    drawn_window = draw(1000, 4).exp()
    assert bool((drawn_window.mean(1) - drawn_window.log().mean(1).exp() >= 0).all())


@pytest.mark.parametrize("masked", [True, False])
def test_padding_is_left_out(masked: bool) -> None:
    mask = draw_mask(3, 6, seed=2)
    padded, packed = drawn(warmup=2, window=2, masked=masked), drawn(warmup=2, window=2)
    script = Script(padded.weight.detach(), padded.bias.detach(), window=2, warmup=2, unscaled=4, filtered=False)
    for step in range(8):
        x, grad = draw(3, 6, WIDTH, seed=step), draw(3, 6, WIDTH, seed=50 + step) * mask[..., None]
        for norm in (padded, packed):
            advance(norm, step, 40)
        filler = float("nan") if masked else 0.0
        found = run(padded, x.masked_fill(~mask[..., None], filler), grad, mask)
        alone = run(packed, x[mask], grad[mask])
        wanted = script.step(x[mask].tolist(), grad[mask].tolist(), int(mask.sum()) if masked else 18)
        for name in ("x", "y"):
            near(found[name][mask], wanted[name], f"{name} of step {step}")
            if masked:
                torch.testing.assert_close(found[name][mask], alone[name], rtol=1e-11, atol=1e-12)
                assert not bool(found[name][~mask].any())
        torch.testing.assert_close(padded.running_var, packed.running_var, rtol=1e-12, atol=0)
    y = packed.eval()(x)
    assert torch.equal(packed(x[mask]), y[mask])


def test_a_batch_without_tokens_changes_nothing() -> None:
    norm = drawn()
    advance(norm, 0, 100)
    before = copy.deepcopy(norm.state_dict())
    y = norm(torch.full((2, 3, WIDTH), float("nan"), dtype=torch.float64), torch.zeros(2, 3, dtype=torch.bool))
    assert not bool(y.any())
    assert norm(torch.zeros(2, 0, WIDTH, dtype=torch.float64)).shape == (2, 0, WIDTH)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_evaluation_is_a_batch_norm_and_folds() -> None:
    norm = drawn().eval()
    norm.running_var.copy_(draw(WIDTH, seed=5).exp())
    x, linear = draw(30, WIDTH), nn.Linear(WIDTH, 4, dtype=torch.float64)
    plain = norm.as_batchnorm()
    assert type(plain) is BatchNorm
    torch.testing.assert_close(plain(x), norm(x), rtol=1e-12, atol=1e-12)
    _, folded = norm.fold_into(linear)
    torch.testing.assert_close(folded(x), linear(norm(x)), rtol=1e-10, atol=1e-10)
    with pytest.raises(InputError, match="evaluation mode"):
        norm.train().fold_into(linear)


def test_a_resumed_training_is_the_unbroken_one() -> None:
    def trained(norm: UnifiedNorm, steps: range) -> UnifiedNorm:
        for step in steps:
            advance(norm, step, 50)
            run(norm, draw(5, WIDTH, seed=step), draw(5, WIDTH, seed=70 + step))
        return norm

    options = {"warmup": 3, "window": 3, "filtered": True}
    whole, second = trained(drawn(**options), range(20)), drawn(**options)
    second.load_state_dict(trained(drawn(**options), range(9)).state_dict())
    trained(second, range(9, 20))
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


def test_refusals_and_roles() -> None:
    norm, x = drawn(), draw(4, WIDTH)
    with pytest.raises(InputError, match="unifiednorm: does not know how far its training has come"):
        norm(x)
    for options in ({"momentum": 0.0}, {"window": 1}, {"warmup": -1}):
        with pytest.raises(InputError, match="unifiednorm"):
            UnifiedNorm(3, **options)
    assert [entry.role for entry in route(norm).entries] == ["norm", "norm"]


def test_low_precision_keeps_the_dtype() -> None:
    norm, x = UnifiedNorm(WIDTH), draw(500, WIDTH, dtype=torch.bfloat16)
    advance(norm, 0, 10)
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.float().square().mean(0))
