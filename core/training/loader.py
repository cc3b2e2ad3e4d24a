"""Batches in an order that is a function of (seed, epoch), from any position on; :mod:`.batching` cuts them.

The data set builds a whole batch at once, ``dataset[indices] -> batch``: for data that fit in memory that is one
indexing of each tensor, with no Python per row; for files it is where single examples are read and collated.
Nothing is remembered between batches: batch 7 of epoch 3 is the same whether the run came there or began there, and
whether the batch is built in this process or in a worker.
"""

from __future__ import annotations

import multiprocessing
import signal
import warnings
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.errors import InputError
from core.training.batching import Batching, FixedSize
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
        batching: how an epoch is cut: :class:`FixedSize` (a number is short for it), :class:`ByLength`, or your own.
        seed: decides the orders, with the epoch.
        shuffle: a new order each epoch; otherwise the fixed one of the batching.
        workers: processes that build batches ahead; 0 builds them here.

    Raises:
        InputError: no batch at all, or a negative number of processes.

    >>> loader = Loader(TensorBatches({"x": torch.arange(5)}), 2, shuffle=False)
    >>> [batch["x"].tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: BatchSource,
        batching: int | Batching,
        *,
        seed: int = 0,
        shuffle: bool,
        workers: int = 0,
    ) -> None:
        if workers < 0:
            raise InputError(f"{workers} is not a number of processes", where="workers")
        self.dataset, self.seed, self.shuffle, self.workers = dataset, seed, shuffle, workers
        self.batching = FixedSize(batching) if isinstance(batching, int) else batching
        self._length = self.batching.count(len(dataset))

    def __len__(self) -> int:
        """Batches an epoch, any epoch."""
        return self._length

    def plan(self, epoch: int) -> Sequence[Int64[Tensor, " _"]]:
        """The indices of each batch of ``epoch``, in its order."""
        generator = torch.Generator().manual_seed(derive(self.seed, Use.ORDER, epoch)) if self.shuffle else None
        return self.batching.cut(len(self.dataset), generator)

    def __iter__(self) -> Iterator[Any]:
        """The batches of epoch 0; the caller's generators are left alone."""
        batches = self._batches(_positions(len(self), 0, 0, epochs=1))
        while True:
            with preserved():
                batch = next(batches, _END)
            if batch is _END:
                return
            yield batch

    def sizes(self, epoch: int) -> list[int]:
        """Examples of each batch of ``epoch``, in its order."""
        return [len(indices) for indices in self.plan(epoch)]

    def stream(self, epoch: int = 0, batch: int = 0, *, rank: int = 0, of: int = 1) -> Generator[Any, None, None]:
        """Batches from position (``epoch``, ``batch``) on, epoch after epoch without end.

        The global generators are seeded for each batch, and left so: the caller keeps its own, as ``fit`` does.

        Args:
            epoch: the first one, from 0.
            batch: the first one of that epoch, from 0.
            rank: of several processes that share each batch, the number of this one: it has the examples ``rank``,
                ``rank + of``, ... of the batch. Where that is none it gets the first one, which is another's.
            of: how many processes those are.
        """
        return self._batches(_positions(len(self), epoch, batch), rank, of)

    def _batches(self, positions: Iterator[tuple[int, int]], rank: int = 0, of: int = 1) -> Generator[Any, None, None]:
        source = _Positions(self, rank, of)
        if self.workers == 0:
            for position in positions:
                yield source[position]
            return
        with warnings.catch_warnings():
            # The number of workers is the caller's choice, on a machine with fewer processors too.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            # A generator of its own: the engine would draw the workers' base seed from the global one.
            loader = DataLoader(
                source,
                batch_size=None,
                sampler=positions,
                num_workers=self.workers,
                generator=torch.Generator(),
                worker_init_fn=_ignore_signals,
            )
            before = set(multiprocessing.active_children())
            batches = iter(loader)
        # Python waits at its end for workers that batches not read to their end have left, and they ignore its signal.
        weakref.finalize(batches, _kill, set(multiprocessing.active_children()) - before)
        try:
            for batch in batches:
                if isinstance(batch, InputError):
                    raise batch
                yield batch
        finally:
            del batches  # ends the workers now, though a traceback may still hold this frame


class _Positions(Dataset[Any]):
    """The loader seen as a map from (epoch, batch) to a batch: what a worker process is given."""

    def __init__(self, loader: Loader, rank: int, of: int) -> None:
        self._loader, self._rank, self._of = loader, rank, of
        self._epoch = -1
        self._plan: Sequence[Tensor] = ()

    def __getitem__(self, position: tuple[int, int]) -> Any:
        epoch, batch = position
        loader = self._loader
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, loader.plan(epoch)
        indices = self._plan[batch]
        if self._of > 1:
            indices = indices[self._rank :: self._of] if self._rank < len(indices) else indices[:1]
        reseed(derive(loader.seed, Use.BATCH, epoch, batch, *([self._rank] if self._of > 1 else [])))
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


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _positions(length: int, epoch: int, batch: int, epochs: int | None = None) -> Iterator[tuple[int, int]]:
    last = None if epochs is None else epoch + epochs
    while epoch != last:
        for number in range(batch, length):
            yield epoch, number
        epoch, batch = epoch + 1, 0
