"""A fitted ensemble as one object: encoder, members, calibration. Ask it, save it, load it.

The members are ExcelFormers that read the same encoded rows; their class probabilities (or their values) are averaged.
Classes: the logarithm of the averaged probabilities is divided by one temperature (Guo et al., arXiv 1706.04599).
Regression: an interval is the mean plus or minus a split-conformal quantile times ``floor + spread``, where ``spread``
is the standard deviation between members and ``floor`` its median on the calibration rows, so that intervals widen
where the members disagree. Both are fitted on the validation rows, which also stopped the training: that flatters them
a little, and the coverage that ``evaluate`` reports on the test split says by how much.

Models predict in float64: the same row then gives the same answer (to about 1e-12) alone and in any batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.data.encode import Encoded, TableEncoder
from apps.tabular.prediction.data.table import Schema
from apps.tabular.prediction.model import ExcelFormer
from core import artefact
from core.command import RunDirectory, config_to_dict, stored_config
from core.errors import InputError
from core.evaluation.calibration import ConformalInterval, apply_temperature, fit_temperature
from core.rewrite import Rewrite, replay, rewrites_from_state, rewrites_state

if TYPE_CHECKING:
    import pandas as pd

TASK = "tabular"
KIND, VERSION = "manyformer.tabular", 1
CELLS_PER_PASS = 1 << 16
"""Rows times features sent through a model at once when predicting: bounds memory, never changes a result."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the validation rows taught the ensemble."""

    temperature: float = 1.0
    """Divides log-probabilities; above 1 where the ensemble was too sure."""
    residuals: NDArray[np.float64] | None = None
    """Regression: absolute errors over their scale, one a validation row."""
    floor: float = 1.0
    """Regression: what is added to the spread between members."""


