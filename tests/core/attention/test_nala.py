from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.attention import NaLaAttention, linear_attention
from core.attention.nala import FeatureMap, nala_features
from core.errors import InputError
from core.testing.tolerances import draw, draw_mask

MAPS: tuple[FeatureMap, ...] = ("signs", "trigonometric", "relu")


def features(q: Tensor, k: Tensor, kind: FeatureMap) -> tuple[Tensor, Tensor]:
    one, other = nala_features(q, k, kind)
    return torch.cat(one, -1), torch.cat(other, -1)


def weights(q: Tensor, k: Tensor, kind: FeatureMap = "signs") -> Tensor:
    f, g = features(q, k, kind)
    return f @ g.mT


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 200])
def test_sums_first_is_weights_first(n: int, causal: bool) -> None:
    q, k, v = (draw(2, 3, n, 5, seed=s).abs().requires_grad_() for s in range(3))
    mask = draw_mask(2, n)
    for keys in (None, mask):
        y = linear_attention(q, k, v, key_mask=keys, causal=causal)
        allowed = torch.ones(n, n, dtype=torch.bool)
        allowed = allowed.tril() if causal else allowed
        allowed = allowed.expand(2, 1, n, n) if keys is None else allowed & keys[:, None, None]
        s = (q @ k.mT) * allowed
        wanted = s @ v / (s.sum(-1, keepdim=True) + 1e-6 * allowed.double().sum(-1, keepdim=True).clamp(min=1))
        torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-10)
        factor = draw(*y.shape, seed=9)
        got, true = (torch.autograd.grad((z * factor).sum(), (q, k, v), retain_graph=True) for z in (y, wanted))
        for one, other in zip(got, true, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


@pytest.mark.parametrize("causal", [False, True])
def test_nothing_of_size_n_squared(causal: bool) -> None:
    n, width = 4096, 16
    mixer = NaLaAttention(width, 4, causal=causal)
    x = draw(1, n, width, dtype=torch.float32).requires_grad_()
    with LargestTensor() as seen:
        mixer(x).sum().backward()
    assert seen.numel <= 4 * n * 64  # weights within chunks of 64, for each head


@pytest.mark.parametrize("kind", MAPS)
def test_weights_are_never_negative(kind: FeatureMap) -> None:
    s = weights(5 * draw(50, 4), 5 * draw(60, 4, seed=1), kind)
    assert float(s.min()) >= 0
    assert float(s.max()) > 0


@pytest.mark.parametrize("position", ["none", "rotary"])
def test_rows_add_up_to_one_without_rotary_positions_alone(position: str) -> None:
    mixer, x = NaLaAttention(8, 2, position=position, project=False).double(), draw(2, 9, 8)
    with torch.no_grad():
        mixer.qkv.weight.mul_(100)
        mixer.qkv.weight[16:] = 0
        mixer.qkv.bias[16:] = 1
    one = torch.ones(2, 9, 8, dtype=torch.float64)
    error = float((mixer(x) - one).detach().abs().max())
    assert error < 1e-2 if position == "none" else error > 0.1


def test_the_length_of_a_query_matters_here_and_not_in_plain_linear_attention() -> None:
    q, k, v = draw(1, 1, 9, 4).abs(), draw(1, 1, 9, 4, seed=1), draw(1, 1, 9, 4, seed=2)
    changes = {}
    for kind in MAPS:
        one, two = (linear_attention(*features(c * q, k, kind), v, eps=0.0) for c in (0.3, 1.2))
        changes[kind] = float((one - two).abs().max())
    assert changes["relu"] < 1e-12
    assert changes["signs"] > 1e-2
    assert changes["trigonometric"] > 1e-2


def test_opposite_vectors_do_not_meet() -> None:
    x = draw(50, 4)
    assert not bool(weights(x, -x).diagonal().any())


def test_sharpness_grows_with_the_length_up_to_a_limit() -> None:
    q, k = draw(200, 4), draw(300, 4, seed=1)
    q = q / q.norm(dim=-1, keepdim=True)
    entropies = []
    for length in (0.01, 0.3, 1.0, 3.0, 30.0, 300.0):
        s = weights(length * q, k)
        p = s / s.sum(-1, keepdim=True)
        entropies.append(float(-(p * p.clamp(min=1e-300).log()).sum(-1).mean()))
    assert entropies[:4] == sorted(entropies[:4], reverse=True)
    assert entropies[0] - entropies[3] > 0.1
    assert entropies[3] - entropies[4] < 0.02
    assert entropies[4] == pytest.approx(entropies[5], abs=1e-9)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zeros_give_no_nan(kind: FeatureMap, dtype: torch.dtype) -> None:
    q, k, v = (torch.zeros(1, 1, 3, 4, dtype=dtype).requires_grad_() for _ in range(3))
    y = linear_attention(*features(q, k, kind), v)
    y.sum().backward()
    for tensor in (y, q.grad, k.grad, v.grad):
        assert tensor is not None
        assert bool(tensor.isfinite().all())


def test_sixteen_bits_are_computed_in_thirty_two() -> None:
    mixer, x = NaLaAttention(8, 2), draw(2, 300, 8, dtype=torch.float32)
    seen = []
    run: Callable[..., Tensor] = torch.Tensor.cumsum
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixer(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "cumsum", lambda self, *a, **o: seen.append(self.dtype) or run(self, *a, **o))
            NaLaAttention(8, 2, causal=True)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), mixer(x).detach(), rtol=5e-2, atol=1e-3)


def test_start() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = NaLaAttention(128, 4)
    assert isinstance(mixer.out, torch.nn.Linear)
    for linear in (mixer.qkv, mixer.out):
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
        assert not bool(linear.bias.any())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"features": "sings"}, "did you mean 'signs'", marks=pytest.mark.untyped),
        ({"position": "alibi"}, "no position 'alibi'"),
    ],
)
def test_refusals(options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NaLaAttention(8, 2, **options)  # type: ignore[arg-type]
