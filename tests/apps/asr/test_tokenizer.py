from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.asr.tokenizer import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    TokenizerConfig,
    fit_tokenizer,
    normalise,
    tokenizer_from_state,
)
from core import artefact
from core.errors import InputError

PHRASE = "the cat sat on a mat and then it ran off with that other hat it's shape she sells sea shells"
WORDS = PHRASE.split()


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))).upper() for _ in range(count)]


TEXTS = sentences(300)
CHAR = CharTokenizer.fit(TEXTS)
PIECES = SentencePieceTokenizer.fit(TEXTS, 32)
BOTH = [pytest.param(CHAR, id="char"), pytest.param(PIECES, id="sentencepiece")]


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_normalise_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert "  " not in once


def test_normalise_composes_lowers_and_collapses() -> None:
    assert normalise("\tE\u0301TUDE \u00a0 No. 2\n") == "\u00e9tude no. 2"


@pytest.mark.parametrize("tokenizer", BOTH)
def test_decode_is_the_inverse(tokenizer: Tokenizer) -> None:
    for text in [*sentences(100, seed=1), "", "   ", "a", " sat\tcat "]:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == normalise(text)
        assert all(0 < token < tokenizer.size for token in tokens)


@pytest.mark.parametrize("tokenizer", BOTH)
def test_any_tokens_have_a_text_with_single_spaces(tokenizer: Tokenizer) -> None:
    draw = random.Random(2)
    for _ in range(100):
        text = tokenizer.decode(draw.choices(range(tokenizer.size), k=20))
        assert text == " ".join(text.split())
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_characters_are_sorted_after_the_blank() -> None:
    assert CharTokenizer.fit(["B a", "cA'"]).pieces == ("", " ", "'", "a", "b", "c")
    assert CharTokenizer.fit(["zero"]).pieces == ("", " ", "e", "o", "r", "z"), "words need a space between them"
    assert CHAR.blank == 0
    assert CHAR.size == len(set("".join(TEXTS))) + 1


def test_pieces_are_as_many_as_asked_and_whole_words_come_out() -> None:
    assert PIECES.size == 32
    assert " the" in PIECES.pieces
    assert len(PIECES.encode("the shells")) < len(CHAR.encode("the shells"))
    assert PIECES.characters == CHAR.characters


@pytest.mark.parametrize("tokenizer", BOTH)
def test_foreign_characters_are_named(tokenizer: Tokenizer) -> None:
    assert tokenizer.foreign("that Jazz!") == ("!", "j", "z")
    with pytest.raises(InputError, match=r"does not know: '!' \(U\+0021\), 'j' \(U\+006A\), 'z' \(U\+007A\); write"):
        tokenizer.encode("that jazz!")
    with pytest.raises(InputError, match="and 5 more"):
        tokenizer.encode("0123456789")
    for sign in ("\u2581", "\u2585", "\0"):
        assert tokenizer.foreign(f"a{sign}a") == (sign,)


@pytest.mark.parametrize("tokenizer", BOTH)
def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    artefact.save(tmp_path, tokenizer.state(), kind="test", version=1)
    again = tokenizer_from_state(artefact.load(tmp_path, kind="test", version=1))
    assert type(again) is type(tokenizer)
    assert again == tokenizer
    assert again.digest == tokenizer.digest
    assert again.pieces == tokenizer.pieces
    assert [again.encode(text) for text in TEXTS[:50]] == [tokenizer.encode(text) for text in TEXTS[:50]]


def test_fitting_depends_on_the_texts_alone() -> None:
    shuffled = random.Random(3).sample(TEXTS, len(TEXTS))
    assert SentencePieceTokenizer.fit(shuffled, 32) == PIECES
    assert CharTokenizer.fit(shuffled) == CHAR
    assert hash(CharTokenizer.fit(shuffled)) == hash(CHAR)


def test_different_tokenizers_have_different_digests() -> None:
    others = [
        CHAR,
        PIECES,
        CharTokenizer.fit([*TEXTS, "x"]),
        SentencePieceTokenizer.fit(TEXTS, 28),
        SentencePieceTokenizer.fit(TEXTS[:20], 32),
    ]
    assert len({tokenizer.digest for tokenizer in others}) == len(others)
    assert CHAR != PIECES
    assert CHAR != "char"
    assert CHAR.digest in repr(CHAR)


@pytest.mark.parametrize("texts", [["a"], ["one"], ["two words"] * 3, ["zero", "one", "two", "three"]])
def test_few_texts_give_few_pieces(texts: list[str]) -> None:
    tokenizer = SentencePieceTokenizer.fit(texts, 128)
    assert len(set("".join(texts))) < tokenizer.size <= 128
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_long_texts_count() -> None:
    tokenizer = SentencePieceTokenizer.fit(["short", "x" * 9000 + " quay"], 64)
    assert tokenizer.decode(tokenizer.encode("quay xx")) == "quay xx"


@pytest.mark.parametrize("config", [TokenizerConfig(), TokenizerConfig(kind="sentencepiece", pieces=28)])
def test_a_config_fits_its_kind(config: TokenizerConfig) -> None:
    tokenizer = fit_tokenizer(config, TEXTS)
    assert tokenizer.kind == config.kind
    assert tokenizer.size == (CHAR.size if config.kind == "char" else 28)


@pytest.mark.parametrize("kind", ["char", "sentencepiece"])
@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_refuses_to_fit_on_nothing(kind: Any, texts: list[str]) -> None:
    with pytest.raises(InputError, match="hold no characters"):
        fit_tokenizer(TokenizerConfig(kind=kind), texts)


def test_refuses_fewer_pieces_than_characters() -> None:
    needed = CHAR.size + 1 - 1  # the blank takes the place of the unknown piece
    with pytest.raises(InputError, match=f"ask for {needed} or more"):
        SentencePieceTokenizer.fit(TEXTS, needed - 1)
    assert SentencePieceTokenizer.fit(TEXTS, needed).size == needed


@pytest.mark.parametrize("sign", ["\u2581", "\u2585", "\0"])
def test_refuses_characters_that_sentencepiece_keeps(sign: str) -> None:
    with pytest.raises(InputError, match=r"keeps .* for itself"):
        SentencePieceTokenizer.fit([*TEXTS, f"a{sign}b"], 64)


def test_refuses_configs() -> None:
    with pytest.raises(InputError, match=r"tokenizer.pieces"):
        TokenizerConfig(pieces=1)


MODEL = PIECES.model


@pytest.mark.parametrize(
    "model",
    [MODEL[:0], MODEL[:100], np.frombuffer(b"no model at all", dtype=np.uint8), np.zeros(64, dtype=np.uint8)],
    ids=["empty", "truncated", "text", "zeros"],
)
def test_refuses_bytes_that_are_no_model(model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no SentencePiece model") as caught:
        tokenizer_from_state({**PIECES.state(), "model": model})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "bytes"}, "kind 'bytes' is unknown"),
        ({"rule": "upper"}, "rule 'upper' is unknown"),
        ({"blank": 7}, "blank 7 is unknown"),
        ({"characters": None}, "another form|single characters"),
        ({"characters": ["ab"]}, "single characters"),
        ({"characters": ["a", "a"]}, "twice"),
        ({"characters": []}, "single characters"),
    ],
)
def test_refuses_states(change: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        tokenizer_from_state({**CHAR.state(), **change})
    with pytest.raises(InputError, match="unknown"):
        tokenizer_from_state({})
    with pytest.raises(InputError, match="missing"):
        tokenizer_from_state({key: value for key, value in CHAR.state().items() if key != "characters"})
