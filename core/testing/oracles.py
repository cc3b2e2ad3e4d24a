"""The blocks written out plainly, in float64: slow, obvious, and sharing no code with what they check.

Every oracle takes the module whose weights it uses and differentiates through them, so that gradients are compared too.
The tables are keyed like the tables of the rooms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class MixerOracle(Protocol):
    """A mixer on ``x (B,N,D)`` float64, with the meaning of ``core.attention.Mixer``."""

    def __call__(self, module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
        """``(B,N,D)``."""
        ...


TokenOracle = Callable[[Any, Tensor], Tensor]
GridOracle = Callable[..., Tensor]
"""Either of a block that needs a grid, with the argument ``grid``."""


def readable_keys(i: int, n: int, causal: bool, key_mask: Tensor | None, pair_mask: Tensor | None) -> list[int]:
    """The keys that query ``i`` of one sequence may read; ``key_mask (N,)``, ``pair_mask (N,N)``.

    >>> readable_keys(1, 3, True, torch.tensor([True, True, False]), None)
    [0, 1]
    """
    real = [True] * n if key_mask is None else key_mask.tolist()
    allowed = [True] * n if pair_mask is None else pair_mask[i].tolist()
    return [j for j in range(i + 1 if causal else n) if real[j] and allowed[j]]


def softmax_attention_oracle(
    q: Tensor, k: Tensor, v: Tensor, *, key_mask: Tensor | None, pair_mask: Tensor | None, causal: bool
) -> Tensor:
    """One head of one sequence: q, k, v ``(N,d)``, ``key_mask (N,)``, ``pair_mask (N,N)``; one query after another.

    >>> q = torch.zeros(2, 1, dtype=torch.float64)
    >>> v = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> softmax_attention_oracle(q, q, v, key_mask=None, pair_mask=None, causal=True).flatten().tolist()
    [1.0, 2.0]
    """

    def score(i: int, keys: list[int]) -> Tensor:
        return (k[keys] * q[i]).sum(-1) / math.sqrt(q.shape[1])

    return _attention_by_rows(v, score, key_mask, pair_mask, causal)


def _attention_by_rows(
    v: Tensor,
    score: Callable[[int, list[int]], Tensor],
    key_mask: Tensor | None,
    pair_mask: Tensor | None,
    causal: bool,
) -> Tensor:
    """One head of one sequence, ``v (N,d)``; ``score(i, keys)`` gives the scores of query i and these keys."""
    rows = []
    for i in range(v.shape[0]):
        keys = readable_keys(i, v.shape[0], causal, key_mask, pair_mask)
        if not keys:
            rows.append(torch.zeros_like(v[0]))
            continue
        scores = score(i, keys)
        weights = (scores - scores.max().detach()).exp()
        rows.append((weights[:, None] * v[keys]).sum(0) / weights.sum())
    return torch.stack(rows) if rows else torch.zeros_like(v)


# (module, head, q (N,d), k (N,d), i, keys) -> scores (keys,)
_Scores = Callable[[Any, int, Tensor, Tensor, int, list[int]], Tensor]


def _attention_mixer(scores: _Scores, module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """Heads, the maps qkv and out, and masks around ``scores``, on ``x (B,N,D)``."""
    batch, width = x.shape[0], x.shape[2]
    d = width // module.heads
    qkv = linear(module.qkv, x)
    sequences = []
    for b in range(batch):
        keep = None if mask is None else mask[b]
        pairs = pair_mask if pair_mask is None or pair_mask.ndim == 2 else pair_mask[b]
        heads = []
        for h in range(module.heads):
            q, k, v = (qkv[b, :, part * width + h * d : part * width + (h + 1) * d] for part in range(3))
            heads.append(_attention_by_rows(v, partial(scores, module, h, q, k), keep, pairs, module.causal))
        sequences.append(torch.cat(heads, dim=-1))
    y = torch.stack(sequences) if sequences else x
    if isinstance(module.out, nn.Linear):
        y = linear(module.out, y)
    return y if mask is None else y * mask[:, :, None].double()


def _plain_scores(module: Any, head: int, q: Tensor, k: Tensor, i: int, keys: list[int]) -> Tensor:
    return (k[keys] * q[i]).sum(-1) / math.sqrt(q.shape[1])


def _rotary_scores(module: Any, head: int, q: Tensor, k: Tensor, i: int, keys: list[int]) -> Tensor:
    """Pairs (x_m, x_{m+M}) as complex numbers: Re(q conj(k) e^{i (i-j) w_m}), and a last number that is not turned."""
    pairs, distance = q.shape[1] // 2, i - torch.tensor(keys, dtype=torch.float64)
    frequencies = torch.tensor([10000 ** (-m / pairs) for m in range(pairs)], dtype=torch.float64)
    query, many = (torch.complex(x[..., :pairs], x[..., pairs : 2 * pairs]) for x in (q[i], k[keys]))
    angles = distance[:, None] * frequencies
    turned = (query * many.conj() * torch.complex(angles.cos(), angles.sin())).real.sum(-1)
    scores: Tensor = (turned + (q[i, 2 * pairs :] * k[keys, 2 * pairs :]).sum(-1)) / math.sqrt(q.shape[1])
    return scores


def _alibi_scores(module: Any, head: int, q: Tensor, k: Tensor, i: int, keys: list[int]) -> Tensor:
    """-m |i - j|, with the slopes of one, two and three heads as numbers."""
    slope = {1: (1 / 256,), 2: (1 / 16, 1 / 256), 3: (1 / 16, 1 / 256, 1 / 4)}[module.heads][head]
    distance = torch.tensor([abs(i - j) for j in keys], dtype=torch.float64)
    return _plain_scores(module, head, q, k, i, keys) - slope * distance


def _relative_scores(module: Any, head: int, q: Tensor, k: Tensor, i: int, keys: list[int]) -> Tensor:
    """((q_i + u) k_j + (q_i + v) W_p p(i-j)) / sqrt(d)."""
    d = q.shape[1]
    weight = module.position.weight.double()[head * d : (head + 1) * d]
    sinusoids = torch.tensor([_sinusoid(i - j, weight.shape[1]) for j in keys], dtype=torch.float64)
    content = (k[keys] * (q[i] + module.u[head].double())).sum(-1)
    position = sinusoids @ weight.T @ (q[i] + module.v[head].double())
    scores: Tensor = (content + position) / math.sqrt(d)
    return scores


@lru_cache(maxsize=1024)
def _sinusoid(offset: int, width: int) -> tuple[float, ...]:
    """p(r): sine and cosine of r / 10000^(2m/D) in turn."""
    angles = (offset / 10000 ** ((c - c % 2) / width) for c in range(width))
    return tuple(math.cos(angle) if c % 2 else math.sin(angle) for c, angle in enumerate(angles))


POSITION_SCORES: dict[str, _Scores] = {"Position": _plain_scores, "Rotary": _rotary_scores, "Alibi": _alibi_scores}


def softmax_mixer(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.SoftmaxAttention`` without dropout, on ``x (B,N,D)``."""
    return _attention_mixer(POSITION_SCORES[type(module.position).__name__], module, x, mask, pair_mask)


