"""Short fluent English sentences from a small grammar: about 120 different words, numbers among them.

Words are drawn with nothing but ``random.Random.random``, whose sequence is the same in every version of Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")

_WORDS = {
    "person": "my mother|your father|the teacher|the doctor|the driver|our friend|the farmer|a child",
    "thing": "box|book|letter|table|chair|lamp|clock|bottle|basket|hammer",
    "things": "apples|books|letters|chairs|bottles|horses|boats|tickets|flowers|windows",
    "adjective": "small|old|red|green|heavy|new|broken|empty|wooden|long",
    "acted": "found|opened|carried|bought|washed|painted|moved|dropped",
    "place": "kitchen|garden|station|school|market|river|bridge|village|harbour|office",
    "where": "near|behind|outside|opposite",
    "when": "today|tomorrow|yesterday|on monday|on friday|in the morning|after lunch|before dinner|at night",
    "weather": "cold|warm|dark|quiet|wet|dry",
    "vehicle": "train|bus|ship|ferry",
    "leaves": "leaves|arrives|stops",
    "digit": "one|two|three|four|five|six|seven|eight|nine",
    "small": "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve",
    "ten": "twenty|thirty|forty|fifty",
    "hour": "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve",
}
_CHOICES = {slot: tuple(words.split("|")) for slot, words in _WORDS.items()}

_PATTERNS = tuple(
    pattern.split()
    for pattern in (
        "{person} {acted} the {adjective} {thing} {where} the {place}",
        "{person} {acted} {small} {adjective} {things} {when}",
        "the {vehicle} {leaves} at {hour} {ten}",
        "the next {vehicle} {leaves} {where} the {place} at {hour}",
        "there are {ten} {digit} {things} {where} the {place}",
        "please put the {thing} {where} the {adjective} {thing}",
        "the {place} is {weather} and {weather} {when}",
        "call number {digit} {digit} {digit} {digit} {when}",
        "we need {ten} {digit} {adjective} {things}",
        "is the {adjective} {thing} still {where} the {place}",
    )
)


def vocabulary() -> frozenset[str]:
    """Every word that can occur.

    >>> len(vocabulary())
    120
    """
    plain = {word for pattern in _PATTERNS for word in pattern if not word.startswith("{")}
    return frozenset(plain | {word for choices in _CHOICES.values() for choice in choices for word in choice.split()})


def sentences(seed: int) -> Iterator[str]:
    """Different sentences without end (there are some hundred thousand), always the same for a seed.

    >>> texts = sentences(0)
    >>> next(texts) != next(texts)
    True
    """
    draw = random.Random(seed)
    seen: set[str] = set()
    while True:
        sentence = _sentence(draw)
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def _sentence(draw: random.Random) -> str:
    words: list[str] = []
    used: set[str] = set()  # no "the dark and dark garden", no "the old box near the old box"
    for word in _pick(_PATTERNS, draw):
        if word.startswith("{"):
            slot = word[1:-1]
            options = [choice for choice in _CHOICES[slot] if slot == "digit" or choice not in used]
            word = _pick(options, draw)
            used.add(word)
        words.append(word)
    return " ".join(words)


def _pick(options: Sequence[_T], draw: random.Random) -> _T:
    return options[int(draw.random() * len(options))]