class TabularPredictor:
    """Encoder, members and calibration.

    Args:
        schema: columns, target, task and classes of the training table.
        config: every setting of the training.
        encoder: fitted on the training rows.
        members: at least one model, on the encoder's features.
        location, scale: mean and standard deviation of the training target (regression).
        calibration: see :class:`Calibration`.
        rewrites: of each member, what was done to it since its config built it.
    """

    def __init__(
        self,
        schema: Schema,
        config: TabularConfig,
        encoder: TableEncoder,
        members: list[ExcelFormer],
        *,
        location: float = 0.0,
        scale: float = 1.0,
        calibration: Calibration | None = None,
        rewrites: Sequence[Sequence[Rewrite]] | None = None,
    ) -> None:
        self.schema = schema
        self.config = config
        self.encoder = encoder
        self.members = [member.double().eval().requires_grad_(False) for member in members]
        self.location, self.scale = location, scale
        self.calibration = calibration or Calibration()
        self.rewrites = tuple(map(tuple, rewrites)) if rewrites is not None else ((),) * len(members)

    @property
    def networks(self) -> Sequence[ExcelFormer]:
        """The members."""
        return self.members

    # ------------------------------------------------------------------------------------------------ asking

    def predict_proba(self, frame: pd.DataFrame) -> Float[NDArray[np.float64], "R C"]:
        """Calibrated class probabilities, columns in the order of ``schema.classes``.

        Raises:
            InputError: for a regression model, and for a frame that does not fit the schema.
        """
        self._need(("binary", "multiclass"), "class probabilities")
        return self._tempered(self._mean_probabilities(self._outputs(self.encoder.transform(frame))))

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        """The most probable class of every row, or its value in the target's units."""
        if self.schema.task == "regression":
            return self._values(self._outputs(self.encoder.transform(frame)))[0]
        classes = np.array(self.schema.classes, dtype=object)
        labels: NDArray[Any] = classes[self.predict_proba(frame).argmax(1)]
        return labels

    def predict_interval(
        self, frame: pd.DataFrame, coverage: float = 0.9
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Value, lower and upper end of every row, in the target's units.

        Args:
            frame: rows.
            coverage: share of rows whose truth should lie inside, between 0 and 1; the ends are infinite where the
                model saw too few validation rows to promise it.
        """
        self._need(("regression",), "intervals")
        if not 0 < coverage < 1:
            raise InputError(f"{coverage} is not a share between 0 and 1", where="coverage")
        if self.calibration.residuals is None:
            raise InputError("this model was fitted without validation rows and has no intervals")
        value, spread = self._values(self._outputs(self.encoder.transform(frame)))
        zeros = np.zeros_like(self.calibration.residuals)
        interval = ConformalInterval.fit(self.calibration.residuals, zeros, coverage=coverage)
        half = interval.quantile * (spread + self.calibration.floor)
        return value, value - half, value + half

    # ------------------------------------------------------------------------------------------- calibrating

    def calibrate(self, encoded: Encoded, target: NDArray[Any]) -> None:
        """Fit the calibration on encoded rows the members did not learn from."""
        outputs = self._outputs(encoded)
        if self.schema.task == "regression":
            value, spread = self._values(outputs)
            floor = float(np.median(spread)) if len(self.members) > 1 else 1.0
            floor = floor or 1.0
            self.calibration = Calibration(residuals=np.abs(target - value) / (spread + floor), floor=floor)
            return
        temperature = fit_temperature(_log(self._mean_probabilities(outputs)), target.astype(np.int64))
        self.calibration = Calibration(temperature=temperature)

    # ------------------------------------------------------------------------------------------------- inside

    def _outputs(self, encoded: Encoded) -> Float[NDArray[np.float64], "M R C"]:
        """Logits, or standardised values, of every member."""
        x, codes = torch.from_numpy(encoded.x).double(), torch.from_numpy(encoded.codes)
        rows = max(1, CELLS_PER_PASS // max(1, x.shape[1]))
        with torch.inference_mode():
            parts = [
                torch.cat([member(x[i : i + rows], codes[i : i + rows]) for i in range(0, len(x), rows)])
                for member in self.members
            ]
        outputs: NDArray[np.float64] = torch.stack(parts).numpy()
        return outputs

    def _mean_probabilities(self, outputs: Float[NDArray[np.float64], "M R C"]) -> Float[NDArray[np.float64], "R C"]:
        logits = torch.from_numpy(outputs)
        if self.schema.task == "binary":
            logits = torch.cat([torch.zeros_like(logits), logits], dim=2)
        mean: NDArray[np.float64] = logits.softmax(2).mean(0).numpy()
        return mean

    def _tempered(self, probabilities: Float[NDArray[np.float64], "R C"]) -> Float[NDArray[np.float64], "R C"]:
        return apply_temperature(_log(probabilities), self.calibration.temperature)

    def _values(
        self, outputs: Float[NDArray[np.float64], "M R C"]
    ) -> tuple[Float[NDArray[np.float64], " R"], Float[NDArray[np.float64], " R"]]:
        """Mean over members and the standard deviation between them, in the target's units."""
        values = outputs[:, :, 0] * self.scale + self.location
        spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        return values.mean(0), spread

    def _need(self, tasks: tuple[str, ...], what: str) -> None:
        if self.schema.task not in tasks:
            raise InputError(f"a {self.schema.task} model has no {what}")

    # -------------------------------------------------------------------------------------------- save and load

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write everything that prediction needs into ``directory``: one JSON file, one safetensors file."""
        calibration = self.calibration
        tree = {
            "schema": self.schema.to_dict(),
            "config": config_to_dict(self.config),
            "encoder": self.encoder.state(),
            "members": [{name: t.float() for name, t in m.state_dict().items()} for m in self.members],
            "target": {"location": self.location, "scale": self.scale},
            "calibration": {
                "temperature": calibration.temperature,
                "residuals": calibration.residuals,
                "floor": calibration.floor,
            },
            "rewrites": rewrites_state(self.rewrites),
        }
        artefact.save(directory, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> TabularPredictor:
        """Read what :meth:`save` wrote. No code is executed.

        Raises:
            InputError: missing, damaged, of another kind, or of a newer version.
        """
        tree: Any = artefact.load(directory, kind=KIND, version=VERSION)
        with artefact.understood(directory):
            config = stored_config(TabularConfig, tree["config"], where=str(directory))
            schema = Schema.from_dict(tree["schema"])
            encoder = TableEncoder.from_state(tree["encoder"])
            rewrites = rewrites_from_state(tree.get("rewrites"), len(tree["members"]))
            members = [replay(new_model(config, schema, encoder), each) for each in rewrites]
            if not members:
                raise ValueError("no networks")
            for member, state in zip(members, tree["members"], strict=True):
                member.load_state_dict(state)
            target = {name: float(tree["target"][name]) for name in ("location", "scale")}
            calibration = _calibration(tree["calibration"])
            return cls(schema, config, encoder, members, **target, calibration=calibration, rewrites=rewrites)


def _calibration(tree: Mapping[str, Any]) -> Calibration:
    residuals = tree["residuals"]
    if residuals is not None and not isinstance(residuals, np.ndarray):
        raise TypeError("residuals are no array")
    return Calibration(temperature=float(tree["temperature"]), residuals=residuals, floor=float(tree["floor"]))


def load_run(path: Path) -> TabularPredictor:
    """The model of a finished run.

    Raises:
        InputError: no run, not finished, or damaged.
    """
    return TabularPredictor.load(RunDirectory.trained(path, task=TASK).best)


def new_model(config: TabularConfig, schema: Schema, encoder: TableEncoder) -> ExcelFormer:
    """A model for the encoder's features, not trained."""
    outputs = len(schema.classes) if schema.task == "multiclass" else 1
    return ExcelFormer(
        len(encoder.feature_names),
        outputs,
        config.model,
        importance=torch.as_tensor(encoder.importance),
        cardinalities=[int(c) for c in encoder.cardinalities],
    )


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities, 1e-300))
    return logs
