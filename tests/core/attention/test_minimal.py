import math
from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from core.attention import MinimalAttention, SoftmaxAttention
from core.attention.minimal import Similarity, Values
from core.errors import InputError
from core.layout import Entry, build
from core.optim import route
from core.rewrite import rewrite
from core.testing.tolerances import draw, draw_mask

D = 6


def test_full_is_softmax_attention_with_one_head() -> None:
    mixer = MinimalAttention(D, qk="full", vo="full").double()
    softmax = SoftmaxAttention(D, 1, bias=False).double()
    state = mixer.state_dict()
    qkv = torch.cat([state[f"{name}.weight"] for name in ("query", "key", "value")])
    softmax.load_state_dict({"qkv.weight": qkv, "out.weight": state["out.weight"]})
    x, mask, pairs = draw(2, 9, D), draw_mask(2, 9), draw_mask(9, 9)
    wanted = softmax(x, mask=mask, pair_mask=pairs)
    torch.testing.assert_close(mixer(x, mask=mask, pair_mask=pairs), wanted, rtol=1e-11, atol=1e-12)


def test_collapsing_loses_nothing() -> None:
    full = MinimalAttention(D, qk="full", vo="full").double()
    small = MinimalAttention(D).double()
    state = full.state_dict()
    small.load_state_dict(
        {
            "query.weight": state["key.weight"].T @ state["query.weight"],
            "out.weight": state["out.weight"] @ state["value.weight"],
        }
    )
    x = draw(2, 9, D)
    torch.testing.assert_close(small(x), full(x), rtol=1e-11, atol=1e-12)


def test_symmetric_scores() -> None:
    mixer, x = MinimalAttention(D, qk="symmetric", vo="none").double(), draw(1, 9, D)
    (turned,) = mixer._parts(x)[0]
    scores = turned @ turned.T
    torch.testing.assert_close(scores, scores.T, rtol=1e-12, atol=1e-12)
    assert bool((scores.diagonal() >= 0).all())
    # Any W_Q = W_K is T T^T of some lower triangle: its Cholesky factor.
    shared = draw(D, D, seed=5)
    lower = torch.linalg.cholesky(shared @ shared.T)
    with torch.no_grad():
        row, column = torch.tril_indices(D, D)
        mixer.triangle.copy_(lower[row, column])
    similar = (x @ shared) @ (x @ shared).mT / math.sqrt(D)
    torch.testing.assert_close(mixer(x), similar.softmax(-1) @ x, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("qk", get_args(Similarity))
def test_without_values_results_are_means_of_tokens(qk: Similarity) -> None:
    mixer, x = MinimalAttention(D, qk=qk, vo="none").double(), draw(2, 9, D)
    y = mixer(x)
    assert bool((y <= x.amax(1, keepdim=True) + 1e-12).all())
    assert bool((y >= x.amin(1, keepdim=True) - 1e-12).all())
    constant = x[:, :1].expand_as(x)
    torch.testing.assert_close(mixer(constant), constant, rtol=1e-12, atol=1e-12)


def similarity(x: Tensor, matrix: Tensor) -> Tensor:
    return (x @ matrix @ x.mT / math.sqrt(D)).softmax(-1)


def test_a_stack_without_residuals_collapses_to_one_value_matrix() -> None:
    x, mixers = 0.5 * draw(1, 9, D), [MinimalAttention(D).double() for _ in range(3)]
    with torch.no_grad():
        for s, mixer in enumerate(mixers):
            for i, linear in enumerate((mixer.query, mixer.out)):
                assert linear is not None
                linear.weight.copy_(draw(D, D, seed=10 * s + i))
    y = x
    for mixer in mixers:
        y = mixer(y)
    # y = A_3 A_2 A_1 x (W_1 W_2 W_3), each similarity seen through the value matrices before it.
    rebased, plain, product_of = x, x, torch.eye(D, dtype=torch.float64)
    for mixer in mixers:
        assert mixer.query is not None
        assert mixer.out is not None
        matrix = mixer.query.weight.T
        rebased = similarity(rebased, product_of @ matrix @ product_of.T) @ rebased
        plain = similarity(plain, matrix) @ plain
        product_of = product_of @ mixer.out.weight.T
    torch.testing.assert_close(y, rebased @ product_of, rtol=1e-9, atol=1e-9)
    assert float((y - plain @ product_of).detach().abs().max()) > 0.01  # without re-basing it is another function


COUNTS = {"full": 2 * D * D, "collapsed": D * D, "symmetric": D * (D + 1) // 2, "none": 0}


@pytest.mark.parametrize(("qk", "vo"), list(product(get_args(Similarity), get_args(Values))))
def test_parameters_and_roles(qk: Similarity, vo: Values) -> None:
    mixer = MinimalAttention(D, qk=qk, vo=vo)
    assert sum(p.numel() for p in mixer.parameters()) == COUNTS[qk] + COUNTS[vo]
    assert {routed.role for routed in route(mixer).entries} == {"matrix"}
    assert len(mixer.state_dict()) == len(list(mixer.parameters()))


def test_a_scale_is_folded_where_linear_maps_alone_read_the_input() -> None:
    x = draw(2, 5, D)
    for qk, vo in (("full", "full"), ("collapsed", "collapsed"), ("symmetric", "full")):
        stack = build((Entry("mixer", "minimal", {"qk": qk, "vo": vo}, scale=True),), D).double()
        with torch.no_grad():
            for seed, parameter in enumerate(stack.parameters()):
                parameter.copy_(draw(*parameter.shape, seed=seed))
        if (qk, vo) == ("full", "full"):
            torch.testing.assert_close(rewrite(stack, "fold").model(x), stack(x), rtol=1e-10, atol=1e-10)
        else:
            with pytest.raises(InputError, match="nothing can be folded"):
                rewrite(stack, "fold")


@pytest.mark.untyped
def test_refusals() -> None:
    with pytest.raises(InputError, match="did you mean 'collapsed'"):
        MinimalAttention(D, qk="colapsed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no vo 'half'"):
        MinimalAttention(D, vo="half")  # type: ignore[arg-type]
