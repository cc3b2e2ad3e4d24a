"""ExcelFormer: one token a feature, attention that never lets a weak feature speak to a strong one.

Source: Chen et al., "Can a Deep Learning Model be a Sure Bet for Tabular Prediction?" (KDD 2024, arXiv 2301.02819), and
the released program ``WhatAShot/ExcelFormer``, whose computation the ``official`` settings reproduce number for number.
The columns of ``x (B,N)`` stand in descending order of importance I (mutual information with the target).

    token      z_i = (x_i w_i + b_i) * tanh(x_i w'_i + b'_i)                  w, w', b, b' in R^(N x D)
    attention  query i may read key j  iff  I_j >= I_i                        causal, after the sort
    block      z <- z + SPA(norm(z));  z <- z + value(norm(z)) * tanh(gate(norm(z)))
    head       official: Linear over tokens N -> 1, norm, PReLU, Linear D -> C
               paper:    Linear over tokens N -> C, PReLU, Linear D -> 1 for every class

Query, key, value and feed-forward weights start ``init_scale`` (0.01) times as wide as usual, so that at the start the
model is additive in its features and interactions are learned slowly. The norm before the first attention is absent.

Deviations: the text of the paper leaves ties of importance readable both ways; the program breaks them arbitrarily
(default here), ``ties="mutual"`` follows the text. ``category_embedding`` is an extension: a learned vector for every
category, zero at the start, added to the token of its feature. ``mask`` and the block switches are for ablations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from apps.tabular.prediction.config import ModelConfig
from apps.tabular.prediction.mixing import Mix
from core.errors import InputError
from core.layout import Entry, Request, build, feedforward_options, mixer_options
from core.norm import NORMS, LayerNorm


class FeatureTokenizer(nn.Module):
    """A row of numbers to a token a feature, gated: ``(x w + b) * tanh(x w' + b')``.

    Args:
        n_features: number of columns N.
        width: token width D.
        cardinalities: where given, codes of each column (0 for a number); adds the category embedding, one table for
            all columns. Code 0, an unseen category, adds nothing; neither does a code that the column does not have.

    Shapes: ``x (B,N)`` float, ``codes (B,N)`` int64 -> ``(B,N,D)``.

    >>> FeatureTokenizer(3, 8)(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 8])
    """

    value_weight: nn.Parameter
    value_bias: nn.Parameter
    gate_weight: nn.Parameter
    gate_bias: nn.Parameter
    highest: Tensor
    offset: Tensor

    parameter_roles: ClassVar[dict[str, str]] = {
        "value_weight": "embedding",
        "gate_weight": "embedding",
        "value_bias": "bias",
        "gate_bias": "bias",
    }

    def __init__(self, n_features: int, width: int, cardinalities: Sequence[int] | None = None) -> None:
        super().__init__()
        if n_features < 1:
            raise InputError("a table needs at least one feature", where="FeatureTokenizer")
        bound = 1 / math.sqrt(width)
        for name in ("value_weight", "value_bias", "gate_weight", "gate_bias"):
            parameter = nn.Parameter(torch.empty(n_features, width).uniform_(-bound, bound))
            self.register_parameter(name, parameter)
        self.categories: nn.Embedding | None = None
        if cardinalities is not None:
            self._add_categories(n_features, width, cardinalities)

    def _add_categories(self, n_features: int, width: int, cardinalities: Sequence[int]) -> None:
        if len(cardinalities) != n_features:
            raise InputError(f"{len(cardinalities)} cardinalities for {n_features} features", where="FeatureTokenizer")
        highest = (torch.tensor(list(cardinalities), dtype=torch.int64) - 1).clamp(min=0)
        self.register_buffer("highest", highest, persistent=False)
        self.register_buffer("offset", highest.cumsum(0) - highest, persistent=False)
        # Row 0 stays zero for ever: the unseen category of every column.
        self.categories = nn.Embedding(1 + int(highest.sum()), width, padding_idx=0)
        nn.init.zeros_(self.categories.weight)

    def forward(self, x: Float[Tensor, "B N"], codes: Int[Tensor, "B N"] | None = None) -> Float[Tensor, "B N D"]:
        """Tokens of ``x``, plus the vectors of ``codes`` where there is a category embedding."""
        value = x[:, :, None] * self.value_weight + self.value_bias
        gate = x[:, :, None] * self.gate_weight + self.gate_bias
        tokens = value * torch.tanh(gate)
        if self.categories is None:
            return tokens
        if codes is None:
            raise InputError("a model with a category embedding needs codes", where="ExcelFormer")
        seen = (codes > 0) & (codes <= self.highest)
        vectors: Tensor = self.categories(torch.where(seen, codes + self.offset, 0))
        return tokens + vectors


class OfficialHead(nn.Module):
    """The released program's read-out: tokens to one by learned weights, norm, PReLU, linear. ``(B,N,D) -> (B,C)``."""

    def __init__(self, n_features: int, width: int, n_outputs: int, norm: str) -> None:
        super().__init__()
        self.tokens = nn.Linear(n_features, 1)
        self.norm = NORMS[norm](width)
        self.activation = nn.PReLU()
        self.output = nn.Linear(width, n_outputs)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        """Read the outputs from the tokens."""
        pooled = self.tokens(tokens.transpose(1, 2)).squeeze(-1)
        outputs: Tensor = self.output(self.activation(self.norm(pooled)))
        return outputs


