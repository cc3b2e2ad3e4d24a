"""Training: a task, a loader, and ``fit``. The only room that knows Lightning, imported when ``fit`` first trains.

>>> import torch
>>> from core.optim import OptimConfig, constant
>>> class Line(Task):
...     def __init__(self):
...         self.model = torch.nn.Linear(1, 1)
...
...     def training_loss(self, batch):
...         return {"loss": (self.model(batch["x"]) - batch["y"]).square().mean()}
...
...     def evaluate(self, batches):
...         errors = [(self.model(batch["x"]) - batch["y"]).square() for batch in batches]
...         return {"mse": torch.cat(errors).mean().item()}
>>> x = torch.linspace(-1, 1, 20)[:, None]
>>> loader = Loader(TensorBatches({"x": x, "y": 2 * x + 1}), 5, shuffle=True)
>>> task = Line()
>>> result = fit(
...     task,
...     train=loader,
...     valid=loader,
...     optimizer=OptimConfig(lr=0.1).build(task.model),
...     schedule=constant,
...     settings=FitSettings(max_epochs=50, monitor="mse"),
...     progress="off",
... )
>>> result.stopped_by, result.steps, result.best < 0.01
('epochs', 200, True)
"""

from core.training.batching import Batching, ByLength, FixedSize
from core.training.fit import fit
from core.training.group import LostProcess, together
from core.training.interrupt import Interrupted
from core.training.loader import BatchSource, Loader, TensorBatches
from core.training.progress import Progress
from core.training.randomness import preserved
from core.training.settings import Diverged, FitResult, FitSettings, Pace
from core.training.task import Task

__all__ = [
    "BatchSource",
    "Batching",
    "ByLength",
    "Diverged",
    "FitResult",
    "FitSettings",
    "FixedSize",
    "Interrupted",
    "Loader",
    "LostProcess",
    "Pace",
    "Progress",
    "Task",
    "TensorBatches",
    "fit",
    "preserved",
    "together",
]
