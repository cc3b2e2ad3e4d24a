"""Text to the tokens of a CTC model and back: characters, or pieces of words.

Both kinds first bring text into one form (`normalise`): Unicode's composed form (NFC), lower case, single spaces. The
rule is part of what is saved, since the error rate of a model depends on it. What is left of a text must be in the
vocabulary: a character the model has no output for is refused by name, never read as an unknown token.

Token 0 is CTC's blank; it stands for no text, and `encode` never gives it. The official program, too, puts the blank at
0, where its SentencePiece model has the unknown piece, so that its 128 pieces are 128 outputs; there an unknown
character becomes a blank, which cannot happen here.

Pieces come from a unigram model (Kudo, Subword regularization, ACL 2018), trained by the ``sentencepiece`` library as
the official one: full character coverage, no hard limit of the vocabulary, no tokens for begin, end and padding. Its
own normalisation is off: `normalise` has done it, and what is decoded is exactly what was encoded.
"""

from __future__ import annotations

import hashlib
import io
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from core.command import require
from core.errors import InputError

RULE = "nfc, lower case, single spaces"
"""How text is normalised, as it is written into a saved tokenizer."""
BLANK = 0
_WORD_START = "\u2581"
"""SentencePiece's sign for a space."""
_RESERVED = frozenset(f"\0{_WORD_START}\u2585")
"""Characters it keeps for itself: texts that hold one would be left out in silence."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What the model writes."""

    kind: Literal["char", "sentencepiece"] = "char"
    """``char``: the characters of the training texts; ``sentencepiece``: frequent pieces of words."""
    pieces: int = 128
    """Pieces of the latter, at most; texts with little in them give fewer."""

    def __post_init__(self) -> None:
        if self.pieces < 2:
            raise InputError(f"must be at least 2, got {self.pieces}", where="tokenizer.pieces")


def normalise(text: str) -> str:
    """Composed, lower-case, with single spaces and none at the ends.

    >>> normalise("  Cafe\\u0301  AT  noon ")
    'café at noon'
    """
    lower = unicodedata.normalize("NFC", text).lower()
    return " ".join(unicodedata.normalize("NFC", lower).split())


