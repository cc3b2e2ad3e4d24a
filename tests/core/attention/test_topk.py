import pytest
import torch

from core.attention import SoftmaxAttention, TopKAttention
from core.attention.topk import top_keys
from core.errors import InputError
from core.testing.tolerances import draw, draw_mask


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("k", [9, 20])
def test_as_many_as_there_are_is_softmax_attention(k: int, causal: bool, position: str) -> None:
    dense = SoftmaxAttention(6, 2, causal=causal, position=position).double()
    hard = TopKAttention(6, 2, k=k, causal=causal, position=position).double()
    hard.load_state_dict(dense.state_dict())
    x, mask, pairs = draw(2, 9, 6), draw_mask(2, 9), draw_mask(9, 9)
    for options in ({}, {"mask": mask}, {"mask": mask, "pair_mask": pairs}):
        results = []
        for mixer in (dense, hard):
            leaf = x.clone().requires_grad_()
            y = mixer(leaf, **options)
            results.append([y, *torch.autograd.grad(y.square().sum(), [leaf, *mixer.parameters()])])
        for got, wanted in zip(*reversed(results), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_rows_have_at_most_k_keys(k: int) -> None:
    scores, allowed = draw(2, 9, 9), draw_mask(9, 9)
    chosen = top_keys(scores, allowed, k)
    assert torch.equal(chosen.sum(-1), allowed.sum(-1).clamp(max=k).expand(2, 9))
    assert not bool((chosen & ~allowed).any())
    lowest = scores.masked_fill(~chosen, float("inf")).amin(-1)
    assert not bool(((scores > lowest[..., None]) & allowed & ~chosen).any())


def test_of_equal_scores_the_earlier_is_taken() -> None:
    chosen = top_keys(torch.zeros(100, 100), torch.ones(100, 100, dtype=torch.bool), 3)
    assert torch.equal(chosen, (torch.arange(100) < 3).expand(100, 100))
    two = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
    assert top_keys(two, None, 2).tolist() == [[False, True, False, True, False, False]]
    assert top_keys(two, None, 4).tolist() == [[True, True, False, True, False, True]]


def test_one_key_is_the_value_of_the_best() -> None:
    mixer = TopKAttention(4, 1, k=1, project=False, bias=False).double()
    x = draw(1, 7, 4)
    q, k, v = mixer.qkv(x).chunk(3, -1)
    torch.testing.assert_close(mixer(x)[0], v[0][(q @ k.mT)[0].argmax(-1)], rtol=1e-12, atol=1e-12)


def test_at_least_one_key() -> None:
    with pytest.raises(InputError, match="at least 1 key, not 0"):
        TopKAttention(4, 1, k=0)
