"""Layer norms become RMS norms, then the stream loses a channel: the same function (Jiang et al., arXiv 2305.14858).

A layer norm does not see the mean of a token's channels. In a pre-norm stack nothing else need see it, and where
everything that writes to the stream has mean zero, layer norm and RMS norm are one. Converting, from the sublayer on
from which all can be converted:

    weight and bias of the layer norms      into the maps that read them (:mod:`core.rewrite.fold`)
    what comes in                           centred, by an explicit step
    W, b of the maps that write             W - mean over outputs, b - mean                     ``rmsnorm``
    the last of D channels                  dropped, being minus the sum of the others          ``crmsnorm``
        maps that write                     W[:-1], b[:-1]
        maps that read                      W[:, :-1] - W[:, -1:]
        RMS norm                            CRMS norm: mean squares of all D, of which D - 1 are stored
    at the end of the stack                 the last channel restored

Whether what comes after the stack sees the mean only the model knows: :class:`NamesStreams`. Sublayers before the first
that can be converted stay as they are. Dropout of what a sublayer adds drops single channels, and so does not keep the
mean at zero: with it the model is the same in evaluation only. The eps of the norms stays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from core.attention import Mixer
from core.errors import InputError
from core.feedforward import FeedForward
from core.layout import Entry, Residual, Stack
from core.layout.recode import Centre, Compress, Restore
from core.norm import CRMSNorm, Identity, LayerNorm, Norm, RMSNorm
from core.rewrite.base import Evidence, ModuleT, NoOptions, Pass, Status
from core.rewrite.decisions import block_at, part, whole
from core.rewrite.fold import assign_, exclusive_readers, fold_norm_, fold_scale_, reads, writes
from core.rewrite.stacks import relabelled


@runtime_checkable
class NamesStreams(Protocol):
    """A model that says who reads what its stacks return."""

    def streams(self) -> Mapping[str, str | None]:
        """The paths of its stacks, each with what reads the stream at its end and would notice a shift of all channels.

        None where a shift that is common to all channels of a token changes nothing: layer norms alone read it.
        """
        ...


@dataclass(frozen=True)
class Obstacle:
    """Why a sublayer, or a stack, cannot be converted, and how to mend it."""

    why: str
    mend: str | None = None


class ToRMSNorm(Pass[NoOptions]):
    """Layer norms of pre-norm stacks become RMS norms of a centred stream."""

    name = "rmsnorm"
    status = "exact"
    line = "layer norms of a pre-norm model become RMS norms, everything that writes to the stream being centred"
    source = "Jiang et al., arXiv 2305.14858"
    options = NoOptions
    compresses: ClassVar[bool] = False

    def decide(self, model: nn.Module, options: NoOptions, evidence: Evidence) -> dict[str, Any]:
        """The stacks to convert, each with its first position; why the others stay; whether dropout drops channels."""
        stacks: dict[str, int] = {}
        left: dict[str, Obstacle] = {}
        for path, reader in _streams(model, self.name).items():
            stack = block_at(model, path, Stack, "stack")
            first = Obstacle(f"{reader} reads its stream") if reader else self._first(model, stack)
            if isinstance(first, Obstacle):
                left[path] = first
                continue
            if self.compresses and _is_uncentred(stack, first):
                left[path] = Obstacle("what writes to its stream is no longer centred", "convert before training on")
                continue
            stacks[path] = first
        if not stacks:
            why = "; ".join(f"{path}: {each.why}" for path, each in left.items()) or "the model has no stack"
            raise InputError(why, where=self.name, mend=next((o.mend for o in left.values() if o.mend), None))
        drops = any(each.drop.p > 0 for path, first in stacks.items() for each in _sublayers(model, path, first))
        return {"stacks": stacks, "left": {path: each.why for path, each in left.items()}, "drops": drops}

    def apply(self, model: ModuleT, decision: Mapping[str, Any], evidence: Evidence | None = None) -> ModuleT:
        """The converted model."""
        converted = copy.deepcopy(model)
        for path, first in part(decision, "stacks", dict, self.name).items():
            stack = block_at(converted, path, Stack, "stack")
            possible = self._first(converted, stack)
            if isinstance(possible, Obstacle):
                raise InputError(possible.why, where=str(path), mend=possible.mend)
            whole(first, possible, len(stack.order) - 1, self.name)
            self._convert(stack, first)
        relabelled(converted)
        return converted

    def statuses(self, decision: Mapping[str, Any]) -> Status:
        """Exact in evaluation only where dropout drops single channels of what is added."""
        return "exact in evaluation" if decision.get("drops") else "exact"

    def _first(self, model: nn.Module, stack: Stack) -> int | Obstacle:
        """The position from which a stack can be converted."""
        if len(stack.recodings):
            return Obstacle("is converted already")
        return first_convertible(model, stack)

    def _convert(self, stack: Stack, first: int) -> None:
        centre_(stack, first)


class ToCRMSNorm(ToRMSNorm):
    """The stream of a model with RMS norms, or layer norms that become them, loses its last channel."""

    name = "crmsnorm"
    line = "the residual stream of a pre-norm model loses the channel that the others imply, once all are centred"
    compresses = True

    def _first(self, model: nn.Module, stack: Stack) -> int | Obstacle:
        centred = [int(key) for key, step in stack.recodings.items() if isinstance(step, Centre)]
        return centred[0] if centred else super()._first(model, stack)

    def _convert(self, stack: Stack, first: int) -> None:
        if not len(stack.recodings):
            centre_(stack, first)
        compress_(stack, first)


def _streams(model: nn.Module, where: str) -> Mapping[str, str | None]:
    if not isinstance(model, NamesStreams):
        mend = "give it a method streams(): path of each stack -> None, or what reads its end besides layer norms"
        raise InputError(f"{type(model).__name__} does not say what reads its streams", where=where, mend=mend)
    return model.streams()


def _sublayers(model: nn.Module, path: str, first: int) -> list[Residual]:
    return converted_sublayers(block_at(model, path, Stack, "stack"), first)


def converted_sublayers(stack: Stack, first: int) -> list[Residual]:
    """The sublayers applied from a position on, each once."""
    chosen = [stack.sublayers[index] for index in dict.fromkeys(stack.order[first:])]
    return [each for each in chosen if isinstance(each, Residual)]


def first_convertible(model: nn.Module, stack: Stack) -> int | Obstacle:
    """The first position from which on all sublayers can be converted; where there is none, what is in the way."""
    exclusive = {id(sublayer) for sublayer in exclusive_readers(model).values()}
    first, found = 0, Obstacle("it has no sublayer")
    for position, index in enumerate(stack.order):
        sublayer = stack.sublayers[index]
        assert isinstance(sublayer, Residual)
        entry = stack.entries[index]
        obstacle = _obstacle(entry, sublayer, id(sublayer) in exclusive)
        if obstacle is None and index in stack.order[:first]:
            obstacle = Obstacle("is applied to what is not centred, too")
        if obstacle is not None:
            name = f"sublayer {index} ({entry.kind} {entry.name})"
            first, found = position + 1, Obstacle(f"{name} {obstacle.why}", obstacle.mend)
    return first if first < len(stack.order) else found


def _obstacle(entry: Entry, sublayer: Residual, exclusive: bool) -> Obstacle | None:
    """Why the mean of the stream cannot be dropped around a sublayer."""
    block = type(sublayer.block).__name__
    if sublayer.placement != "pre":
        return Obstacle(f"has the placement {sublayer.placement!r}", "use the placement 'pre'")
    norm = sublayer.norms[0]
    if not isinstance(norm, LayerNorm):
        said = "has no norm" if isinstance(norm, Identity) else f"has a {type(norm).__name__}"
        return Obstacle(f"{said}, and reads the mean", "use the norm 'layernorm'")
    if not writes(sublayer.block):
        fits = "'mlp'" if entry.kind == "feedforward" else "'softmax' with a projection"
        return Obstacle(f"writes by no linear map: {block} ends in none", f"use a {entry.kind} that does, as {fits}")
    if not reads(sublayer.block):
        return Obstacle(f"reads its input by more than linear maps: {block}")
    return None if exclusive else Obstacle("has a block that serves another sublayer, too", "share the norms as well")


def _is_uncentred(stack: Stack, first: int) -> bool:
    """Whether a stack that was centred is so no longer, beyond rounding."""
    if not len(stack.recodings):
        return False
    for sublayer in converted_sublayers(stack, first):
        for linear in writes(sublayer.block):
            for tensor in (linear.weight, linear.bias):
                if tensor is not None and tensor.numel():
                    values = tensor.detach().double()
                    if values.mean(0).abs().max() > torch.finfo(tensor.dtype).eps * values.abs().max():
                        return True
    return False


def centre_(stack: Stack, first: int) -> None:
    """Layer norms to RMS norms, in place."""
    for sublayer in converted_sublayers(stack, first):
        fold_scale_(sublayer)
        fold_norm_(sublayer)
        for linear in writes(sublayer.block):
            weight, bias = linear.weight.detach().double(), linear.bias
            shift = None if bias is None else bias.detach().double()
            assign_(linear, weight - weight.mean(0), None if shift is None else shift - shift.mean())
        _renorm_(sublayer, RMSNorm, 0)
    stack.recode(first, Centre().train(stack.training))


def compress_(stack: Stack, first: int) -> None:
    """Drop the last channel of a centred stack, in place."""
    for sublayer in converted_sublayers(stack, first):
        block = sublayer.block
        for linear in reads(block):
            weight = linear.weight.detach().double()
            assign_(linear, weight[:, :-1] - weight[:, -1:], None)
        for linear in writes(block):
            bias = None if linear.bias is None else linear.bias.detach()[:-1]
            assign_(linear, linear.weight.detach()[:-1], bias)
        for module in block.modules():
            if isinstance(module, Mixer | FeedForward):
                module.width -= 1
        _renorm_(sublayer, CRMSNorm, 1)
    stack.recode(first, Compress().train(stack.training))
    stack.recode(len(stack.order), Restore().train(stack.training))


def _renorm_(sublayer: Residual, kind: type[RMSNorm | CRMSNorm], fewer: int) -> None:
    old = sublayer.norms[0]
    assert isinstance(old, Norm)
    new = kind(old.width - fewer, eps=old.eps, affine=False).train(sublayer.training)
    if isinstance(new, RMSNorm):
        new.centred = True
    sublayer.norms[0] = new