class Tokenizer(ABC):
    """A fitted vocabulary; immutable.

    Attributes:
        kind: the name in `TokenizerConfig`.
        pieces: (size,) the text of each token, with spaces where words begin; that of the blank is empty.
        blank: index of CTC's blank.
    """

    kind: ClassVar[str]
    blank: int = BLANK
    pieces: tuple[str, ...]

    @property
    def size(self) -> int:
        """Outputs a model needs: the tokens, blank included."""
        return len(self.pieces)

    @cached_property
    def characters(self) -> frozenset[str]:
        """What a text may hold; the space always."""
        return frozenset(piece for piece in self.pieces if len(piece) == 1) | {" "}

    def normalise(self, text: str) -> str:
        """The form in which this tokenizer reads text."""
        return normalise(text)

    def foreign(self, text: str) -> tuple[str, ...]:
        """Characters of the normalised text that are not in the vocabulary, sorted."""
        return tuple(sorted(set(self.normalise(text)) - self.characters))

    def encode(self, text: str) -> list[int]:
        """Tokens of the normalised text; none is the blank.

        Raises:
            InputError: it has characters that are not in the vocabulary.
        """
        text = self.normalise(text)
        if foreign := self.foreign(text):
            mend = "write it in the characters of the training texts"
            raise InputError(f"the text has characters the model does not know: {_named(foreign)}", mend=mend)
        return self._tokens(text)

    @abstractmethod
    def _tokens(self, text: str) -> list[int]:
        """Tokens of a normalised text of known characters."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, with single spaces; the inverse of `encode` up to `normalise`."""
        return " ".join("".join(self.pieces[token] for token in tokens).split())

    def state(self) -> dict[str, Any]:
        """Plain values and arrays, for ``core.artefact``; see `tokenizer_from_state`."""
        return {"kind": self.kind, "rule": RULE, "blank": self.blank, **self._vocabulary()}

    @abstractmethod
    def _vocabulary(self) -> dict[str, Any]:
        """What `state` adds of this kind."""

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tokenizers share exactly if they are equal."""
        told = hashlib.blake2b(repr((self.kind, RULE, self.blank)).encode(), digest_size=8)
        for key, value in sorted(self._vocabulary().items()):
            told.update(key.encode() + (value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()))
        return told.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size} outputs, {self.digest})"


class CharTokenizer(Tokenizer):
    """One token a character; the space is a token like the others.

    >>> tokenizer = CharTokenizer.fit(["a cab"])
    >>> tokenizer.encode("BAC"), tokenizer.decode([3, 2, 1, 4])
    ([3, 2, 4], 'ba c')
    """

    kind = "char"

    def __init__(self, characters: Sequence[str]) -> None:
        if not characters or any(len(character) != 1 for character in characters):
            raise InputError("the vocabulary is not a list of single characters", where="tokenizer")
        if len(set(characters)) < len(characters):
            raise InputError("the vocabulary has a character twice", where="tokenizer")
        self.pieces = ("", *characters)
        self._index = {character: index for index, character in enumerate(self.pieces)}

    @classmethod
    def fit(cls, texts: Iterable[str]) -> CharTokenizer:
        """The sorted characters of ``texts``, and a space.

        Raises:
            InputError: the texts hold nothing.
        """
        characters = {character for text in texts for character in normalise(text)}
        if not characters:
            raise _no_text()
        return cls(sorted(characters | {" "}))

    def _tokens(self, text: str) -> list[int]:
        return [self._index[character] for character in text]

    def _vocabulary(self) -> dict[str, Any]:
        return {"characters": list(self.pieces[1:])}


class SentencePieceTokenizer(Tokenizer):
    """Pieces of words of a unigram model; frequent words are one piece.

    Args:
        model: the bytes of a SentencePiece model whose unknown piece is 0, (bytes,) uint8.

    Raises:
        InputError: they are no such model.
    """

    kind = "sentencepiece"

    def __init__(self, model: NDArray[np.uint8]) -> None:
        self.model = np.array(model, dtype=np.uint8)
        self._processor = _processor(self.model.tobytes())
        named = [self._processor.id_to_piece(index) for index in range(self._processor.get_piece_size())]
        self.pieces = ("", *(piece.replace(_WORD_START, " ") for piece in named[1:]))

    @classmethod
    def fit(cls, texts: Iterable[str], pieces: int = 128) -> SentencePieceTokenizer:
        """Train on ``texts``; their order does not matter.

        Args:
            texts: the training transcripts.
            pieces: size of the vocabulary, at most; few or uniform texts give fewer.

        Raises:
            InputError: the texts hold nothing, or more characters than ``pieces``, or the sign of SentencePiece itself.

        >>> tokenizer = SentencePieceTokenizer.fit(["the cat", "the dog", "the hat"], pieces=16)
        >>> tokenizer.decode(tokenizer.encode("The Hog"))
        'the hog'
        """
        cleaned = sorted(filter(None, map(normalise, texts)))
        if not cleaned:
            raise _no_text()
        characters = {character for text in cleaned for character in text}
        if kept := characters & _RESERVED:
            what = f"SentencePiece keeps {_named(sorted(kept))} for itself"
            raise InputError(what, where="tokenizer", mend="take it out of the texts")
        needed = len(characters | {" "}) + 1  # a space stands before every text; the unknown piece counts
        if needed > pieces:
            mend = f"ask for {needed} or more, or for characters"
            raise InputError(f"{pieces} pieces do not hold every character", where="tokenizer.pieces", mend=mend)
        return cls(_train(cleaned, pieces))

    def _tokens(self, text: str) -> list[int]:
        return list(self._processor.encode(text))

    def _vocabulary(self) -> dict[str, Any]:
        return {"model": self.model}


_KINDS: dict[str, type[Tokenizer]] = {kind.kind: kind for kind in (CharTokenizer, SentencePieceTokenizer)}


def fit_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The configured kind, fitted on training texts. Raises `InputError` as the kinds do."""
    if config.kind == "char":
        return CharTokenizer.fit(texts)
    return SentencePieceTokenizer.fit(texts, config.pieces)


def tokenizer_from_state(state: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `Tokenizer.state`.

    Raises:
        InputError: something is missing, or of a kind or rule unknown here.

    >>> tokenizer_from_state(CharTokenizer.fit(["ab"]).state()) == CharTokenizer.fit(["b a"])
    True
    """
    known = {"kind": tuple(_KINDS), "rule": (RULE,), "blank": (BLANK,)}
    for key, values in known.items():
        if state.get(key) not in values:
            mend = "it was saved by another version, or is no tokenizer"
            raise InputError(f"{key} {state.get(key)!r} is unknown", where="tokenizer", mend=mend)
    try:
        if state["kind"] == "char":
            return CharTokenizer(state["characters"])
        return SentencePieceTokenizer(state["model"])
    except (KeyError, TypeError) as error:
        raise InputError(f"its vocabulary is missing or of another form ({error})", where="tokenizer") from error


def _named(characters: Sequence[str]) -> str:
    named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in characters[:5])
    return named + (f" and {len(characters) - 5} more" if len(characters) > 5 else "")


def _no_text() -> InputError:
    return InputError("the training texts hold no characters", where="tokenizer", mend="give transcripts")


def _processor(model: bytes) -> Any:
    sentencepiece = require("sentencepiece", "asr")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model) if model else None
    except RuntimeError:
        processor = None
    if processor is None or processor.get_piece_size() < 2 or processor.unk_id() != BLANK:
        what = "the saved bytes are no SentencePiece model with its unknown piece at 0"
        raise InputError(what, where="tokenizer", mend="copy the model again")
    return processor


def _train(texts: Sequence[str], pieces: int) -> NDArray[np.uint8]:
    written = io.BytesIO()
    sentencepiece = require("sentencepiece", "asr")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type="unigram",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=BLANK,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,  # sums are then always made in the same order
        # longer texts would be left out in silence
        max_sentence_length=10 + max(len(text.encode()) for text in texts),
        minloglevel=2,
    )
    return np.frombuffer(written.getvalue(), dtype=np.uint8)
