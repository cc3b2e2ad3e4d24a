import copy
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from core.attention import RelativeAttention, blocked, relative_attention, relative_positions, relative_shift
from core.attention import rows as by_rows
from core.attention.sinusoids import half_positions, project_halves
from core.errors import InputError
from core.optim.routing import route
from core.testing.cases import MixerCase
from core.testing.mixers import MIXER_CHECKS
from core.testing.oracles import relative_mixer
from core.testing.tolerances import draw, draw_mask


@contextmanager
def block_of(scores: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked, "_BLOCK", scores)
        yield


@pytest.mark.parametrize("width", [1, 4, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_positions_by_the_double_loop(n: int, width: int) -> None:
    table = relative_positions(n, width, dtype=torch.float64)
    assert table.shape == (max(2 * n - 1, 0), width)
    for row, offset in enumerate(range(n - 1, -n, -1)):
        for c in range(width):
            angle = offset / 10000 ** (2 * (c // 2) / width)
            wanted = math.cos(angle) if c % 2 else math.sin(angle)
            assert float(table[row, c]) == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("width", [1, 4, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_half_of_the_offsets_gives_the_projection_of_all(n: int, width: int) -> None:
    weight = draw(3, width)
    got = project_halves(half_positions(n, width, dtype=torch.float64), weight)
    wanted = relative_positions(n, width, dtype=torch.float64) @ weight.T
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_shift_by_the_double_loop(n: int) -> None:
    raw = draw(2, 3, n, max(2 * n - 1, 0)).requires_grad_()
    shifted = relative_shift(raw)
    assert shifted.shape == (2, 3, n, n)
    for i in range(n):
        for j in range(n):
            assert torch.equal(shifted[..., i, j], raw[..., i, n - 1 - i + j])
    weights = draw(2, 3, n, n, seed=1)
    (shifted * weights).sum().backward()
    assert raw.grad is not None
    assert torch.equal(relative_shift(raw.grad), weights)
    assert float(raw.grad.abs().sum()) == pytest.approx(float(weights.abs().sum()))


def tensors(heads: int, d: int, n: int) -> dict[str, Tensor]:
    names = ("q", "k", "v")
    drawn = {name: draw(3, heads, n, d, seed=seed) for seed, name in enumerate(names)}
    drawn |= {"positions": draw(heads, 2 * n - 1, d, seed=4)}
    drawn |= {"content_bias": draw(heads, d, seed=5), "position_bias": draw(heads, d, seed=6)}
    return {name: tensor.requires_grad_() for name, tensor in drawn.items()}


@pytest.mark.parametrize("d", [1, 4, 9])
@pytest.mark.parametrize("masks", ["none", "keys", "pairs", "both", "empty"])
@pytest.mark.parametrize("block", [1, 60, 300, 1 << 20])
def test_any_block_gives_the_double_loop(d: int, masks: str, block: int) -> None:
    heads, n = 2, 11
    given = tensors(heads, d, n)
    q, k, v, table, u, w = given.values()
    keys = draw_mask(3, n) if masks in ("keys", "both") else None
    pairs = draw_mask(3, n, n) if masks in ("pairs", "both") else None
    if masks == "empty":
        keys = torch.arange(n).expand(3, n) < torch.tensor([n, 4, 0])[:, None]
    with block_of(block):
        options = {"key_mask": keys, "pair_mask": pairs}
        y = relative_attention(q, k, v, table, content_bias=u, position_bias=w, **options)
        factor = draw(*y.shape, seed=9)
        grads = torch.autograd.grad((y * factor).sum(), list(given.values()))
    scores = torch.stack(
        [
            ((q[:, :, i] + u) * k[:, :, j] + (q[:, :, i] + w) * table[:, n - 1 - i + j]).sum(-1)
            for i in range(n)
            for j in range(n)
        ],
        dim=-1,
    ).unflatten(-1, (n, n)) / math.sqrt(d)
    allowed = torch.ones(3, 1, n, n, dtype=torch.bool)
    allowed = allowed if keys is None else allowed & keys[:, None, None]
    allowed = allowed if pairs is None else allowed & pairs[:, None]
    weights = (scores - scores.detach().amax(-1, keepdim=True)).exp() * allowed
    wanted = (weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)) @ v
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-11)
    for got, true in zip(grads, torch.autograd.grad((wanted * factor).sum(), list(given.values())), strict=True):
        torch.testing.assert_close(got, true, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masks", ["none", "keys", "pairs", "causal", "empty"])
@pytest.mark.parametrize(("scores", "rows"), [(1, 1), (1, 4), (1, 11), (300, 4), (1 << 20, 80)])
@pytest.mark.parametrize("batch", [1, 3])
def test_without_gradients_any_rows_give_the_same(masks: str, scores: int, rows: int, batch: int) -> None:
    heads, n, d = 2, 11, 3
    q, k, v, table, u, w = tensors(heads, d, n).values()
    q, k, v = (tensor[:batch] for tensor in (q, k, v))
    options: dict[str, Tensor | bool] = {"causal": masks == "causal"}
    if masks == "keys":
        options["key_mask"] = draw_mask(batch, n)
    if masks == "pairs":
        options["pair_mask"] = draw_mask(batch, n, n)
    if masks == "empty":
        options["key_mask"] = (torch.arange(n) < torch.tensor([n, 4, 0])[:, None])[-batch:]
    wanted = relative_attention(q, k, v, table, content_bias=u, position_bias=w, **options)  # type: ignore[arg-type]
    given = [tensor.detach().clone() for tensor in (q, k, v, table, u, w)]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(by_rows, "_SCORES", scores)
        patch.setattr(by_rows, "_ROWS", rows)
        assert by_rows.faster_without_gradients(q, k)
        y = relative_attention(q, k, v, table, content_bias=u, position_bias=w, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(y, wanted.detach(), rtol=1e-10, atol=1e-11)
    assert all(torch.equal(*pair) for pair in zip(given, (q, k, v, table, u, w), strict=True))


def test_where_gradients_are_wanted_or_sixteen_bits_are_slow_rows_are_not_taken() -> None:
    leaf, other = draw(1, 2, 40, 3).requires_grad_(), draw(1, 2, 40, 3)
    assert not by_rows.faster_without_gradients(other, leaf)
    assert by_rows.faster_without_gradients(other, other)
    with torch.no_grad():
        assert by_rows.faster_without_gradients(leaf, other)
        assert by_rows.faster_without_gradients(other.bfloat16())
        assert not by_rows.faster_without_gradients(draw(2, 2, 201, 3).bfloat16())


CHECKS = ("ignores_padding", "keeps_sequences_apart", "takes_packed_rows", "is_causal_when_asked")


@pytest.mark.parametrize("name", [*CHECKS, "survives_queries_without_keys", "has_true_gradients"])
def test_the_contract_in_small_blocks(name: str) -> None:
    check: Callable[[MixerCase], None] = MIXER_CHECKS[name]
    with block_of(1000 if name in CHECKS[:3] else 5):
        check(MixerCase("relative", RelativeAttention, relative_mixer, {"heads": 2}))


def test_blocks_hold_nothing_of_size_n_squared() -> None:
    n = 700
    mixer, x = RelativeAttention(4, 2), draw(2, n, 4, dtype=torch.float32)
    largest = 0

    def hook(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hook, lambda tensor: tensor):
        mixer(x).sum().backward()
        assert largest < 2 * n * 4 * 10
        with block_of(1 << 30):
            mixer(x).sum().backward()
    assert largest >= 2 * 2 * n * n  # so the measure measures


def fresh(mixer: RelativeAttention, x: Tensor) -> Tensor:
    """What a copy that has kept nothing gives."""
    other = RelativeAttention(mixer.width, mixer.heads).to(x.dtype).eval()
    other.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        result: Tensor = other(x)
    return result


def evaluated() -> tuple[RelativeAttention, Tensor]:
    mixer, x = RelativeAttention(6, 2).double().eval(), draw(1, 9, 6)
    with torch.no_grad():
        mixer(x)
    return mixer, x


def step(mixer: RelativeAttention) -> None:
    with torch.no_grad():
        mixer.position.weight.mul_(2)


def load(mixer: RelativeAttention) -> None:
    mixer.load_state_dict({name: 2 * value for name, value in mixer.state_dict().items()})


def swap(mixer: RelativeAttention) -> None:
    mixer.position.weight = torch.nn.Parameter(mixer.position.weight.detach() * 2)


def through_half(mixer: RelativeAttention) -> None:
    mixer.to(torch.bfloat16).to(torch.float64)


def train(mixer: RelativeAttention) -> None:
    mixer.train()
    mixer.position.weight.data *= 2
    mixer.eval()


@pytest.mark.parametrize("change", [step, load, swap, through_half, train])
def test_kept_positions_follow_the_weight(change: Callable[[RelativeAttention], None]) -> None:
    mixer, x = evaluated()
    before = fresh(mixer, x)
    change(mixer)
    with torch.no_grad():
        y = mixer(x)
    torch.testing.assert_close(y, fresh(mixer, x), rtol=1e-12, atol=1e-12)
    assert float((y - before).abs().max()) > 1e-5


def test_kept_positions_are_made_once_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, project, made = RelativeAttention(6, 2).double().eval(), RelativeAttention._project, []

    def counted(self: RelativeAttention, n: int, dtype: torch.dtype) -> Tensor:
        if self is mixer:
            made.append(n)
        return project(self, n, dtype)

    monkeypatch.setattr(RelativeAttention, "_project", counted)
    for n, wanted in (
        (9, [9]),
        (1, [9]),
        (128, [9, 128]),
        (20, [9, 128]),
        (300, [9, 128, 300]),
        (128, [9, 128, 300]),
        (0, [9, 128, 300]),
    ):
        x = draw(1, n, 6, seed=n)
        with torch.no_grad():
            torch.testing.assert_close(mixer(x), fresh(mixer, x), rtol=1e-12, atol=1e-12)
        assert made == wanted
    before = mixer._kept
    mixer(draw(1, 9, 6))
    assert mixer._kept is before  # with gradients nothing is kept, nor is what was kept used


def test_layers_share_one_table_of_sinusoids_which_dies_with_them() -> None:
    first, second = (RelativeAttention(10, 2) for _ in range(2))
    x = draw(1, 300, 10, dtype=torch.float32)
    first(x)
    second(x[:, :9])
    assert first._sinusoids is second._sinusoids is copy.deepcopy(second)._sinusoids
    assert first._sinusoids is not None
    gone = weakref.ref(first._sinusoids)
    del first
    second.eval()
    assert gone() is None
    with torch.no_grad():
        second(x[:, :7])
    assert second._sinusoids is not None
    assert len(second._sinusoids.rows) == 7  # in inference, half of the offsets and no more than needed


@pytest.mark.parametrize("n", [30, 450])
def test_sixteen_bits_without_gradients_are_near_what_float64_gives(n: int) -> None:
    mixer, x = RelativeAttention(12, 2).to(torch.bfloat16).eval(), draw(2, n, 12).bfloat16()
    with torch.no_grad():
        y = mixer(x)
        wanted = copy.deepcopy(mixer).double()(x.double())
    assert y.dtype == torch.bfloat16
    assert float((y.double() - wanted).norm() / wanted.norm()) < 0.01


def test_what_is_kept_is_no_state_and_survives_a_copy() -> None:
    mixer, x = evaluated()
    assert set(mixer.state_dict()) == {
        "u", "v", "qkv.weight", "qkv.bias", "position.weight", "out.weight", "out.bias",
    }  # fmt: skip
    other = copy.deepcopy(mixer)
    step(other)
    with torch.no_grad():
        torch.testing.assert_close(other(x), fresh(other, x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mixer(x), fresh(mixer, x), rtol=1e-12, atol=1e-12)


def test_training_goes_on_after_inference_mode() -> None:
    mixer, x = RelativeAttention(6, 2).eval(), draw(2, 9, 6, dtype=torch.float32)
    with torch.inference_mode():
        wanted = mixer(x).clone()
    y = mixer.train()(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), wanted)


@pytest.mark.parametrize("n", [9, 300])
def test_autocast(n: int) -> None:
    mixer, x = RelativeAttention(6, 2), draw(2, n, 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixer(x)
        with torch.no_grad():
            kept = mixer.eval()(x)
    assert y.dtype == kept.dtype == torch.bfloat16
    y.float().sum().backward()
    torch.testing.assert_close(y.float(), mixer(x), rtol=5e-2, atol=5e-2)
    with torch.no_grad():
        assert mixer(x).dtype == torch.float32


def test_roles_and_start() -> None:
    mixer = RelativeAttention(49 * 2, 2)
    roles = {routed.name: routed.role for routed in route(mixer).entries}
    assert roles["u"] == roles["v"] == "bias"
    assert roles["position.weight"] == "matrix"
    assert not bool(mixer.u.any()) and not bool(mixer.v.any())  # noqa: PT018
    assert float(mixer.position.weight.detach().abs().max()) <= 98**-0.5


@pytest.mark.parametrize(("options", "said"), [({"heads": 3}, "3 heads"), ({"heads": 2, "dropout": 1.0}, "dropout")])
def test_refusals(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RelativeAttention(8, **options)  # type: ignore[arg-type]
