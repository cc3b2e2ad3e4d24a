from __future__ import annotations

from apps.asr.decoding import Word
from apps.asr.subtitles import LINE, LONGEST, cues, srt, vtt


def spoken(text: str, start: float = 0.0, step: float = 0.4) -> list[Word]:
    return [Word(word, start + step * i, start + step * (i + 0.8), 0.9) for i, word in enumerate(text.split())]


def test_cues_end_at_pauses_at_six_seconds_and_at_two_lines():
    assert [len(cue) for cue in cues([*spoken("one two", 0), *spoken("three", 2.0)])] == [2, 1]
    slow = list(cues(spoken("a " * 40, step=0.5)))
    assert all(cue[-1].stop - cue[0].start <= LONGEST for cue in slow)
    fast = list(cues(spoken("characterisation " * 20, step=0.1)))
    assert [len(cue) for cue in fast] == [4, 4, 4, 4, 4]
    assert [word for cue in fast for word in cue] == spoken("characterisation " * 20, step=0.1)


def test_lines_are_broken_in_the_middle():
    text = "this sentence is somewhat longer than one line can be"
    first, second = srt(spoken(text, step=0.1)).splitlines()[2:4]
    assert f"{first} {second}" == text
    assert max(len(first), len(second)) <= LINE
    assert abs(len(first) - len(second)) < 10


def test_a_word_longer_than_a_line_is_kept_whole():
    word = "x" * (LINE + 10)
    assert word in srt(spoken(word))


def test_cues_of_subrip_are_numbered_and_those_of_webvtt_escaped():
    words = [*spoken("a<b", 0.1), *spoken("c&d", 3661.0)]
    assert srt(words).splitlines() == [
        *("1", "00:00:00,100 --> 00:00:00,420", "a<b", ""),
        *("2", "01:01:01,000 --> 01:01:01,320", "c&d"),
    ]
    assert vtt(words).splitlines() == [
        *("WEBVTT", "", "00:00:00.100 --> 00:00:00.420", "a&lt;b", ""),
        *("01:01:01.000 --> 01:01:01.320", "c&amp;d"),
    ]


def test_silence_has_no_cues():
    assert srt([]) == ""
    assert vtt([]) == "WEBVTT\n"
