"""One optimiser with typed groups, routing of parameters by role, and schedules that are functions of the step.

>>> import torch
>>> model = torch.nn.Linear(3, 1)
>>> optimizer = OptimConfig(lr=1e-2).build(model)
>>> factor = ScheduleConfig(warmup=0.1).build(total=1000)
"""

from core.optim.config import OptimConfig
from core.optim.optimizer import KINDS, Optimizer, Rule
from core.optim.routing import DECAYED, ROLES, Routed, Routing, route
from core.optim.schedule import (
    Schedule,
    ScheduleConfig,
    constant,
    hold_anneal,
    warmup_cosine,
    warmup_times_linear,
)

__all__ = [
    "DECAYED",
    "KINDS",
    "ROLES",
    "OptimConfig",
    "Optimizer",
    "Routed",
    "Routing",
    "Rule",
    "Schedule",
    "ScheduleConfig",
    "constant",
    "hold_anneal",
    "route",
    "warmup_cosine",
    "warmup_times_linear",
]
