"""``manyformer segmentation check``: everything wrong with labels and images, and how far target and source are apart.

Exit status 0 when nothing stands in the way of training (warnings and notes may remain), 2 when there are errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.vision.segmentation.data.findings import Progress, inspect
from apps.vision.segmentation.data.gap import Gap
from apps.vision.segmentation.data.items import Domain
from apps.vision.segmentation.data.sources import Source, open_domains
from core import command
from core.command import counted, from_error, parse_arguments, run, tell
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arguments(Source, command.CheckArguments):
    """Report everything wrong with images and labels before training (file, reason, how to mend it), and how far the
    target is from the source. Labels of the target are looked at for this report, never for training."""

    most: int | None = None
    """Look at so many images of each split, evenly spaced, where a set is large; at all of them unless given."""


@dataclass(frozen=True)
class CheckResult(command.CheckResult):
    """What a check found; domains and gap are there as far as the data could be read."""

    source: Domain | None
    target: Domain | None
    gap: Gap | None

    def facts(self) -> Mapping[str, Any]:
        """Images of each split of both domains, classes, and the gap."""
        domains = {"source": self.source, "target": self.target}
        return {
            "synthetic": {name: domain.synthetic for name, domain in domains.items() if domain},
            "classes": list(self.source.classes.names) if self.source and self.source.classes else None,
            "images": {name: _counts(domain) for name, domain in domains.items() if domain},
            "gap": None if self.gap is None else self.gap.to_dict(),
        }

    def summary(self) -> str | None:
        """Both domains, and the gap between them."""
        if self.source is None or self.target is None:
            return None
        told = [f"source {_told(self.source)}", f"target {_told(self.target)}"]
        return "\n".join([*told, *([] if self.gap is None else self.gap.lines())])


def check(source: Source, *, most: int | None = None, progress: Progress | None = None) -> CheckResult:
    """Look at a source and a target; raises nothing of its own.

    Args:
        source: which data.
        most: of each split, so many images evenly spaced; all where it is not given.
        progress: called with (images looked at, all images).
    """
    try:
        own, other = open_domains(source)
    except InputError as error:
        return CheckResult((from_error(error),), None, None, None)
    found = inspect(own, other, most=most, progress=progress)
    return CheckResult(found.findings, own, other, found.gap)


def _counts(domain: Domain) -> dict[str, dict[str, int]]:
    return {
        split: {"images": len(items), "labelled": len(domain.labelled(split))} for split, items in domain.splits.items()
    }


def _told(domain: Domain) -> str:
    counts = ", ".join(f"{of['images']} {split} ({of['labelled']} labelled)" for split, of in _counts(domain).items())
    return f"{domain.name}{' (synthetic)' if domain.synthetic else ''}: {counts or 'no images'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> int:
    arguments = parse_arguments(Arguments, argv, prog="manyformer segmentation check")
    if arguments.most is not None and arguments.most < 1:
        raise InputError(f"{arguments.most} is not a number of images", where="--most")
    with counted("looking", shown=not arguments.json) as told:
        result = check(arguments, most=arguments.most, progress=told)
    return tell(result, arguments.name, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