class PaperHead(nn.Module):
    """The paper's read-out: a weighting of tokens for each class, PReLU, one linear for all. ``(B,N,D) -> (B,C)``."""

    def __init__(self, n_features: int, width: int, n_outputs: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(n_features, n_outputs)
        self.activation = nn.PReLU()
        self.output = nn.Linear(width, 1)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B C"]:
        """Read the outputs from the tokens."""
        pooled = self.tokens(tokens.transpose(1, 2)).transpose(1, 2)
        outputs: Tensor = self.output(self.activation(pooled))
        return outputs.squeeze(-1)


class ExcelFormer(nn.Module):
    """The network: tokeniser, blocks, head.

    Args:
        n_features: number of columns N.
        n_outputs: classes C, or 1 for a binary logit or a regression value.
        config: architecture.
        importance: importance of each column, at least 0; equal where absent. Weighs Feat-Mix, and makes the mask with
            ``ties="mutual"``; otherwise the mask is the order of the columns, which should then be that of importance.
        cardinalities: codes of each column (0 for a number); needed with ``config.category_embedding``.

    Raises:
        InputError: for a switch that this model, or this mixer, cannot take.

    >>> model = ExcelFormer(8, 1, ModelConfig())
    >>> sum(p.numel() for p in model.parameters())
    1195787
    >>> model.eval()(torch.randn(5, 8)).shape
    torch.Size([5, 1])
    """

    importance: Tensor
    pair_mask: Tensor | None

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        config: ModelConfig,
        *,
        importance: Sequence[float] | Float[Tensor, " N"] | None = None,
        cardinalities: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        weights = _importance(importance, n_features)
        self.register_buffer("importance", weights, persistent=False)
        self.register_buffer("pair_mask", _pair_mask(weights, config, given=importance is not None), persistent=False)
        if config.category_embedding and cardinalities is None:
            raise InputError("category_embedding needs the cardinalities of the columns", where="ExcelFormer")
        self.tokenizer = FeatureTokenizer(
            n_features, config.width, cardinalities if config.category_embedding else None
        )
        self.stack = build(_layout(config, n_features), config.width)
        self.head: OfficialHead | PaperHead
        if config.head == "official":
            self.head = OfficialHead(n_features, config.width, n_outputs, config.norm)
        else:
            self.head = PaperHead(n_features, config.width, n_outputs)

    def tokens(
        self, x: Float[Tensor, "B N"], codes: Int[Tensor, "B N"] | None = None, *, mix: Mix | None = None
    ) -> Float[Tensor, "B N D"]:
        """Tokens after the last block: what the head reads."""
        if mix is not None and mix.site == "input":
            x = mix(x)
        tokens = self.tokenizer(x, codes)
        if mix is not None and mix.site == "tokens":
            tokens = mix(tokens)
        read: Tensor = self.stack(tokens, pair_mask=self.pair_mask)
        return read

    def streams(self) -> Mapping[str, str | None]:
        """The stack, with what reads its stream at the end and would notice a shift of all channels.

        The weighting of tokens before a layer norm only scales such a shift, and its own bias is one.
        """
        head = self.head
        if isinstance(head, OfficialHead) and isinstance(head.norm, LayerNorm):
            return {"stack": None}
        return {"stack": "the head"}

    def forward(
        self, x: Float[Tensor, "B N"], codes: Int[Tensor, "B N"] | None = None, *, mix: Mix | None = None
    ) -> Float[Tensor, "B C"]:
        """Logits, or the standardised regression value.

        Args:
            x: encoded columns, descending in importance.
            codes: category of each column, 0 unseen or a number; read by the category embedding alone.
            mix: rows to mix with others (training).
        """
        outputs: Tensor = self.head(self.tokens(x, codes, mix=mix))
        return outputs


def _importance(importance: Sequence[float] | Tensor | None, n_features: int) -> Float[Tensor, " N"]:
    if importance is None:
        return torch.ones(n_features)
    weights = torch.as_tensor(importance, dtype=torch.float32).detach().clone()
    if weights.shape != (n_features,):
        raise InputError(f"{len(weights)} importances for {n_features} features", where="ExcelFormer")
    if not bool((weights >= 0).all() & weights.isfinite().all()):
        raise InputError("importances must be finite and at least 0", where="ExcelFormer")
    return weights


def _is_causal(config: ModelConfig) -> bool:
    return config.mask == "semi_permeable" and config.ties == "arbitrary"


def _pair_mask(importance: Float[Tensor, " N"], config: ModelConfig, *, given: bool) -> Bool[Tensor, "N N"] | None:
    """Who may read whom (query, key); ``None`` where the mask is causal or everything may be read."""
    if config.ties == "mutual":
        if config.mask == "full" or not given:
            why = "everything is read already" if config.mask == "full" else "no importance was given"
            raise InputError(f"ties='mutual' has no meaning: {why}", where="model.ties", mend="use 'arbitrary'")
        rank = -importance
    else:
        rank = torch.arange(len(importance))
    if config.mask == "reversed":
        return rank[None, :] >= rank[:, None]
    if config.mask == "semi_permeable" and not _is_causal(config):
        return rank[None, :] <= rank[:, None]
    return None


def _layout(config: ModelConfig, n_features: int) -> tuple[Entry, ...]:
    if config.mask != "full" and config.norm in NORMS and NORMS[config.norm].by_sequence:
        why = f"{config.norm!r} reads every feature of a row, which the mask {config.mask!r} forbids"
        raise InputError(why, where="model.norm", mend="use the mask 'full', or another norm")
    mixer = _mixer_options(config, n_features)
    feedforward = _feedforward_options(config)
    entries: list[Entry] = []
    for block in range(config.layers):
        # The tokeniser's output goes raw into the first attention, as in FT-Transformer.
        first = "identity" if block == 0 and config.placement == "pre" else config.norm
        shared: dict[str, Any] = {"placement": config.placement, "drop": config.residual_dropout}
        entries.append(Entry("mixer", config.mixer, mixer, norm=first, **shared))
        entries.append(Entry("feedforward", config.feedforward, feedforward, norm=config.norm, **shared))
    return tuple(entries)


def _mixer_options(config: ModelConfig, n_features: int) -> dict[str, Any]:
    causal = _is_causal(config)
    request = Request(causal=causal, pairwise=not causal and config.mask != "full")
    offered = {
        "heads": config.heads,
        "dropout": config.attention_dropout,
        "init_scale": config.init_scale,
        "project": config.heads > 1,
        "tokens": n_features,
    }
    return mixer_options(config.mixer, request, offered, host=f"the mask {config.mask!r}")


def _feedforward_options(config: ModelConfig) -> dict[str, Any]:
    """``glu``, ``mlp`` and ``activator`` hold 2 D^2 weights, each expert as many."""
    if config.feedforward == "glu":
        gated = {"activation": "tanh", "project": False, "init_scale": config.init_scale}
        return {"hidden": config.width, **gated}
    return feedforward_options(config.feedforward, config.width, {"activation": "gelu"})
