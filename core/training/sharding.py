"""Weights divided among processes: the only file that knows FSDP2 (``torch.distributed.fsdp.fully_shard``).

Every process holds its part of each weight, of its gradient and of the optimiser's state; before a unit of the model
computes, its weights are gathered, and let go afterwards. A unit is an element of an outermost ``ModuleList``, such as
a sublayer of :class:`core.layout.stack.Stack`; what is in none of them is the last unit, the model itself.

A model that was divided cannot be put together again, so a copy of it is, and trained; when training ends the model
that the caller knows gets the weights. A divided tensor is torch's ``DTensor``, divided along its first axis.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.clock import stepped
from core.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from core.training.run import Run


def own(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, where it is not divided; the same memory."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def whole(tensor: Tensor) -> Tensor:
    """A divided tensor put together, which all processes must ask for; any other as it is."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered


def gathered(tree: Any, *, keep: bool) -> Any:
    """Nested dicts with every divided tensor put together, on the processor.

    Args:
        tree: equal in form in all processes.
        keep: False for a process that only goes along, which gets None for those tensors.
    """
    if isinstance(tree, Mapping):
        return {name: gathered(value, keep=keep) for name, value in tree.items()}
    if not hasattr(tree, "full_tensor"):
        return tree
    put_together = whole(tree)
    return put_together.cpu() if keep else None


def divided(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a value that every process has, divided as ``like`` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def parallelize(model: nn.Module, mesh: DeviceMesh, entries: Iterable[str] = ()) -> nn.Module:
    """Divide the model's parameters among the processes of ``mesh``, in place.

    Args:
        model: that is called, or by one of ``entries``.
        mesh: of the processes.
        entries: names of methods before which weights are gathered too, as before a call.

    Raises:
        InputError: a parameter is a single number without an axis.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise InputError(f"the parameter {name} has no axis to divide", where="fsdp", mend="use --strategy ddp")
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    # Also the last unit lets go of its weights after each forward: between steps all weights are the divided ones.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for entry in entries:
        register_fsdp_forward_method(model, entry)
    return model


def _units(model: nn.Module) -> Iterator[nn.Module]:
    """Elements of the outermost lists of modules, each once, that have parameters of their own."""
    seen: set[int] = set()
    for child in model.children():
        found = child if isinstance(child, nn.ModuleList) else _units(child)
        for unit in found:
            if id(unit) not in seen and any(True for _ in unit.parameters()):
                seen.add(id(unit))
                yield unit


class Sharded:
    """Divides what a run trains: a copy of the model, and with it the optimiser, the average and the best weights.

    Args:
        run: changed in place; the state it was resumed with is divided too.
        mesh: of the processes.
    """

    def __init__(self, run: Run, mesh: DeviceMesh) -> None:
        self._run, self._model = run, run.task.model
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        copied = parallelize(copy.deepcopy(self._model), mesh, run.task.entries)
        run.task.model, run.stepped = copied, stepped(copied)
        parts = dict(copied.named_parameters())
        self._parameters = {part: parameter for parameter, part in _rebind(run.optimizer, names, parts)}
        if run.average is not None:
            run.average.follow(copied, divided)
        if run.best_weights is not None:
            places = copied.state_dict()
            run.best_weights = {name: divided(value, places[name]) for name, value in run.best_weights.items()}

    @torch.no_grad()
    def end(self) -> None:
        """Give the weights to the model that the caller knows, in every process, and the optimiser to that model.

        The optimiser's state is let go: it would be another two copies of the weights in each process.
        """
        run = self._run
        self._model.load_state_dict({name: whole(value) for name, value in run.task.model.state_dict().items()})
        run.task.model = self._model
        for group in run.optimizer.param_groups:
            group["params"] = [self._parameters[part] for part in group["params"]]
        run.optimizer.state = defaultdict(dict)


def _rebind(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], parts: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Let the optimiser step the divided parameters, with its state divided alike; pairs of old and new."""
    state: defaultdict[Any, Any] = defaultdict(dict)
    pairs = []
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            part = parts[names[id(parameter)]]
            for key, value in optimizer.state.get(parameter, {}).items():
                is_like = isinstance(value, Tensor) and value.shape == parameter.shape
                state[part][key] = divided(value, part) if is_like else value
            group["params"][place] = part
            pairs.append((parameter, part))
    optimizer.state = state
    return pairs
