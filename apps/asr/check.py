"""``manyformer asr check``: everything wrong with a corpus, before any training.

Exit status 0 when nothing stands in the way of training (warnings and notes may remain), 2 when there are errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from apps.asr.config import AsrConfig
from apps.asr.data.findings import Finding, Limits, condense, from_error, inspect
from apps.asr.data.sources import DEFAULT_DATA, Corpus, load_corpus
from apps.asr.features import LogMel
from apps.asr.presets import PRESETS
from apps.asr.subsampling import subsampled_length
from apps.asr.tokenizer import Tokenizer, fit_tokenizer
from core.command import parse_config, run, say, to_json
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Report everything wrong with recordings and transcripts: file, line, reason, and how to mend it. Preset and
    settings are those of train, since it depends on them what can be learned."""

    data: str = DEFAULT_DATA
    """As for train."""
    all: bool = False
    """Show every finding; otherwise three of each kind, and how many more there are."""
    json: bool = False
    """Write one JSON object, with every finding."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found; ``corpus`` is there if the data could be read at all."""

    findings: tuple[Finding, ...]
    corpus: Corpus | None

    @property
    def ok(self) -> bool:
        """Nothing stands in the way of training."""
        return self.count("error") == 0

    def count(self, severity: str) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        splits = {} if self.corpus is None else self.corpus.splits
        return {
            "ok": self.ok,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "utterances": {name: len(utterances) for name, utterances in splits.items()},
            "findings": list(self.findings),
        }


def check(data: str, config: AsrConfig) -> CheckResult:
    """Look at a corpus as a training with this config would; raises nothing of its own."""
    try:
        corpus = load_corpus(data, seed=config.seed, on_bad="skip")
    except InputError as error:
        return CheckResult((from_error(error),), None)
    features = LogMel(config.features)

    def output_lengths(samples: int) -> int:
        return int(subsampled_length(torch.tensor([features.frames(samples)]))[0])

    limits = Limits(
        longest=config.longest,
        pad_seconds=config.pad_seconds,
        fastest=max(1.0, *config.augment.speeds),
        output_lengths=output_lengths,
    )
    tokenizer, found = _tokenizer(corpus, config)
    return CheckResult((*found, *inspect(corpus, tokenizer, limits)), corpus)


def _tokenizer(corpus: Corpus, config: AsrConfig) -> tuple[Tokenizer | None, list[Finding]]:
    texts = [utterance.text for utterance in corpus.splits.get("train", ()) if utterance.text]
    try:
        return fit_tokenizer(config.tokenizer, texts), []
    except InputError as error:
        return None, [dataclasses.replace(from_error(error, "tokenizer"), split="train")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> int:
    parsed = parse_config(AsrConfig, PRESETS, argv, arguments=Arguments, prog="manyformer asr check")
    arguments = parsed.arguments
    result = check(arguments.data, parsed.config)
    if arguments.json:
        say(to_json({"data": arguments.data, **result.to_dict()}))
        return 0 if result.ok else 2
    for finding in result.findings if arguments.all else condense(result.findings):
        say(str(finding))
    if result.corpus is not None:
        say(str(result.corpus))
    counts = {word: result.count(word) for word in ("error", "warning", "note")}
    say(", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items()))
    return 0 if result.ok else 2


if __name__ == "__main__":
    raise SystemExit(main())
