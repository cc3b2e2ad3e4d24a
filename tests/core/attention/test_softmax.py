import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from core.attention import SoftmaxAttention, softmax, softmax_attention
from core.errors import InputError
from core.testing.oracles import softmax_attention_oracle
from core.testing.tolerances import assert_close, draw, draw_mask


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor made while it is active."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


def test_causal_without_masks_makes_nothing_of_size_n_squared() -> None:
    n, width = 1000, 16
    mixer, x = SoftmaxAttention(width, 4, causal=True), draw(1, n, width, dtype=torch.float32).requires_grad_()
    with LargestTensor() as seen:
        mixer(x).sum().backward()
    assert seen.numel <= 3 * n * width
    with LargestTensor() as seen:
        mixer(x, mask=torch.ones(1, n, dtype=torch.bool))
    assert seen.numel >= n * n  # so the measure measures


@pytest.mark.parametrize("causal", [False, True])
def test_the_pure_function_on_cross_products_of_masks(causal: bool) -> None:
    q, k, v = (draw(2, 3, 5, 4, seed=seed) for seed in range(3))
    keys, pairs = draw_mask(2, 5), draw_mask(2, 5, 5)
    y = softmax_attention(q, k, v, key_mask=keys, pair_mask=pairs, causal=causal)
    for b in range(2):
        for h in range(3):
            wanted = softmax_attention_oracle(
                q[b, h], k[b, h], v[b, h], key_mask=keys[b], pair_mask=pairs[b], causal=causal
            )
            torch.testing.assert_close(y[b, h], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_queries_without_keys_are_zero_with_zero_gradients(dtype: torch.dtype, dropout: float) -> None:
    q, k, v = (draw(2, 2, 5, 4, seed=seed, dtype=dtype).requires_grad_() for seed in range(3))
    keys = torch.tensor([[True] * 5, [False] * 5])
    y = softmax_attention(q, k, v, key_mask=keys, dropout=dropout)
    assert bool((y[1] == 0).all())
    y.sum().backward()
    for tensor in (q, k, v):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())
        assert bool((tensor.grad[1] == 0).all())


@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_layout_is_that_of_torch(bias: bool) -> None:
    other = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, dtype=torch.float64)
    mixer = SoftmaxAttention(12, 3, bias=bias).double()
    renamed = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
    state = {renamed.get(name, name.replace("out_proj", "out")): value for name, value in other.state_dict().items()}
    mixer.load_state_dict(state)
    x, pairs = draw(2, 7, 12), draw_mask(7, 7)
    pairs.fill_diagonal_(True)
    wanted, _ = other(x, x, x, attn_mask=~pairs)  # True means the opposite there
    torch.testing.assert_close(mixer(x, pair_mask=pairs), wanted, rtol=1e-12, atol=1e-12)


def test_dropout_keeps_the_mean() -> None:
    mixer = SoftmaxAttention(4, 1, dropout=0.3)
    x = draw(1, 6, 4, dtype=torch.float32).expand(4000, -1, -1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        mean = mixer.train()(x).mean(0)
    torch.testing.assert_close(mean, mixer.eval()(x[:1])[0], rtol=0, atol=0.02)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_initial_moments(scale: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = SoftmaxAttention(128, 4, init_scale=scale)
    assert isinstance(mixer.out, nn.Linear)
    for linear, factor in ((mixer.qkv, scale), (mixer.out, 1.0)):
        weight, bound = linear.weight.detach(), factor / 128**0.5
        assert 0.99 * bound < float(weight.abs().max()) <= bound
        assert float(weight.square().mean()) == pytest.approx(bound**2 / 3, rel=0.02)
        assert abs(float(weight.mean())) < 5 * bound / (3 * weight.numel()) ** 0.5
        assert not bool(linear.bias.any())


def test_ragged_packed_by_one_sequence_equals_causal_padded() -> None:
    mixer = SoftmaxAttention(8, 2, causal=True).double()
    x = draw(9, 8)
    torch.testing.assert_close(mixer(x, offsets=torch.tensor([0, 9])), mixer(x[None])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 3}, "3 heads do not divide the width 8"),
        ({"heads": 0}, "0 heads"),
        ({"heads": 2, "dropout": 1.0}, r"dropout 1\.0"),
        ({"heads": 2, "dropout": -0.1}, r"dropout -0\.1"),
    ],
)
def test_refusals(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SoftmaxAttention(8, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masks", ["none", "keys", "pairs", "causal"])
@pytest.mark.parametrize("biased", [False, True])
def test_written_out_equals_sdpa(dtype: torch.dtype, masks: str, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [draw(2, 3, 9, 4, seed=seed, dtype=dtype).requires_grad_() for seed in range(3)]
    options = {"bias": draw(3, 9, 9, dtype=dtype) if biased else None, "causal": masks == "causal"}
    options |= {"key_mask": torch.tensor([[True] * 5 + [False] * 4, [False] * 9])} if masks == "keys" else {}
    options |= {"pair_mask": draw_mask(2, 9, 9)} if masks == "pairs" else {}
    results = []
    for limit in (0, 9):
        monkeypatch.setattr(softmax, "_WRITTEN_OUT", limit)
        monkeypatch.setattr(softmax, "_WRITTEN_OUT_16", limit)
        y = softmax_attention(*tensors, **options)  # type: ignore[arg-type]
        results.append([y, *torch.autograd.grad((y * draw(*y.shape, seed=5)).sum(), tensors)])
    for written_out, fused in zip(*results, strict=True):
        assert_close(written_out, fused, dtype, "written out")
    assert not bool(results[0][0][1].any()) or masks != "keys"


def test_sdpa_serves_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    attend = softmax.attend
    monkeypatch.setattr(softmax, "attend", lambda *args: calls.append(args[0].shape[2]) or attend(*args))
    for n in (24, 25, 128, 129):
        for dtype in (torch.float32, torch.bfloat16):
            q = draw(1, 1, n, 4, dtype=dtype)
            softmax_attention(q, q, q)
            softmax_attention(*(draw(1, 1, n, 4, dtype=dtype).requires_grad_() for _ in range(3)))
    # 24: float32 with gradients, bfloat16 twice; 25 and 128: bfloat16.
    assert calls == [24, 24, 24, 25, 25, 128, 128]


def test_the_position_must_be_known() -> None:
    with pytest.raises(InputError, match=r"no position 'rotery'.*did you mean 'rotary'"):
        SoftmaxAttention(8, 2, position="rotery")


@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_positions_tell_the_order_of_tokens(position: str) -> None:
    x = draw(1, 9, 8)
    plain, placed = SoftmaxAttention(8, 2).double(), SoftmaxAttention(8, 2, position=position).double()
    placed.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain(x.flip(1)).flip(1), plain(x), rtol=1e-12, atol=1e-12)
    same = torch.cat([x[:, :1], x[:, 1:].flip(1)], dim=1)
    assert float((placed(same)[:, 0] - placed(x)[:, 0]).detach().abs().max()) > 1e-4
