import pytest
import torch
from torch import Tensor

from core.attention import StickBreakingAttention
from core.attention.stickbreaking import stick_breaking
from core.errors import InputError
from core.testing.tolerances import draw, draw_mask

N = 17


def past(n: int = N, current: bool = True) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril(0 if current else -1)


@pytest.mark.parametrize("current", [True, False])
def test_what_is_left_is_the_product_of_what_was_not_taken(current: bool) -> None:
    logits, allowed = 3 * draw(2, N, N), past(current=current) & draw_mask(N, N, share=0.8)
    weights = stick_breaking(logits, allowed)
    sums = weights.sum(-1)
    assert bool((weights >= 0).all())
    assert bool((sums <= 1 + 1e-12).all())
    kept = torch.where(allowed, torch.sigmoid(-logits), 1.0).prod(-1)
    torch.testing.assert_close(1 - sums, kept, rtol=0, atol=1e-12)


def test_logarithms_give_the_recursion() -> None:
    logits, allowed = 3 * draw(N, N), past()
    wanted = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        stick = 1.0
        for j in range(i, -1, -1):
            share = 1 / (1 + float(torch.exp(-logits[i, j])))
            wanted[i, j] = share * stick
            stick *= 1 - share
    torch.testing.assert_close(stick_breaking(logits, allowed), wanted, rtol=1e-12, atol=1e-14)


def test_extreme_scores_in_float32() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [200.0, -200.0, 0.0]])
    weights = stick_breaking(logits.requires_grad_(), past(3))
    torch.testing.assert_close(weights[2], torch.tensor([0.5, 0.0, 0.5]))
    (grad,) = torch.autograd.grad(weights.square().sum(), logits)
    assert bool(grad.isfinite().all())


def test_a_key_that_takes_nothing_changes_nothing() -> None:
    logits = draw(N, N)
    more = torch.cat([logits[:, :5], torch.full((N, 1), -1e30, dtype=torch.float64), logits[:, 5:]], dim=1)
    allowed = torch.cat([past()[:, :5], torch.ones(N, 1, dtype=torch.bool), past()[:, 5:]], dim=1)
    weights = stick_breaking(more, allowed)
    assert not bool(weights[:, 5].any())
    torch.testing.assert_close(weights[:, [*range(5), *range(6, N + 1)]], stick_breaking(logits, past()))


def test_the_remainder_is_the_querys_own() -> None:
    options = {"attend_current": False, "project": False}
    plain, whole = (StickBreakingAttention(6, 2, **options, remainder=r).double() for r in (False, True))
    whole.load_state_dict(plain.state_dict())
    x = draw(2, N, 6)
    value = plain.qkv(x)[..., 12:]
    assert not bool(plain(x)[:, 0].any())
    torch.testing.assert_close(whole(x)[:, 0], value[:, 0], rtol=1e-12, atol=1e-12)
    # With the remainder weights add up to one: constant values come out as they are.
    with torch.no_grad():
        for mixer in (plain, whole):
            mixer.qkv.weight[12:] = 0
            mixer.qkv.bias[12:] = draw(6)
    torch.testing.assert_close(whole(x), draw(6).expand(2, N, 6), rtol=1e-12, atol=1e-12)
    assert float((plain(x) - draw(6)).detach().abs().max()) > 0.1


def test_later_tokens_are_not_read_and_nearer_ones_come_first() -> None:
    mixer, x = StickBreakingAttention(6, 2).double(), draw(1, N, 6)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(mixer(x)[:, 8].sum(), x)
    assert bool(grad[:, :9].any(-1).all())
    assert not bool(grad[:, 9:].any())
    weights = stick_breaking(torch.zeros(N, N, dtype=torch.float64), past())
    torch.testing.assert_close(weights[-1], 0.5 ** torch.arange(N, 0, -1, dtype=torch.float64))


def test_reading_later_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="backwards: it cannot read later ones"):
        StickBreakingAttention(6, 2, causal=False)
