"""pytorch-frame's ExcelFormer, trained as that project's own example does (``examples/excelformer.py``, release 0.3.0).

Taken over: z-scores and mean filling inside the model, the example's transforms for categories and for the order of
columns, width 256, 5 layers, 4 heads, no mixing, attention dropout 0.3, Adam at 1e-3 multiplied by 0.95 every epoch,
batches of 512, 100 epochs, the weights of the epoch with the best validation score.

Their category transform stays as released: it encodes a level by its count, where its own documentation speaks of
target statistics.

Where we depart, each time in the peer's favour: the regression target is standardised (the example is given targets of
unit size); column statistics come from the training rows alone, so that an unseen level becomes the most frequent one
instead of an exception; only the validation rows are scored after an epoch (the example also scores training and test
rows). A wall limit ends training between two batches, with one last validation.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch_frame import categorical, numerical
from torch_frame.data import DataLoader, Dataset
from torch_frame.data.stats import StatType
from torch_frame.nn import ExcelFormer
from torch_frame.transforms import CatToNumTransform, MutualInformationSort

from benchmarks.tabular.method import Epoch, Fitted, Job
from benchmarks.tabular.scores import primary
from benchmarks.tabular.sets import Rows, Task

TARGET = "target"


class FrameEncoder:
    """Frames to the peer's ``TensorFrame``, by its own transforms fitted on the training rows."""

    def __init__(self, job: Job) -> None:
        table = job.table
        self.names = {name: f"c{i}" for i, name in enumerate((*table.numeric, *table.categorical))}
        kinds = {self.names[name]: numerical if name in table.numeric else categorical for name in self.names}
        kinds[TARGET] = categorical if table.classes else numerical
        self.dataset = Dataset(self._frame(job.train.X, job.train.y), kinds, target_col=TARGET).materialize()
        self.categories = CatToNumTransform()
        self.categories.fit(self.dataset.tensor_frame, self.dataset.col_stats)
        self.order = MutualInformationSort(self.dataset.task_type)
        self.order.fit(self.categories(self.dataset.tensor_frame), self.categories.transformed_stats)
        #: Class index of each of the peer's outputs: beyond two classes it sorts them by frequency.
        self.classes: list[int] = self.dataset.col_stats[TARGET][StatType.COUNT][0] if table.classes else []

    def _frame(self, features: pd.DataFrame, target: NDArray[Any]) -> pd.DataFrame:
        return features.rename(columns=self.names).reset_index(drop=True).assign(**{TARGET: target})

    def __call__(self, features: pd.DataFrame, target: NDArray[Any] | None = None) -> Any:
        """Encode rows. Their transform reads a target also when predicting: without one, their last class is given."""
        if target is None:
            target = np.full(len(features), self.classes[-1] if self.classes else 0.0)
        plain = self.dataset.convert_to_tensor_frame(self._frame(features, target))
        return self.order(self.categories(plain))


@dataclass
class FrameModel:
    """The trained peer. ``scale`` and ``shift`` undo the target's standardisation."""

    task: Task
    encode: FrameEncoder
    network: torch.nn.Module
    scale: float
    shift: float
    history: list[Epoch] = field(default_factory=list)
    stopped_by_limit: bool = False

    def predict(self, features: pd.DataFrame) -> NDArray[Any]:
        """Predictions in the layout of the scores."""
        return self._read(self.encode(features))

    @torch.no_grad()
    def _read(self, frame: Any, batch: int = 4096) -> NDArray[Any]:
        self.network.eval()
        rows = range(0, frame.num_rows, batch)
        output = torch.cat([self.network(frame[start : start + batch]) for start in rows]).double()
        if self.task == "regression":
            return np.asarray(output.view(-1) * self.scale + self.shift)
        probabilities = np.asarray(output.softmax(dim=-1))[:, np.argsort(self.encode.classes)]
        return probabilities[:, 1] if self.task == "binary" else probabilities


def fit_frame(job: Job, settings: Mapping[str, Any]) -> Fitted:
    """Train by the example's recipe within the job's minutes."""
    model = train(job, settings)
    details = {"epochs": len(model.history), "stopped_by_limit": model.stopped_by_limit}
    return Fitted(model.predict, details)


def train(job: Job, settings: Mapping[str, Any]) -> FrameModel:
    """Train, keeping the weights of the epoch with the best validation score."""
    started = time.perf_counter()
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002  their mutual information draws from the global generator
    model, train_rows, valid_rows = _prepare(job, settings)
    best: tuple[float, dict[str, Any]] = (np.inf, {})
    sign = -1.0 if primary(job.table.task).greater_is_better else 1.0
    for complete in _epochs(model, train_rows, settings, deadline=started + 60 * job.minutes):
        score = primary(job.table.task)(job.valid.y, model._read(valid_rows))
        model.history.append(Epoch(time.perf_counter() - started, score))
        if sign * score < best[0]:
            best = (sign * score, copy.deepcopy(model.network.state_dict()))
        model.stopped_by_limit = not complete
    model.network.load_state_dict(best[1])
    return model


def _prepare(job: Job, settings: Mapping[str, Any]) -> tuple[FrameModel, Any, Any]:
    regression = job.table.task == "regression"
    shift, scale = (float(job.train.y.mean()), float(job.train.y.std())) if regression else (0.0, 1.0)
    rows = Rows(job.train.X, (job.train.y - shift) / scale) if regression else job.train
    encode = FrameEncoder(Job(**{**vars(job), "train": rows}))
    train_rows = encode(rows.X, rows.y)
    network = ExcelFormer(
        in_channels=settings["channels"],
        out_channels=len(job.table.classes) or 1,
        num_cols=train_rows.num_cols,
        num_layers=settings["layers"],
        num_heads=settings["heads"],
        col_stats=encode.order.transformed_stats,
        col_names_dict=train_rows.col_names_dict,
        diam_dropout=settings["attention_dropout"],
        mixup=settings["mixup"],
    )
    return FrameModel(job.table.task, encode, network, scale, shift), train_rows, encode(job.valid.X)


def _epochs(model: FrameModel, rows: Any, settings: Mapping[str, Any], deadline: float) -> Iterator[bool]:
    """Train epoch by epoch; yields whether the epoch was complete, and ends at the first that was not."""
    loader = DataLoader(rows, batch_size=settings["batch"], shuffle=True)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=settings["learning_rate"])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=settings["gamma"])
    for _ in range(settings["epochs"]):
        model.network.train()
        complete = True
        for batch in loader:
            _step(model, batch, optimizer)
            if time.perf_counter() > deadline:
                complete = False
                break
        yield complete
        if not complete:
            return
        schedule.step()


def _step(model: FrameModel, batch: Any, optimizer: torch.optim.Optimizer) -> None:
    output, target = model.network(batch, mixup_encoded=True)
    if model.task == "regression":
        loss = functional.mse_loss(output.view(-1), target.view(-1))
    else:
        loss = functional.cross_entropy(output, target)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
