"""Batches in an order that is a function of (seed, epoch), from any position on.

The data set builds a whole batch at once, ``dataset[indices] -> batch``: for data that fit in memory that is one
indexing of each tensor, with no Python per row; for files it is where single examples are read and collated.
Nothing is remembered between batches: batch 7 of epoch 3 is the same whether the run came there or began there, and
whether the batch is built in this process or in a worker.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.errors import InputError
from core.training.randomness import Use, derive, preserved, reseed

_END = object()


@runtime_checkable
class BatchSource(Protocol):
    """A data set: the number of examples, and a batch for given ones."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Int64[Tensor, " B"], /) -> Any:
        """The batch of these examples, in this order. May draw from the global generators: they are seeded for it."""


class TensorBatches:
    """Tensors of equal length, batched by indexing.

    Args:
        tensors: name -> ``(P, ...)`` tensor, one row an example.

    Raises:
        InputError: no tensors, or unequal lengths.

    >>> TensorBatches({"x": torch.arange(6).reshape(3, 2)})[torch.tensor([2, 0])]
    {'x': tensor([[4, 5],
            [0, 1]])}
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"tensors of one length are needed, not {lengths}")
        self.tensors = dict(tensors)
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, indices: Int64[Tensor, " B"], /) -> dict[str, Tensor]:
        return {name: tensor[indices] for name, tensor in self.tensors.items()}


class Loader:
    """Batches of a data set.

    Iterating gives the batches of epoch 0; :meth:`stream` goes on for ever, from any position.

    Args:
        dataset: ``len(dataset)`` examples; ``dataset[indices]`` takes an int64 tensor and gives a batch.
        batch_size: examples a batch; the last one of an epoch may be smaller.
        seed: decides the orders, with the epoch.
        shuffle: a new order each epoch; otherwise 0, 1, 2, ….
        drop_last: leave the smaller last batch out.
        workers: processes that build batches ahead; 0 builds them here.

    Raises:
        InputError: no batch at all, or a negative or zero size.

    >>> loader = Loader(TensorBatches({"x": torch.arange(5)}), 2, shuffle=False)
    >>> [batch["x"].tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: BatchSource,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool,
        drop_last: bool = False,
        workers: int = 0,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"{batch_size} is not a number of examples", where="batch_size")
        if workers < 0:
            raise InputError(f"{workers} is not a number of processes", where="workers")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.shuffle, self.drop_last, self.workers = shuffle, drop_last, workers
        if len(self) == 0:
            mend = "lower batch_size, or keep the last batch" if len(dataset) else None
            raise InputError(f"{len(dataset)} examples make no batch of {batch_size}", where="dataset", mend=mend)

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Int64[Tensor, " P"]:
        """The indices of all examples in the order of ``epoch``."""
        if not self.shuffle:
            return torch.arange(len(self.dataset))
        generator = torch.Generator().manual_seed(derive(self.seed, Use.ORDER, epoch))
        return torch.randperm(len(self.dataset), generator=generator)

    def __iter__(self) -> Iterator[Any]:
        """The batches of epoch 0; the caller's generators are left alone."""
        batches = self._batches(_positions(len(self), 0, 0, epochs=1))
        while True:
            with preserved():
                batch = next(batches, _END)
            if batch is _END:
                return
            yield batch

    def stream(self, epoch: int = 0, batch: int = 0) -> Generator[Any, None, None]:
        """Batches from position (``epoch``, ``batch``) on, epoch after epoch without end.

        The global generators are seeded for each batch, and left so: the caller keeps its own, as ``fit`` does.
        """
        return self._batches(_positions(len(self), epoch, batch))

    def _batches(self, positions: Iterator[tuple[int, int]]) -> Generator[Any, None, None]:
        source = _Positions(self)
        if self.workers == 0:
            for position in positions:
                yield source[position]
            return
        # A generator of its own: the engine would draw the workers' base seed from the global one.
        batches = DataLoader(
            source,
            batch_size=None,
            sampler=positions,
            num_workers=self.workers,
            generator=torch.Generator(),
            worker_init_fn=_ignore_signals,
        )
        for batch in batches:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _Positions(Dataset[Any]):
    """The loader seen as a map from (epoch, batch) to a batch: what a worker process is given."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, position: tuple[int, int]) -> Any:
        epoch, batch = position
        loader = self._loader
        if epoch != self._epoch:
            self._epoch, self._order = epoch, loader.order(epoch)
        indices = self._order[batch * loader.batch_size : (batch + 1) * loader.batch_size]
        reseed(derive(loader.seed, Use.BATCH, epoch, batch))
        if loader.workers == 0:
            return loader.dataset[indices]
        try:
            return loader.dataset[indices]
        except InputError as error:
            return error  # raised again by the reader: the worker would wrap it in a traceback


def _ignore_signals(worker: int) -> None:
    """A signal to the whole group must not take the workers from a parent that still wants to finish and save."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _positions(length: int, epoch: int, batch: int, epochs: int | None = None) -> Iterator[tuple[int, int]]:
    last = None if epochs is None else epoch + epochs
    while epoch != last:
        for number in range(batch, length):
            yield epoch, number
        epoch, batch = epoch + 1, 0
