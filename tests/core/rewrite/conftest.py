"""Small real networks for the passes, and what holds for every pass."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from apps.asr.config import ModelConfig as SpeechConfig
from apps.asr.model import Squeezeformer
from apps.tabular.prediction.config import ModelConfig as TableConfig
from apps.tabular.prediction.model import ExcelFormer
from core.layout import build
from core.rewrite import Evidence, Rewrite, Rewritten, replay
from core.testing.tolerances import draw


@dataclass
class Host:
    """A network that is made anew at each call, and its outputs for two inputs."""

    make: Callable[[], nn.Module]
    run: Callable[[nn.Module], Tensor]

    def evidence(self, cost: Callable[[nn.Module], float] | None = None) -> Evidence:
        return Evidence(run=self.run, cost=cost)

    def replays(self, done: Rewritten[Any]) -> nn.Module:
        """The decision survives being written, and alone gives a new network the shape; gradients reach it."""
        decision = json.loads(json.dumps(done.rewrite.decision))
        assert decision == done.rewrite.decision
        fresh = replay(self.make(), [Rewrite(done.rewrite.name, decision)])
        fresh.load_state_dict(done.model.state_dict())
        y = self.run(fresh.eval())
        assert torch.equal(y, self.run(done.model.eval()))
        y.square().sum().backward()
        assert all(p.grad is not None for p in fresh.parameters() if p.requires_grad)
        return fresh


def filled(model: nn.Module) -> nn.Module:
    """Values that are the same for every copy, biases and scales included."""
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
            parameter.copy_(scale * draw(*parameter.shape, seed=seed) + (parameter.ndim == 1))
    return model.double()


def dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


class Hosts:
    """What makes hosts."""

    @staticmethod
    def tables(**changes: Any) -> Host:
        config = TableConfig(**{"width": 16, "heads": 2, "layers": 2, "attention_dropout": 0.0, **changes})
        x = draw(6, 5)
        return Host(lambda: filled(ExcelFormer(5, 2, config)), lambda model: model(x.to(dtype(model))))

    @staticmethod
    def speech(**changes: Any) -> Host:
        tiny: dict[str, Any] = {
            "width": 12,
            "layers": 3,
            "heads": 2,
            "reduce": 1,
            "kernel": 5,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        }
        config = SpeechConfig(**{**tiny, **changes})
        x, lengths = draw(2, 60, 16), torch.tensor([60, 41])

        def run(model: nn.Module) -> Tensor:
            logits, tokens = model(x.to(dtype(model)), lengths)
            return torch.cat([row[:n] for row, n in zip(logits, tokens.tolist(), strict=True)])

        return Host(lambda: filled(Squeezeformer(16, 7, config)), run)

    @staticmethod
    def stack(*entries: Any, width: int = 8) -> Host:
        rows, offsets = draw(9, width), torch.tensor([0, 4, 9])
        return Host(lambda: filled(build(entries, width)), lambda model: model(rows.to(dtype(model)), offsets=offsets))


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()
