import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.sequence import Ragged

lengths_of = st.lists(st.integers(0, 6), max_size=6)


@given(lengths_of, st.integers(0, 3))
def test_the_three_descriptions_agree(lengths: list[int], extra: int) -> None:
    longest = max(lengths, default=0)
    ragged = Ragged.from_lengths(torch.tensor(lengths, dtype=torch.int32), longest + extra)
    mask = [[t < length for t in range(longest + extra)] for length in lengths]
    assert ragged.lengths.dtype == torch.int64
    assert ragged.mask.tolist() == mask
    assert ragged.offsets.tolist() == [sum(lengths[:b]) for b in range(len(lengths) + 1)]
    assert ragged.total == sum(lengths)
    assert Ragged.from_mask(ragged.mask).lengths.tolist() == lengths
    assert Ragged.from_mask(ragged.mask).max_length == longest + extra
    again = Ragged.from_offsets(ragged.offsets, total=sum(lengths))
    assert again.lengths.tolist() == lengths
    assert again.max_length == longest


@given(lengths_of)
def test_pack_and_unpack_are_inverse(lengths: list[int]) -> None:
    ragged = Ragged.from_lengths(torch.tensor(lengths, dtype=torch.int64), 7)
    rows = 1 + torch.arange(sum(lengths) * 2, dtype=torch.float64).view(-1, 2)
    padded = ragged.unpack(rows)
    assert torch.equal(padded, padded * ragged.mask[:, :, None])
    assert torch.equal(ragged.pack(padded), rows)
    for b, length in enumerate(lengths):  # row order: by sequence, then by time
        start = sum(lengths[:b])
        assert torch.equal(padded[b, :length], rows[start : start + length])


def test_both_are_differentiable_and_the_padding_is_not_read() -> None:
    ragged = Ragged.from_lengths(torch.tensor([2, 0, 3]))
    x = torch.randn(3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[~ragged.mask] = float("nan")
    x.requires_grad_()
    rows = ragged.pack(x)
    (rows * torch.arange(10).view(5, 2)).sum().backward()
    assert torch.equal(x.grad[ragged.mask], torch.arange(10, dtype=torch.float64).view(5, 2))
    assert not bool(x.grad[~ragged.mask].any())
    assert torch.autograd.gradcheck(ragged.unpack, rows.detach().requires_grad_())


def test_integers_and_vectors_of_any_rank_can_be_packed() -> None:
    ragged = Ragged.from_lengths(torch.tensor([1, 2]))
    codes = torch.tensor([[5, 0], [6, 7]])
    assert ragged.pack(codes).tolist() == [5, 6, 7]
    assert ragged.unpack(torch.tensor([5, 6, 7])).tolist() == [[5, 0], [6, 7]]
    assert ragged.unpack(torch.ones(3, 2, 2)).shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Ragged.from_lengths(torch.tensor([1, -2])), r"negative \(-2\)"),
        (lambda: Ragged.from_lengths(torch.tensor([1, 5]), 4), r"\(5\) is beyond the padded length 4"),
        (lambda: Ragged.from_mask(torch.tensor([[True, False, True]])), "real element after padding"),
        (lambda: Ragged.from_offsets(torch.tensor([1, 4]), 4), "from 1 to 4, the packed rows from 0 to 4"),
        (lambda: Ragged.from_offsets(torch.tensor([0, 3]), 4), "from 0 to 3"),
        (lambda: Ragged.from_offsets(torch.tensor([0, 3, 2, 4]), 4), "decrease"),
        (lambda: Ragged.from_offsets(torch.zeros(0, dtype=torch.int64), 0), r"B\+1 whole numbers"),
        (lambda: Ragged.from_lengths(torch.tensor([2])).pack(torch.zeros(1, 3)), r"\(1, 2, \.\.\.\) is needed"),
        (lambda: Ragged.from_lengths(torch.tensor([2])).unpack(torch.zeros(3)), "2 rows are needed"),
    ],
)
def test_refusals(build, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build()


@pytest.mark.untyped
@pytest.mark.parametrize(
    "build",
    [
        lambda: Ragged.from_lengths(torch.tensor([1.0])),
        lambda: Ragged.from_mask(torch.ones(2, 2)),
        lambda: Ragged.from_offsets(torch.tensor([0.0, 2.0]), 2),
    ],
)
def test_wrong_dtypes_are_refused(build) -> None:
    with pytest.raises(InputError, match="not"):
        build()
