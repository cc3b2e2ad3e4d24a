from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.training import Loader, TensorBatches
from core.training.randomness import derive


def counting(count):
    return TensorBatches({"i": torch.arange(count)})


def epochs(loader, count, epoch=0, batch=0):
    return [part["i"].tolist() for part in itertools.islice(loader.stream(epoch, batch), count)]


@pytest.mark.parametrize(
    ("count", "size", "drop", "lengths"), [(7, 3, False, [3, 3, 1]), (7, 3, True, [3, 3]), (6, 3, False, [3, 3])]
)
def test_lengths(count, size, drop, lengths):
    loader = Loader(counting(count), size, shuffle=True, drop_last=drop)
    assert [len(batch["i"]) for batch in loader] == lengths
    assert len(loader) == len(lengths)


def test_every_epoch_is_another_permutation():
    loader = Loader(counting(101), 10, seed=4, shuffle=True)
    orders = [tuple(itertools.chain(*epochs(loader, 11, epoch))) for epoch in range(5)]
    assert all(sorted(order) == list(range(101)) for order in orders)
    assert len({*orders, tuple(range(101))}) == 6
    assert orders[1] == tuple(loader.order(1).tolist())
    assert orders != [
        tuple(Loader(counting(101), 10, seed=5, shuffle=True).order(epoch).tolist()) for epoch in range(5)
    ]


def test_order_is_frozen():
    """Runs of today must be resumable tomorrow: the permutation is part of the format."""
    assert Loader(counting(8), 3, seed=3, shuffle=True).order(2).tolist() == [3, 2, 6, 1, 5, 4, 0, 7]


@pytest.mark.parametrize("position", [(0, 0), (0, 3), (1, 2), (2, 0)])
def test_a_stream_can_begin_anywhere(position):
    loader = Loader(counting(17), 5, shuffle=True)
    epoch, batch = position
    whole = epochs(loader, 12)
    assert epochs(loader, 12 - 4 * epoch - batch, epoch, batch) == whole[4 * epoch + batch :]


def test_workers_change_nothing(toy):
    rows = toy.rows(30, 1)
    parts = []
    for workers in (0, 2):
        stream = Loader(rows, 4, seed=2, shuffle=True, workers=workers).stream(0, 3)
        parts.append([next(stream) for _ in range(9)])
        stream.close()
    for one, other in zip(*parts, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


class Faulty(TensorBatches):
    def __getitem__(self, indices):
        raise InputError("is not a recording", where="a.wav")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_input_error_in_a_worker_stays_one_line(workers):
    with pytest.raises(InputError) as caught:
        next(iter(Loader(Faulty({"i": torch.arange(4)}), 2, shuffle=False, workers=workers)))
    assert str(caught.value) == "a.wav: is not a recording"


def test_iterating_leaves_the_generators_alone(toy):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(Loader(toy.rows(30, 1), 4, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_iterating_twice_is_the_same(toy):
    loader = Loader(toy.rows(30, 1), 4, shuffle=True)
    for one, other in zip(loader, loader, strict=True):
        assert torch.equal(one["x"], other["x"])


def test_nonsense_is_refused():
    for arguments in ({"batch_size": 0}, {"batch_size": 9, "drop_last": True}, {"batch_size": 1, "workers": -1}):
        with pytest.raises(InputError):
            Loader(counting(8), shuffle=True, **arguments)
    with pytest.raises(InputError, match="0 examples"):
        Loader(counting(0), 2, shuffle=True)
    with pytest.raises(InputError, match="one length"):
        TensorBatches({"a": torch.zeros(2), "b": torch.zeros(3)})


def test_derived_seeds_are_well_mixed():
    """Neighbouring inputs differ in about half of the 64 bits, and none collide."""
    seeds = [derive(a, b) for a in range(64) for b in range(64)]
    assert len(set(seeds)) == 4096
    flips = [(x ^ y).bit_count() for x, y in itertools.pairwise(seeds)]
    assert 31 < sum(flips) / len(flips) < 33
    assert derive(1, 2, 3) == 0x6AE515C1C0AC7E37
