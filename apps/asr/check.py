"""``manyformer asr check``: everything wrong with a corpus, before any training.

Exit status 0 when nothing stands in the way of training (warnings and notes may remain), 2 when there are errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.asr.config import AsrConfig
from apps.asr.data.audio import Progress
from apps.asr.data.findings import inspect
from apps.asr.data.sources import DEFAULT_DATA, Corpus, load_corpus
from apps.asr.fitting import limits_of
from apps.asr.presets import PRESETS
from apps.asr.tokenizer import Tokenizer, fit_tokenizer
from core import command
from core.command import Finding, counted, from_error, parse_config, run, tell
from core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Arguments(command.CheckArguments):
    """Report everything wrong with recordings and transcripts: file, line, reason, and how to mend it. Preset and
    settings are those of train, since it depends on them what can be learned."""

    data: str = DEFAULT_DATA
    """As for train."""


@dataclass(frozen=True)
class CheckResult(command.CheckResult):
    """What a check found; ``corpus`` is there if the data could be read at all."""

    corpus: Corpus | None

    def facts(self) -> Mapping[str, Any]:
        """Utterances of each split."""
        splits = {} if self.corpus is None else self.corpus.splits
        return {"utterances": {name: len(utterances) for name, utterances in splits.items()}}

    def summary(self) -> str | None:
        """The corpus and its splits."""
        return None if self.corpus is None else str(self.corpus)


def check(data: str, config: AsrConfig, *, progress: Progress | None = None) -> CheckResult:
    """Look at a corpus as a training with this config would; raises nothing of its own."""
    try:
        corpus = load_corpus(data, on_bad="skip")
    except InputError as error:
        return CheckResult((from_error(error),), None)
    tokenizer, found = _tokenizer(corpus, config)
    return CheckResult((*found, *inspect(corpus, tokenizer, limits_of(config), progress=progress)), corpus)


def _tokenizer(corpus: Corpus, config: AsrConfig) -> tuple[Tokenizer | None, list[Finding]]:
    texts = [utterance.text for utterance in corpus.splits.get("train", ()) if utterance.text]
    try:
        return (fit_tokenizer(config.tokenizer, texts) if texts else None), []
    except InputError as error:
        return None, [from_error(error, "tokenizer", split="train")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> int:
    parsed = parse_config(AsrConfig, PRESETS, argv, arguments=Arguments, prog="manyformer asr check")
    arguments = parsed.arguments
    with counted("reading", shown=not arguments.json) as told:
        result = check(arguments.data, parsed.config, progress=told)
    return tell(result, arguments.data, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
