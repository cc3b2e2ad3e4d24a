"""``manyformer asr predict``: recordings to text, with times and confidences."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from apps.asr.recogniser import Transcript, load_run
from apps.asr.subtitles import srt, vtt
from core.artefact import replace_file
from core.command import parse_arguments, run, say, to_json
from core.errors import InputError

AUDIO = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64")
"""What is taken from a folder; a file that is named itself may end in anything."""
ONE_EACH = (".srt", ".vtt")
FORMATS = (".txt", ".json", ".csv", *ONE_EACH)
NAME = "{name}"
Done = tuple[Path, Transcript]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Recognise recordings with a trained model. One file gives its text; several give a line each, with its path."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    input: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="INPUT [INPUT ...]", help_behavior_hint="(required)"),
    ]
    """Recordings of any length, rate and number of channels, or folders of them."""
    out: Path | None = None
    """A .txt, .json, .csv, .srt or .vtt file to write; with {name} in it, one file for each recording."""
    json: bool = False
    """Write JSON to standard output: for each recording text, confidence, and words with their times."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; returns its exit status."""
    return run(_main, argv)


def _main(argv: list[str]) -> None:
    arguments = parse_arguments(Arguments, argv, prog="manyformer asr predict")
    if not arguments.input:
        raise InputError("no recording", mend="manyformer asr predict RUN FILE")
    files = recordings(arguments.input)
    targets = [None] * len(files) if arguments.out is None else targets_of(arguments.out, files)
    recogniser = load_run(arguments.run)
    one_each = arguments.out is not None and NAME in str(arguments.out)
    done: list[Done] = []
    # A folder of recordings takes its time: what is done is shown, or written, at once.
    for path, target, transcript in zip(files, targets, recogniser.stream(files), strict=True):
        done.append((path, transcript))
        if target is not None and one_each:
            replace_file(target, rendered(target.suffix, done[-1:]))
        elif target is None and not arguments.json:
            say(_line(path, transcript, alone=len(files) == 1))
    if arguments.out is not None and not one_each:
        replace_file(arguments.out, rendered(arguments.out.suffix, done))
    if arguments.json:
        say(to_json([record(*one) for one in done]))
    elif arguments.out is not None:
        say(f"{len(done):,} transcript{'s' * (len(done) != 1)} written to {arguments.out}")


def recordings(inputs: Iterable[Path]) -> list[Path]:
    """The files, and those in the folders, in order.

    Raises:
        InputError: a folder without recordings.
    """
    files: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO and p.is_file())
        if not found:
            raise InputError("a folder without recordings", where=str(path), mend=f"looked for {', '.join(AUDIO)}")
        files += found
    return files


def record(path: Path, transcript: Transcript) -> dict[str, Any]:
    """A transcript as plain data; times in seconds, confidence the mean over the words."""
    return {
        "file": str(path),
        "text": transcript.text,
        "confidence": round(transcript.confidence, 4),
        "seconds": round(transcript.seconds, 3),
        "words": [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "stop": round(word.stop, 3),
                "confidence": round(word.confidence, 4),
            }
            for word in transcript.words
        ],
    }


def targets_of(out: Path, files: list[Path]) -> list[Path]:
    """The file that each transcript goes into.

    Raises:
        InputError: of no known kind, or two transcripts in a file that holds one.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"ends in none of {', '.join(FORMATS)}", where=str(out))
    if NAME not in str(out):
        if out.suffix in ONE_EACH and len(files) > 1:
            mend = f"put {NAME} into the name of the output, for one file each"
            raise InputError(f"subtitles of {len(files)} recordings cannot share a file", where=str(out), mend=mend)
        return [out] * len(files)
    targets = [Path(str(out).replace(NAME, path.stem)) for path in files]
    for index, target in enumerate(targets):
        if target in targets[:index]:
            first = files[targets.index(target)]
            what = f"{first} and {files[index]} would both be written there"
            raise InputError(what, where=str(target), mend="recognise them in two calls")
    return targets


def rendered(suffix: str, done: Sequence[Done]) -> str:
    """Transcripts as the text of a file of that kind."""
    if suffix == ".json":
        return to_json([record(*one) for one in done]) + "\n"
    if suffix == ".csv":
        return _table(done)
    if suffix in ONE_EACH:
        return (srt if suffix == ".srt" else vtt)(done[0][1].words)
    return "".join(_line(*one, alone=len(done) == 1) + "\n" for one in done)


def _table(done: Sequence[Done]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = ("file", "text", "confidence", "seconds")
    writer.writerow(columns)
    for one in done:
        fields = record(*one)
        writer.writerow([fields[name] for name in columns])
    return stream.getvalue()


def _line(path: Path, transcript: Transcript, *, alone: bool) -> str:
    return transcript.text if alone else f"{path}\t{transcript.text}"


if __name__ == "__main__":
    raise SystemExit(main())
