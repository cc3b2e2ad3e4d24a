"""Which parameter is treated how: by its role, never by its number of axes alone.

An embedding table and an output head are matrices too, yet want other rules than a hidden weight, and no library
notices when they get the wrong one. So every trainable parameter is given exactly one role:

==========  =============================================  ===============
role        what it is                                     decay
==========  =============================================  ===============
matrix      hidden linear and convolution weights          the caller's
embedding   tables looked up by position or code           0
head        the map to outputs                             the caller's
bias        additive vectors                               0
norm        parameters of normalisation layers             0
gain        scalar gates, layer scales, temperatures       0
==========  =============================================  ===============

A later decision wins: the type of the module that owns the parameter; that module's class attribute ``parameter_roles``
(parameter name -> role); the caller's ordered rules, ``(pattern, role)`` with :mod:`fnmatch` patterns on the full
parameter name, of which the first match counts. What none of them places is refused, by name. A tied parameter is
listed once, under its first name; rules may match any of its names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from core.errors import InputError, nearest

ROLES = ("matrix", "embedding", "head", "bias", "norm", "gain")
DECAYED = ("matrix", "head")

Rules = Sequence[tuple[str, str]]

_MATRIX_TYPES = (nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_TABLE_TYPES = (nn.Embedding, nn.EmbeddingBag)
_NORM_TYPES = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,  # every batch and instance norm
)


@dataclass(frozen=True)
class Routed:
    """One trainable parameter and its role."""

    name: str
    parameter: nn.Parameter
    role: str


@dataclass(frozen=True)
class Routing:
    """Every trainable parameter of a model, once, in the model's order."""

    entries: tuple[Routed, ...]

    def groups(
        self,
        lr: float,
        weight_decay: float = 0.0,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        kind: str = "adamw",
        **hyper: Any,
    ) -> list[dict[str, Any]]:
        """Groups for :class:`core.optim.Optimizer`: one for each role that occurs, in the order of :data:`ROLES`.

        Args:
            lr: peak learning rate of every group.
            weight_decay: of matrices and heads; the other roles get 0.
            overrides: role -> hyper-parameters (or ``kind``) that differ there.
            kind: the update rule.
            hyper: further hyper-parameters of that rule.

        Raises:
            InputError: an override for a role that does not exist.

        >>> groups = route(nn.Linear(2, 3)).groups(0.5, 0.1, {"bias": {"lr": 1.0}})
        >>> [(group["name"], group["lr"], group["weight_decay"]) for group in groups]
        [('matrix', 0.5, 0.1), ('bias', 1.0, 0.0)]
        """
        overrides = overrides or {}
        for role in overrides:
            _check_role(role, "overrides")
        groups = []
        for role in ROLES:
            parameters = [entry.parameter for entry in self.entries if entry.role == role]
            if parameters:
                decay = weight_decay if role in DECAYED else 0.0
                common = {"kind": kind, "lr": lr, "weight_decay": decay, **hyper}
                groups.append({"name": role, "params": parameters, **common, **overrides.get(role, {})})
        return groups

    def report(self, groups: Sequence[Mapping[str, Any]] = ()) -> str:
        """An aligned table of name, shape and role; with ``groups`` also kind, learning rate and decay.

        ``groups`` are :meth:`groups`, or the ``param_groups`` of the optimiser made from them.
        """
        of = {id(parameter): group for group in groups for parameter in group["params"]}
        rows: list[tuple[str, ...]] = [("name", "shape", "role", *(("kind", "lr", "decay") if groups else ()))]
        for entry in self.entries:
            shape = "x".join(map(str, entry.parameter.shape)) or "scalar"
            row: tuple[str, ...] = (entry.name, shape, entry.role)
            if groups:
                group = of[id(entry.parameter)]
                row = (*row, group["kind"], f"{group['lr']:g}", f"{group.get('weight_decay', 0):g}")
            rows.append(row)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def __str__(self) -> str:
        return self.report()


def route(model: nn.Module, rules: Rules = ()) -> Routing:
    """Give every trainable parameter of ``model`` its role.

    Args:
        model: parameters with ``requires_grad=False`` are left out.
        rules: ``(pattern, role)`` pairs, first match wins over everything else.

    Raises:
        InputError: an unknown role, a rule that matches nothing, or a parameter that nothing places.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    >>> routing = route(model, rules=[("2.weight", "head")])
    >>> print(routing.report(routing.groups(0.001, 0.01)))
    name      shape  role    kind   lr     decay
    0.weight  3x2    matrix  adamw  0.001  0.01
    0.bias    3      bias    adamw  0.001  0
    1.weight  3      norm    adamw  0.001  0
    1.bias    3      norm    adamw  0.001  0
    2.weight  1x3    head    adamw  0.001  0.01
    2.bias    1      bias    adamw  0.001  0
    """
    for pattern, role in rules:
        _check_role(role, f"rule {pattern!r}")
    names = _names(model)
    _check_rules(rules, [name for _, aliases in names.values() for name, _ in aliases])
    return Routing(
        tuple(Routed(aliases[0][0], parameter, _role(aliases, rules)) for parameter, aliases in names.values())
    )


_Aliases = list[tuple[str, nn.Module]]


def _names(model: nn.Module) -> dict[int, tuple[nn.Parameter, _Aliases]]:
    """Each trainable parameter with all its full names and the modules that own it under them."""
    found: dict[int, tuple[nn.Parameter, _Aliases]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                full = f"{prefix}.{name}" if prefix else name
                found.setdefault(id(parameter), (parameter, []))[1].append((full, module))
    return found


def _role(aliases: _Aliases, rules: Rules) -> str:
    for pattern, role in rules:
        if any(fnmatchcase(name, pattern) for name, _ in aliases):
            return role
    for decide in (_declared_role, _type_role):
        for name, module in aliases:
            found = decide(name.rpartition(".")[2], module)
            if found is not None:
                return found
    name, module = aliases[0]
    raise InputError(
        f"parameter {name!r} of {type(module).__name__} has no role",
        mend="give a rule (pattern, role), or declare parameter_roles in its class",
    )


def _declared_role(name: str, module: nn.Module) -> str | None:
    roles: Mapping[str, str] = getattr(type(module), "parameter_roles", {})
    role = roles.get(name)
    if role is not None:
        _check_role(role, f"{type(module).__name__}.parameter_roles")
    return role


def _type_role(name: str, module: nn.Module) -> str | None:
    if isinstance(module, _NORM_TYPES):
        return "norm"
    if isinstance(module, _TABLE_TYPES):
        return "embedding"
    if isinstance(module, nn.PReLU):
        return "gain"
    if name == "bias" or name.endswith("_bias"):
        return "bias"
    if isinstance(module, _MATRIX_TYPES):
        return "matrix"
    return None


def _check_role(role: str, where: str) -> None:
    if role not in ROLES:
        raise InputError(f"no role {role!r}", where=where, mend=nearest(role, list(ROLES)))


def _check_rules(rules: Rules, names: Sequence[str]) -> None:
    for pattern, _ in rules:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"the pattern {pattern!r} matches no trainable parameter", where="rules")
