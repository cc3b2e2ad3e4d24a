"""Lightning drives the run. The only file that imports it.

Lightning brings the device, the strategy, the backward pass; everything else of it is switched off. The run counts for
itself, and Lightning sees one long epoch: its own epochs cost time on small data, and its loop state cannot resume in
the middle of one without the loader's help.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from core.training.run import Run


def drive(run: Run) -> None:
    """Train until the run says stop."""
    with _quiet():
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            # A single process, even where a cluster's variables are set.
            plugins=[LightningEnvironment()],
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
        batches = run.train.stream(run.state.epoch, run.state.batch)
        try:
            trainer.fit(_Module(run), _Rest(batches, max(1, run.remaining)))
        finally:
            batches.close()  # ends worker processes now, not when the collector comes by


class _Module(pl.LightningModule):
    """A run, as Lightning wants it. Manual optimisation: half the price of the automatic one, and no hidden counter."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = run.task.model
        self._run = run

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._run.optimizer

    def on_train_start(self) -> None:
        self._run.rank = self.global_rank
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
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
