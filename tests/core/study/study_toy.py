"""An application that trains in a moment, for the tests of this folder; as a program, a queue that is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import nn

import core.training.run
from core.application import Application, Measure, Scored, Trained
from core.application.base import with_fit
from core.artefact import load, save
from core.command import config_to_dict, run
from core.errors import InputError
from core.evaluation.metrics import REGRESSION
from core.optim import OptimConfig, ScheduleConfig
from core.study import compare
from core.study.isolation import await_server
from core.study.journal import read_events
from core.training import FitSettings, Loader, Task, TensorBatches, fit

METRICS = {name: REGRESSION[name] for name in ("rmse", "mae")}
ROWS = {"train": 40, "valid": 20, "test": 30}


@dataclass(frozen=True, kw_only=True)
class Source:
    data: str = "toy"
    """Which rows: the name is their seed."""


@dataclass(frozen=True, kw_only=True)
class Net:
    width: int = 4
    """Hidden units; 13 cannot be."""
    dropout: float = 0.1
    act: Literal["tanh", "relu", "none"] = "tanh"
    kernel: int | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    model: Net = field(default_factory=Net)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.05))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    fit: FitSettings = field(default_factory=lambda: FitSettings(max_epochs=3, monitor="mse"))
    behaviour: Literal["well", "raises", "diverges", "refuses", "crashes", "once", "slow"] = "well"
    """``once``: crashes where no file ``mended`` is; ``slow``: saves after every step, and waits."""
    seed: int = 0


class Squares(Task):
    def __init__(self, config: Config) -> None:
        self.model, self.behaviour = network(config), config.behaviour

    def training_loss(self, batch):
        loss = (self.model(batch["x"]).squeeze(1) - batch["y"]).square().mean()
        if self.behaviour == "slow":
            time.sleep(0.01)
        return {"loss": loss * (np.inf if self.behaviour == "diverges" else 1)}

    def evaluate(self, batches):
        errors = [(self.model(batch["x"]).squeeze(1) - batch["y"]).square() for batch in batches]
        return {"mse": torch.cat(errors).mean().item()}


@dataclass
class Model:
    network: nn.Module
    config: Config
    rewrites: tuple = ((),)

    @property
    def networks(self):
        return (self.network,)

    def save(self, directory):
        save(
            directory,
            {"weights": self.network.state_dict(), "config": config_to_dict(self.config)},
            kind="toy",
            version=1,
        )


def network(config: Config) -> nn.Module:
    if config.model.width == 13:
        raise InputError("13 units bring bad luck", where="model.width", mend="take 12")
    acts = {"tanh": nn.Tanh, "relu": nn.ReLU, "none": nn.Identity}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return nn.Sequential(
            nn.Linear(5, config.model.width),
            acts[config.model.act](),
            nn.Dropout(config.model.dropout),
            nn.Linear(config.model.width, 1),
        )


class ToyApplication(Application[Config, dict, Model]):
    name = "toy"
    model_name = "perceptron"
    config = Config
    presets = MappingProxyType({"small": Config, "wide": lambda: Config(model=Net(width=8))})
    source = Source

    def load(self, source, config):
        rng = np.random.default_rng(sum(source.data.encode()))
        return {name: rng.normal(size=(count, 6)).astype(np.float32) for name, count in ROWS.items()}

    def part(self, data, share):
        return {**data, "train": data["train"][: round(share * len(data["train"]))]}

    def facts(self, source, data):
        return {"data": source.data, "digest": {name: str(float(rows.sum())) for name, rows in data.items()}}

    def build(self, config, data):
        return network(config)

    def prototype(self, config):
        return network(config)

    def fit(self, config, data, *, directory=None, progress="off"):
        misbehave(config)
        if config.behaviour == "slow":
            core.training.run.SHARE_FOR_SAVING = 1e9
        task = Squares(config)
        train, valid = (
            TensorBatches({"x": torch.tensor(data[name][:, 1:]), "y": torch.tensor(data[name][:, 0])})
            for name in ("train", "valid")
        )
        loader = Loader(train, 8, seed=config.seed, shuffle=True)
        result = fit(
            task,
            train=loader,
            valid=Loader(valid, 20, shuffle=False),
            optimizer=config.optim.build(task.model),
            schedule=config.schedule.build(config.fit.max_epochs * len(loader)),
            settings=with_fit(config, seed=config.seed).fit,
            directory=directory,
            progress=progress,
        )
        return Trained(
            model=Model(task.model, config),
            results=(result,),
            complete=True,
            facts={},
            history=result.history,
            summary=(),
        )

    def open(self, run):
        tree = load(run.best, kind="toy", version=1)
        config = run.config(Config)
        model = network(config)
        model.load_state_dict(tree["weights"])
        return Model(model.eval(), config)

    def metrics(self, data):
        return METRICS

    def score(self, model, data, split):
        rows = data[split]
        with torch.no_grad():
            found = model.network(torch.tensor(rows[:, 1:])).squeeze(1).numpy().astype(np.float64)
        truth = rows[:, 0].astype(np.float64)
        return Scored({name: Measure(metric, truth, found) for name, metric in METRICS.items()})

    def rewritten(self, model, networks, rewrites):
        return Model(networks[0], model.config, tuple(rewrites))

    def probe(self, model, data, split):
        rows = torch.tensor(data[split][:8, 1:])
        return lambda network: network(rows)

    def monitored(self, config, data):
        return config.fit.monitor

    def within(self, config, data, minutes):
        """Epochs by the width; each call leaves a line behind."""
        misbehave(config)
        with open("decisions", "a") as file:
            file.write(f"{config.model.width}\n")
        return with_fit(config, max_epochs=round(minutes * config.model.width), max_minutes=None)


def misbehave(config: Config) -> None:
    if config.behaviour == "raises":
        raise ZeroDivisionError("one\nover none")
    if config.behaviour == "refuses":
        raise InputError("no", where="here")
    if config.behaviour == "crashes" or (config.behaviour == "once" and not os.path.exists("mended")):
        os.kill(os.getpid(), signal.SIGKILL)


TOY = ToyApplication()


# --------------------------------------------------------------------------------------------------- a killed queue


def queue(argv: list[str]) -> int:
    """Fork a queue, which shares the server of this program; gives its process."""
    pid = os.fork()
    if pid == 0:
        forkserver.ForkServer.ensure_running = forkserver.ensure_running = lambda *_: None
        os._exit(run(lambda words: compare(TOY, words), argv))
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def last_child(study: Path) -> int | None:
    """The process that began the latest run."""
    started = [event for log in study.glob("runs/*.jsonl") for event in read_events(log) if event["event"] == "started"]
    return max(started, key=lambda event: event["time"])["pid"] if started else None


def main(argv: list[str], seed: int) -> None:
    """The same study in the folders ``plain`` and ``killed`` of this one; prints how the killed queues ended."""
    draw = random.Random(seed)
    forkserver.set_forkserver_preload(["core.training.adapter", "core.study.worker", "study_toy"])
    forkserver.ensure_running()
    await_server()
    begun = time.monotonic()
    assert status_of(queue([*argv, "--out", "plain"])) == 0
    seconds = time.monotonic() - begun
    statuses, signals = [], [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    for number in signals:
        pid = queue([*argv, "--out", "killed"])
        time.sleep(draw.uniform(0.4, 0.9) * seconds / len(signals))
        os.kill(pid, number)
        statuses.append(status_of(pid))
        orphan = last_child(Path("killed"))
        until = time.monotonic() + 30
        while orphan is not None and Path(f"/proc/{orphan}").exists():
            assert time.monotonic() < until, f"{orphan} lives on"
            time.sleep(0.01)
    assert status_of(queue([*argv, "--out", "killed"])) == 0
    sys.stdout.write("\n" + json.dumps(statuses))


if __name__ == "__main__":
    import study_toy  # under the name that other processes know it by

    torch.set_num_threads(1)
    study_toy.main(sys.argv[2:], int(sys.argv[1]))
