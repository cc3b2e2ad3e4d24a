"""Packed rows: what is computed, and on how many rows."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from core.attention import MinimalAttention, SoftmaxAttention
from core.layout import Entry, build
from core.sequence import Ragged
from core.testing.tolerances import draw


def drawn_lengths(batch: int, longest: int, seed: int) -> Tensor:
    """About 60 % of the longest on average, the longest and an empty sequence among them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (longest * (0.2 + 0.8 * torch.rand(batch, generator=generator))).long()
    lengths[0], lengths[-1] = longest, 0
    return lengths


@pytest.mark.parametrize(("batch", "longest", "seed"), [(16, 500, 0), (64, 50, 1), (3, 1000, 2), (40, 200, 3)])
def test_groups_hold_every_sequence_once_and_little_padding(batch: int, longest: int, seed: int) -> None:
    ragged = Ragged.from_lengths(drawn_lengths(batch, longest, seed))
    plan = ragged.by_length
    lengths = [length for group in plan.groups for length in group.lengths.tolist()]
    assert lengths == sorted((n for n in ragged.lengths.tolist() if n), reverse=True)
    for group in plan.groups:
        assert group.max_length == int(group.lengths.max())
        real = int((group.lengths**2).sum())
        assert len(group.lengths) * group.max_length**2 <= max(1.15 * real, real + 4096)
    rows = torch.arange(ragged.total)
    assert torch.equal(plan.order[plan.back], rows)
    starts = torch.cat([group.lengths for group in plan.groups]).cumsum(0)
    inner = torch.ones(ragged.total - 1, dtype=torch.bool)
    inner[starts[:-1] - 1] = False
    assert bool((plan.order.diff()[inner] == 1).all())


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0], [5], [5, 5, 5], [7, 0, 90, 1, 88, 300]])
def test_groups_of_any_lengths(lengths: list[int]) -> None:
    ragged = Ragged.from_lengths(torch.tensor(lengths, dtype=torch.int64))
    mixer, rows = SoftmaxAttention(6, 2).double(), draw(ragged.total, 6).requires_grad_()
    y = mixer(rows, offsets=ragged)
    grads = torch.autograd.grad(y.square().sum(), [rows, *mixer.parameters()])
    alone = [mixer(piece[None])[0] for piece in rows.split(lengths)] if lengths else [rows]
    wanted = torch.cat(alone)
    torch.testing.assert_close(y, wanted, rtol=1e-11, atol=1e-12)
    if ragged.total:
        true = torch.autograd.grad(wanted.square().sum(), [rows, *mixer.parameters()])
        for one, other in zip(grads, true, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"position": "rotary"}, {"position": "alibi"}])
def test_packed_is_padded(options: dict[str, str]) -> None:
    ragged = Ragged.from_lengths(drawn_lengths(7, 150, 4))
    assert len(ragged.by_length.groups) > 1
    mixer = SoftmaxAttention(12, 3, **options).double()  # type: ignore[arg-type]
    rows = draw(ragged.total, 12)
    padded = mixer(ragged.unpack(rows), mask=ragged.mask)
    torch.testing.assert_close(mixer(rows, offsets=ragged), ragged.pack(padded), rtol=1e-10, atol=1e-11)
    assert not bool(padded[~ragged.mask].any())


def test_the_order_of_sequences_does_not_matter() -> None:
    lengths = drawn_lengths(7, 150, 4).tolist()
    mixer, rows = MinimalAttention(6).double(), draw(sum(lengths), 6)
    pieces = rows.split(lengths)
    turned = list(reversed(range(7)))
    y = mixer(torch.cat([pieces[b] for b in turned]), offsets=Ragged.from_lengths(torch.tensor(lengths).flip(0)))
    back = y.split([lengths[b] for b in turned])
    wanted = mixer(rows, offsets=Ragged.from_lengths(torch.tensor(lengths))).split(lengths)
    for b in range(7):
        torch.testing.assert_close(back[turned.index(b)], wanted[b], rtol=1e-12, atol=1e-12)


def test_dropout_acts_in_training() -> None:
    ragged, mixer = Ragged.from_lengths(torch.tensor([9, 3])), SoftmaxAttention(6, 2, dropout=0.5).double()
    rows = draw(12, 6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loud = mixer.train()(rows, offsets=ragged)
    assert not torch.equal(loud, mixer.eval()(rows, offsets=ragged))


def test_the_work_is_that_of_the_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged = Ragged.from_lengths(drawn_lengths(16, 500, 0))
    fill = ragged.total / (16 * 500)
    assert 0.5 < fill < 0.65
    seen: list[tuple[int, int]] = []
    attend = SoftmaxAttention.attend

    def counted(self: SoftmaxAttention, q: Tensor, *rest: Tensor | None) -> Tensor:
        seen.append((q.shape[0], q.shape[2]))
        return attend(self, q, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SoftmaxAttention, "attend", counted)
    SoftmaxAttention(8, 2)(draw(ragged.total, 8, dtype=torch.float32), offsets=ragged)
    work = sum(count * n**2 for count, n in seen)
    assert work <= 1.2 * int((ragged.lengths**2).sum())
    assert work <= 0.55 * 16 * 500**2
    assert len(seen) < 10


@pytest.mark.parametrize(
    ("name", "norm"), list(product(("softmax", "topk", "nala", "minimal"), ("layernorm", "rmsnorm")))
)
def test_a_stack_runs_on_the_rows_alone(name: str, norm: str) -> None:
    ragged = Ragged.from_lengths(torch.tensor([30, 4, 0, 90]))
    options = {} if name == "minimal" else {"heads": 2}
    mlp = Entry("feedforward", "mlp", {"hidden": 12}, norm=norm)
    stack = build((Entry("mixer", name, options, norm=norm), mlp) * 2, width=8)
    rows: list[int] = []
    for module in stack.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[:-1].numel()))
    x = draw(ragged.total, 8, dtype=torch.float32)
    y = stack(x, offsets=ragged.offsets)
    assert set(rows) == {ragged.total}
    padded = stack(ragged.unpack(x), mask=ragged.mask)
    torch.testing.assert_close(y, ragged.pack(padded), rtol=1e-4, atol=1e-5)
