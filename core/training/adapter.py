"""Lightning drives the run. The only file that imports it.

Lightning brings the device, the strategy, the backward pass; everything else of it is switched off. The run counts for
itself, and Lightning sees one long epoch: its own epochs cost time on small data, and its loop state cannot resume in
the middle of one without the loader's help.

Several processes: they exist already, and are connected (:mod:`.group`); Lightning's strategies only divide the work.
Its launchers would start the script again, which is no way to treat a command or a notebook.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor

from core.training.group import Group
from core.training.run import Run
from core.training.sharding import Sharded


def drive(run: Run) -> None:
    """Train until the run says stop."""
    with _quiet():
        trainer = pl.Trainer(
            **_placement(run.group),
            max_epochs=1,
            min_epochs=0,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=2**31,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        # Each step Lightning would ask the first process for a signal that it cannot see: ours, see `retake` below, are
        # exchanged with the losses.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        group = run.group
        batches = run.train.stream(run.state.epoch, run.state.batch, rank=group.rank, of=group.size)
        try:
            trainer.fit(_Module(run), _Rest(batches, max(1, run.remaining)))
        finally:
            batches.close()  # ends worker processes now, not when the collector comes by


def _placement(group: Group) -> dict[str, Any]:
    """Where Lightning trains."""
    if group.size == 1:
        # A single process, even where a cluster's variables are set.
        return {"accelerator": "auto", "devices": 1, "plugins": [LightningEnvironment()]}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",
        "devices": here,
        "num_nodes": group.size // here,
        "plugins": [TorchElasticEnvironment()],
        "strategy": _strategy(group),
    }


def _strategy(group: Group) -> Strategy:
    if group.strategy == "fsdp":
        return ModelParallelStrategy(data_parallel_size=group.size, tensor_parallel_size=1)
    return DDPStrategy(
        # Buffers are equal already, batch statistics being pooled; a model's caches need not be.
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
        # Parameters that take no part in a loss keep no gradient, as in one process. It also keeps torch from sorting
        # the gradients anew after the first step, so that sums over more than two processes are rounded as before when
        # a run is resumed. The price is a walk over the graph: on a processor a step of 0.8 M parameters takes as much
        # of its time as with one exchange of all gradients after the backward pass (10 ms), which could not overlap it.
        find_unused_parameters=True,
    )


class _Module(pl.LightningModule):
    """A run, as Lightning wants it. Manual optimisation: half the price of the automatic one, and no hidden counter."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = run.task.model
        self._run = run
        if run.group.size > 1 and run.group.strategy == "ddp":
            # Takes part in no loss: torch warns, past Python, where there is no such parameter to be found.
            self.unused = torch.nn.Parameter(torch.zeros(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._run.optimizer

    def configure_model(self) -> None:
        """What a strategy that divides the model calls, more than once."""
        run = self._run
        if run.group.strategy == "fsdp" and run.group.size > 1 and run.sharded is None:
            assert self.device_mesh is not None
            run.sharded = Sharded(run, self.device_mesh["data_parallel"])
            self.model = run.task.model

    def on_train_start(self) -> None:
        self._run.backward = self.manual_backward
        if self.device.type != "cpu":
            self._run.move = self.trainer.strategy.batch_to_device
        # Lightning would leave at the first SIGTERM, and with nothing saved.
        self._run.signals.retake()
        self._stop_if(self._run.begin())

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # Walking through a batch to move nothing costs as much as a small model's step.
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        self._stop_if(self._run.step(batch))
        return None

    def _stop_if(self, stop: bool) -> None:
        if stop:
            self.trainer.should_stop = True


class _Rest:
    """The batches that are left, with a length: without one, Lightning would fetch a batch ahead.

    The length is at least 1, for Lightning to begin at all where only an evaluation is left.
    """

    def __init__(self, batches: Iterator[Any], length: int) -> None:
        self._batches, self._length = batches, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return self._batches


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's announcements, tips and warnings about features that are off."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            # Of results that are views, which nothing may change in place: nothing here does.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            # A depth-wise convolution's gradient has another stride where the size is 1, which means nothing.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