def relative_mixer(module: Any, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    """``core.attention.RelativeAttention`` without dropout, on ``x (B,N,D)``."""
    return _attention_mixer(_relative_scores, module, x, mask, pair_mask)


def linear(module: Any, x: Tensor) -> Tensor:
    """x W^T + b."""
    y: Tensor = x @ module.weight.double().T
    if module.bias is not None:
        y = y + module.bias.double()
    return y


def layernorm(module: Any, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(biased variance + eps) * weight + bias."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    root: Tensor = ((centred**2).sum(-1, keepdim=True) / x.shape[-1] + module.eps) ** 0.5
    if module.weight is None:
        return centred / root
    y: Tensor = centred / root * module.weight.double()
    return y if module.bias is None else y + module.bias.double()


def batchnorm(module: Any, x: Tensor) -> Tensor:
    """(x - running mean) / sqrt(running variance + eps) * weight + bias: batch normalisation outside training."""
    root: Tensor = (module.running_var.double() + module.eps) ** 0.5
    y: Tensor = (x - module.running_mean.double()) / root * module.weight.double() + module.bias.double()
    return y


def rmsnorm(module: Any, x: Tensor) -> Tensor:
    """x / sqrt(mean square + eps) * weight."""
    root: Tensor = ((x**2).sum(-1, keepdim=True) / x.shape[-1] + module.eps) ** 0.5
    return x / root if module.weight is None else x / root * module.weight.double()


def crmsnorm(module: Any, x: Tensor) -> Tensor:
    """RMS normalisation of the token with its last channel, minus the sum of the others, without that channel."""
    whole = torch.cat([x, -x.sum(-1, keepdim=True)], dim=-1)
    root: Tensor = ((whole**2).sum(-1, keepdim=True) / whole.shape[-1] + module.eps) ** 0.5
    return x / root if module.weight is None else x / root * module.weight.double()


def groupnorm(module: Any, x: Tensor) -> Tensor:
    """One sequence of ``x (B,N,D)`` (or row of ``(N,D)``) and one group of channels after another."""
    size = module.width // module.groups
    samples = []
    for sample in x:
        groups = []
        for numbers in sample.split(size, dim=-1):
            many = max(1, numbers.numel())
            centred = numbers - numbers.sum() / many
            groups.append(centred / ((centred**2).sum() / many + module.eps) ** 0.5)
        samples.append(torch.cat(groups, dim=-1))
    y: Tensor = torch.stack(samples) if samples else x
    y = y if module.weight is None else y * module.weight.double()
    return y if module.bias is None else y + module.bias.double()


def prepbn(module: Any, x: Tensor) -> Tensor:
    """Outside training: batch normalisation, and the token itself times alpha."""
    y: Tensor = batchnorm(module.batch, x) + module.alpha.double() * x
    return y


def unifiednorm(module: Any, x: Tensor) -> Tensor:
    """Outside training: x / sqrt(running mean square + eps) * weight + bias."""
    y: Tensor = x / (module.running_var.double() + module.eps) ** 0.5 * module.weight.double() + module.bias.double()
    return y


def identity(module: Any, x: Tensor) -> Tensor:
    """x."""
    return x


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


ACTIVATION_ORACLES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "identity": lambda x: x,
    "relu": lambda x: x * (x > 0).double(),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": lambda x: 2 * _sigmoid(2 * x) - 1,
}


NORM_ORACLES: dict[str, TokenOracle] = {
    "batchnorm": batchnorm,
    "crmsnorm": crmsnorm,
    "groupnorm": groupnorm,
    "identity": identity,
    "layernorm": layernorm,
    "prepbn": prepbn,
    "rmsnorm": rmsnorm,
    "unifiednorm": unifiednorm,
}
