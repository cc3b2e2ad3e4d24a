"""The command line of a verb: its own arguments, and a config in layers: preset, then file, then fields.

Both are dataclasses; tyro makes the parser and the help from them, the docstring under a field being its help. Errors
are one line with the nearest name, like all others.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from core.command.config import field_paths, read_config
from core.errors import InputError, nearest

A = TypeVar("A")
C = TypeVar("C")
_STYLE = (
    tyro.conf.AvoidSubcommands,
    tyro.conf.HelptextFromCommentsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)
_DEBUG = "Add --debug to see the traceback of an error."


@dataclass(frozen=True, kw_only=True)
class Parsed(Generic[C, A]):
    """What a command line says."""

    config: C
    """The resolved config."""
    preset: str
    """The name of the preset it began with."""
    arguments: A
    """The verb's own arguments."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What every ``train`` takes besides its data and its config."""

    out: Path
    """Folder of the run."""
    max_minutes: float | None = None
    """Wall minutes of this call; what was learned until then is the model."""
    budget_minutes: float | None = None
    """Train as many epochs as so many wall minutes allow, so that the schedule comes to its end. The number is decided
    once, when the run begins, and written into its config."""
    progress: Literal["auto", "bar", "plain", "off"] = "auto"
    """How progress is shown."""
    devices: int | None = None
    """Processes on this machine that train together, each on a GPU of its own where there are any; one unless given.
    Under torchrun it says how many they are."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes divide the work: ddp keeps the whole model in each, fsdp divides it among them."""

    def __post_init__(self) -> None:
        if self.devices is not None and self.devices < 1:
            raise InputError(f"{self.devices} is not a number of processes", where="--devices")
        for name, minutes in (("--max-minutes", self.max_minutes), ("--budget-minutes", self.budget_minutes)):
            if minutes is not None and not minutes > 0:
                raise InputError(f"{minutes:g} minutes leave no time", where=name)


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """What every ``evaluate`` takes."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    data: str | None = None
    """As for train; the data that the run was trained on unless given."""
    split: str = "test"
    """Split to score: train, valid or test."""
    json: Path | None = None
    """Also write the scores to this file."""
    report: Path | None = None
    """Also write a page with pictures into this folder."""


def parse_arguments(arguments: type[A], argv: Sequence[str], *, prog: str) -> A:
    """Reads ``argv`` into the dataclass ``arguments``; ``--help`` prints the help and leaves with status 0.

    Raises:
        InputError: an unknown option, a missing or wrong value.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Predict:
    ...     run: tyro.conf.Positional[str]
    ...     batch: int = 64
    >>> parse_arguments(Predict, ["runs/a", "--batch", "8"], prog="predict")
    Predict(run='runs/a', batch=8)
    """
    _refuse_unknown(argv, _flags(arguments), prog)
    parsed: A = _tyro(arguments, argv, prog, " ".join((arguments.__doc__ or "").split()))
    return parsed


def parse_config(
    config: type[C],
    presets: Mapping[str, Callable[[], C]],
    argv: Sequence[str],
    *,
    arguments: type[A],
    prog: str,
) -> Parsed[C, A]:
    """Reads a config in layers, and the verb's own ``arguments``, from one command line.

    ``--preset NAME`` (the first of ``presets`` unless given) makes the config, ``--config FILE`` lays a YAML file over
    it, and the fields of the config are options: ``--model.width 64``.

    Raises:
        InputError: an unknown preset, option or field, a missing or wrong value.
    """
    flags = [*_flags(arguments), *_flags(config), "--preset", "--config"]
    _refuse_unknown(argv, flags, prog)
    name, file = _layers(argv, presets)
    base = from_preset(presets, name)
    if file is not None:
        base = read_config(config, file, base=base)
    line = _line_type(arguments, config, base, tuple(presets))
    parsed = _tyro(line, argv, prog, " ".join((arguments.__doc__ or "").split()))
    return Parsed(config=parsed.settings, preset=name, arguments=parsed.arguments)


def from_preset(presets: Mapping[str, Callable[[], C]], name: str) -> C:
    """The config that a preset gives.

    Raises:
        InputError: there is no preset of this name.
    """
    if name not in presets:
        raise InputError(f"{name!r} is not a preset", where="--preset", mend=nearest(name, [*presets]))
    return presets[name]()


def _layers(argv: Sequence[str], presets: Mapping[str, Any]) -> tuple[str, str | None]:
    """The preset and the file, which are needed before the defaults of the fields are known."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default=next(iter(presets)))
    parser.add_argument("--config")
    try:
        found, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise InputError(error.message, where=error.argument_name) from error
    return found.preset, found.config


def _line_type(arguments: type[Any], config: type[Any], base: Any, presets: tuple[str, ...]) -> type[Any]:
    """One dataclass of the whole line; an empty name takes the level out of the options' names."""
    bare = tyro.conf.arg(name="")
    names = Annotated[Literal[presets], tyro.conf.arg(help="Settings to begin with.")]  # type: ignore[valid-type]
    file = Annotated[str | None, tyro.conf.arg(help="YAML file laid over the preset.", metavar="FILE")]
    return dataclasses.make_dataclass(
        "Line",
        [
            ("arguments", Annotated[arguments, bare]),
            ("preset", names, presets[0]),
            ("config", file, None),
            ("settings", Annotated[config, bare], dataclasses.field(default=base)),
        ],
        kw_only=True,
    )


def _flags(cls: type[Any]) -> list[str]:
    """The options of a dataclass. A field may have another name (``pass`` cannot be one); the empty name is that of a
    group whose fields are options of the level above."""
    named: dict[str, str] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        for note in getattr(hint, "__metadata__", ()):
            given = getattr(note, "name", None)
            named[name] = name if given is None else given
    flags = []
    for path in field_paths(cls):
        first, _, rest = path.partition(".")
        parts = [part for part in (named.get(first, first), rest) if part]
        flags += ["--" + ".".join(parts).replace("_", "-")] if parts else []
    return flags


def _refuse_unknown(argv: Sequence[str], flags: Sequence[str], prog: str) -> None:
    known = {*flags, "--help", "--"}
    for token in argv:
        name = token.partition("=")[0].replace("_", "-")
        stem, _, last = name.rpartition(".")
        positive = f"{stem}.{last.removeprefix('no-')}" if stem else "--" + name.removeprefix("--no-")
        if token.startswith("--") and name not in known and positive not in known:
            close = nearest(name, sorted(known - {"--"}))
            mend = close if "mean" in close else f"{prog} --help lists the options"
            raise InputError("is not an option", where=token.partition("=")[0], mend=mend)


def _tyro(cls: Any, argv: Sequence[str], prog: str, description: str) -> Any:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                cls,
                args=list(argv),
                prog=prog,
                description=f"{description} {_DEBUG}",
                config=_STYLE,
            )
    except SystemExit as end:
        if not end.code:
            raise
        sentence = _sentence(errors.getvalue())
        # A record that refused its own values has said all there is to say.
        own = re.match(r"error parsing [a-z_]\S*: (.*)", sentence)
        raise InputError(own[1] if own else sentence, mend=None if own else f"see {prog} --help") from None


def _sentence(box: str) -> str:
    """What a framed error of tyro says: the lines between its title and the next rule, drawn in ASCII or Unicode."""
    parts = re.split(r"^(?:\s*╭.*|[\s│├╰]*[-─]{8,}[\s│┤╯]*)$", box, flags=re.MULTILINE)
    text = " ".join((parts[1] if len(parts) > 1 else box).replace("│", " ").split())
    return text[:1].lower() + text[1:].rstrip(".")
