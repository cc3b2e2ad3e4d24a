"""The members of ``core.feedforward`` written out plainly, as ``core.testing.oracles`` does those of other rooms."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from core.testing.oracles import ACTIVATION_ORACLES, GridOracle, TokenOracle, layernorm, linear


def _activated(module: Any, x: Tensor) -> Tensor:
    """The activation that ``module`` names, learned or not."""
    if module.activation == "starrelu":
        star = module.activate
        y: Tensor = star.scale.double() * ACTIVATION_ORACLES["relu"](x) ** 2 + star.bias.double()
        return y
    return ACTIVATION_ORACLES[module.activation](x)


def mlp(module: Any, x: Tensor) -> Tensor:
    """down(activation(up(x)))."""
    return linear(module.down, _activated(module, linear(module.up, x)))


def mixffn(module: Any, x: Tensor, *, grid: tuple[int, int], mask: Tensor | None = None) -> Tensor:
    """``core.feedforward.MixFFN``: every hidden unit the sum of the taps that meet a real token, and its shift."""
    h, taps = linear(module.up, x), module.taps.double()[:, 0]
    rows, columns = grid
    h = h if mask is None else h * mask[:, :, None].double()
    mixed = []
    for i in range(rows * columns):
        unit = torch.zeros_like(h[:, 0]) if module.shift is None else module.shift.double().expand_as(h[:, 0])
        for down, right in product((-1, 0, 1), repeat=2):
            row, column = i // columns + down, i % columns + right
            if 0 <= row < rows and 0 <= column < columns:
                unit = unit + taps[:, 1 + down, 1 + right] * h[:, row * columns + column]
        mixed.append(unit)
    return linear(module.down, _activated(module, torch.stack(mixed, dim=1) if mixed else h))


def glu(module: Any, x: Tensor) -> Tensor:
    """down(value * activation(gate)), where the first ``hidden`` rows of ``up`` make the value."""
    both = linear(module.up, x)
    product = both[..., : module.hidden] * _activated(module, both[..., module.hidden :])
    return linear(module.down, product) if isinstance(module.down, nn.Linear) else product


def activator(module: Any, x: Tensor) -> Tensor:
    """down(n(activation(u)) * n(v)), where the first ``hidden`` rows of ``up`` make u."""
    both = linear(module.up, x)
    u, v = _activated(module, both[..., : module.hidden]), both[..., module.hidden :]
    return linear(module.down, layernorm(module.norm, u) * layernorm(module.norm, v))


def memory_layer(module: Any, x: Tensor) -> Tensor:
    """The rows at the corner of signs nearest to each chunk, weighted by its softmax among all corners."""
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=module.bits)), dtype=torch.float64)
    tables = module.tables.double().view(module.chunks, -1, module.outputs)
    y: Tensor = module.bias.double().expand(*x.shape[:-1], module.outputs)
    for k in range(module.chunks):
        z = x[..., k * module.bits : (k + 1) * module.bits]
        signs = 2.0 * (z >= 0).double() - 1.0
        here = (signs[..., None, :] == corners).all(-1).double()
        chances = ((z @ corners.T).softmax(-1) * here).sum(-1, keepdim=True)
        if module.score == "l1_softmax":
            chances = chances * z.abs().sum(-1, keepdim=True)
        y = y + chances * (here @ tables[k])
    return y


def memory(module: Any, x: Tensor) -> Tensor:
    """Memory layer, layer norm, memory layer."""
    return memory_layer(module.second, layernorm(module.norm, memory_layer(module.first, x)))


def experts(module: Any, x: Tensor) -> Tensor:
    """Every expert on every position, those that are not among the best of it weighted zero."""
    rows = x.reshape(-1, x.shape[-1])
    if module.router is None:
        parts = [linear(e.up, rows)[:, -e.hidden :].sum(-1) / e.hidden for e in module.experts]
        scores = torch.stack(parts, dim=-1)
    else:
        scores = linear(module.router, rows)
    best = [sorted(range(len(row)), key=row.__getitem__)[-module.active :] for row in scores.tolist()]
    kept = torch.tensor([[float(e in some) for e in range(scores.shape[1])] for some in best], dtype=torch.float64)
    gates: Tensor = kept.view(scores.shape)
    if module.router is not None:
        gates = gates * scores.exp() / scores.exp().sum(-1, keepdim=True)
        gates = gates / gates.sum(-1, keepdim=True) if module.renormalise else gates
    y = torch.zeros_like(rows)
    for e, expert in enumerate(module.experts):
        y = y + gates[:, e, None] * FEEDFORWARD_ORACLES[type(expert).__name__.lower()](expert, rows)
    return (y if module.bias is None else y + module.bias.double()).view(x.shape)


FEEDFORWARD_ORACLES: dict[str, TokenOracle | GridOracle] = {
    "activator": activator,
    "experts": experts,
    "glu": glu,
    "memory": memory,
    "mixffn": mixffn,
    "mlp": mlp,
}
