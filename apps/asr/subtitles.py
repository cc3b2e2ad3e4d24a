"""Words with times to subtitles: SubRip (``.srt``) and WebVTT (``.vtt``, W3C).

A cue ends at a pause of a second, after six seconds, or when another word would make it longer than two lines of 42
characters, the usual limits of broadcasters. Lines are broken so that they are about equally long.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from apps.asr.decoding import Word

PAUSE, LONGEST, LINE = 1.0, 6.0, 42
"""Seconds between two cues, seconds of a cue, characters of a line."""


def srt(words: Iterable[Word]) -> str:
    """The cues as SubRip.

    >>> print(srt([Word("hello", 0.5, 0.9, 1.0), Word("there", 1.0, 1.4, 1.0)]), end="")
    1
    00:00:00,500 --> 00:00:01,400
    hello there
    """
    found = (
        f"{number}\n{_time(cue[0].start, ',')} --> {_time(cue[-1].stop, ',')}\n{_lines(cue)}\n"
        for number, cue in enumerate(cues(words), start=1)
    )
    return "\n".join(found)


def vtt(words: Iterable[Word]) -> str:
    """The cues as WebVTT.

    >>> print(vtt([Word("hello", 3600.5, 3600.9, 1.0)]), end="")
    WEBVTT
    <BLANKLINE>
    01:00:00.500 --> 01:00:00.900
    hello
    """
    found = (
        f"\n{_time(cue[0].start, '.')} --> {_time(cue[-1].stop, '.')}\n{_escape(_lines(cue))}\n" for cue in cues(words)
    )
    return "WEBVTT\n" + "".join(found)


def cues(words: Iterable[Word]) -> Iterator[Sequence[Word]]:
    """Words that stand on the screen together."""
    cue: list[Word] = []
    for word in words:
        if cue and (
            word.start - cue[-1].stop >= PAUSE
            or word.stop - cue[0].start > LONGEST
            or len(_wrapped(" ".join([*(one.text for one in cue), word.text]), LINE)) > 2
        ):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _lines(cue: Sequence[Word]) -> str:
    text = " ".join(word.text for word in cue)
    if len(text) <= LINE:
        return text
    # The narrowest width that still gives two lines: they are then about equally long.
    widths = range(len(text) // 2, LINE + 1)
    return "\n".join(next((lines for width in widths if len(lines := _wrapped(text, width)) <= 2), [text]))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
