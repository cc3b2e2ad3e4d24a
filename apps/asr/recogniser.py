"""A trained recogniser as one object: features, network, tokenizer. Give it recordings, save it, load it.

Recordings go in alone or many together; the answer is the same to rounding (about 1e-5 in the outputs), because no
frame of one utterance sees another or the padding. Long ones go through in windows (:mod:`apps.asr.windows`), each
read from its file when its turn comes, so that memory does not grow with the length but for the outputs (100 bytes a
frame and 25 frames a second, for 25 characters).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apps.asr.config import AsrConfig
from apps.asr.decoding import Hypothesis, Word, greedy, words
from apps.asr.features import SAMPLE_RATE, LogMel
from apps.asr.inference import for_inference
from apps.asr.model import Squeezeformer
from apps.asr.pieces import Piece, Source, batches, pieces, pools
from apps.asr.tokenizer import Tokenizer, tokenizer_from_state
from core import artefact
from core.command import RunDirectory, config_to_dict, stored_config
from core.errors import InputError
from core.rewrite import Rewrite, replay, rewrites_from_state, rewrites_state

TASK = "asr"
KIND, VERSION = "manyformer.asr", 1
_POOL = 4
"""Batches read ahead and sorted by length, so that those of like length are recognised together."""


@dataclass(frozen=True)
class Transcript:
    """What was recognised in a recording.

    Attributes:
        text: the words, one space between them.
        words: each with its times in seconds and its confidence.
        confidence: mean of the words' confidences; 0 where there are none.
        seconds: length of the recording.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    seconds: float


class Recogniser:
    """Features, network and tokenizer.

    Args:
        config: every setting of the training.
        tokenizer: fitted on the training texts.
        model: with as many outputs as the tokenizer has.
        rewrites: what was done to the model since its config built it.

    Raises:
        InputError: tokenizer and network have different numbers of outputs.
    """

    def __init__(
        self, config: AsrConfig, tokenizer: Tokenizer, model: Squeezeformer, rewrites: Sequence[Rewrite] = ()
    ) -> None:
        if model.outputs != tokenizer.size:
            what = f"the network has {model.outputs} outputs, the tokenizer {tokenizer.size}"
            raise InputError(what, where="tokenizer", mend="use the tokenizer that the network was trained with")
        self.config, self.tokenizer = config, tokenizer
        self.rewrites = (tuple(rewrites),)
        self.model = model.eval().requires_grad_(False)
        self.features = LogMel(config.features)

    @property
    def networks(self) -> Sequence[Squeezeformer]:
        """The one network."""
        return (self.model,)

    @cached_property
    def _network(self) -> Squeezeformer:
        """What recognises: the model with all folded that training needs; what is saved is the model itself."""
        return for_inference(self.model)

    # ------------------------------------------------------------------------------------------------ recognising

    def transcribe(self, recordings: Iterable[Source], **options: float) -> list[Transcript]:
        """All of them, in order; see :meth:`stream`."""
        return list(self.stream(recordings, **options))

    def stream(
        self, recordings: Iterable[Source], *, window: float = 30.0, context: float = 4.8, batch_seconds: float = 60.0
    ) -> Iterator[Transcript]:
        """One transcript for each recording, in order, as they are done.

        Args:
            recordings: files, parts of files, or samples; they are read as they are needed.
            window, context: seconds, of recordings that are longer than a window: see :func:`.windows.windows`.
            batch_seconds: audio recognised together, padding included; bounds memory, does not change the result.

        Raises:
            InputError: a recording cannot be read.
        """
        for samples, logits in self.logits(recordings, window=window, context=context, batch_seconds=batch_seconds):
            yield self.decode(logits, samples / SAMPLE_RATE)

    def decode(self, logits: Float[Tensor, "T V"], seconds: float) -> Transcript:
        """The most probable token of each frame, merged; see :func:`.decoding.greedy`."""
        hypothesis = self.hypothesis(logits)
        offset = self.model.frame_offset - self.config.pad_seconds
        found = words(hypothesis, self.tokenizer, self.model.frame_seconds, offset)
        # Frames in the quiet that was put around a recording, or centred on its very end, lie outside it.
        found = [replace(word, start=_within(word.start, seconds), stop=_within(word.stop, seconds)) for word in found]
        confidence = sum(word.confidence for word in found) / len(found) if found else 0.0
        return Transcript(self.tokenizer.decode(list(hypothesis.tokens)), tuple(found), confidence, seconds)

    def hypothesis(self, logits: Float[Tensor, "T V"]) -> Hypothesis:
        """Tokens with their frames."""
        return greedy(logits[None], torch.tensor([len(logits)]), self.tokenizer.blank)[0]

    @torch.inference_mode()
    def logits(
        self, recordings: Iterable[Source], *, window: float = 30.0, context: float = 4.8, batch_seconds: float = 60.0
    ) -> Iterator[tuple[int, Float[Tensor, "T V"]]]:
        """For each recording, in order, how many samples it has at 16 kHz, and its outputs; see :meth:`stream`."""
        read = pieces(recordings, window=window, context=context, pad_seconds=self.config.pad_seconds)
        parts: list[Tensor] = []
        for piece, outputs in self._run(read, round(batch_seconds * SAMPLE_RATE)):
            parts.append(outputs[piece.first : piece.last])
            if piece.ends is not None:
                yield piece.ends, torch.cat(parts)
                parts = []

    def _run(self, read: Iterable[Piece], limit: int) -> Iterator[tuple[Piece, Float[Tensor, "T V"]]]:
        """Pieces with their outputs, in their order, recognised in batches of like length."""
        for pool in pools(read, _POOL * limit):
            outputs: dict[int, Tensor] = {}
            for batch in batches([len(piece.audio) for piece in pool], limit):
                outputs |= zip(batch, self._outputs([pool[index].audio for index in batch]), strict=True)
            yield from ((piece, outputs[index]) for index, piece in enumerate(pool))

    def inputs(self, recordings: Iterable[Source]) -> tuple[Float[Tensor, "B T F"], Int[Tensor, "B"]]:
        """What the network is given for the first window of each recording, together: features and their lengths."""
        read = [next(pieces([each], pad_seconds=self.config.pad_seconds)).audio for each in recordings]
        lengths = torch.tensor([len(audio) for audio in read])
        features, frames = self.features(torch.nn.utils.rnn.pad_sequence(read, batch_first=True), lengths)
        return features, frames

    def _outputs(self, audio: list[Float[Tensor, " _"]]) -> list[Float[Tensor, "_ V"]]:
        """Outputs of each signal; none of one too short for a frame."""
        lengths = torch.tensor([len(signal) for signal in audio])
        found = [torch.zeros(0, self.tokenizer.size) for _ in audio]
        enough = [i for i, n in enumerate(lengths.tolist()) if self.output_frames(n) > 0]
        if enough:
            batch = torch.nn.utils.rnn.pad_sequence([audio[index] for index in enough], batch_first=True)
            logits, frames = self._network(*self.features(batch, lengths[enough]))
            for index, row, count in zip(enough, logits, frames.tolist(), strict=True):
                found[index] = row[:count]
        return found

    def output_frames(self, samples: int) -> int:
        """Frames of 40 ms that a signal of so many samples gives."""
        if samples == 0:
            return 0
        return int(self.model.output_lengths(torch.tensor([self.features.frames(samples)]))[0])

    # --------------------------------------------------------------------------------------------- save and load

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write everything that recognition needs into ``directory``: one JSON file, one safetensors file."""
        tree = {
            "config": config_to_dict(self.config),
            "tokenizer": self.tokenizer.state(),
            "outputs": self.model.outputs,
            "model": dict(self.model.state_dict()),
            "rewrites": rewrites_state(self.rewrites),
        }
        artefact.save(directory, tree, kind=KIND, version=VERSION)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Recogniser:
        """Read what :meth:`save` wrote. No code is executed.

        Raises:
            InputError: missing, damaged, of another kind or version, or a tokenizer that does not fit the network.
        """
        tree: Any = artefact.load(directory, kind=KIND, version=VERSION)
        with artefact.understood(directory):
            config = stored_config(AsrConfig, tree["config"], where=str(directory))
            model = Squeezeformer(config.features.n_mels, tree["outputs"], config.model)
            (rewrites,) = rewrites_from_state(tree.get("rewrites"), 1)
            model = replay(model, rewrites)
            model.load_state_dict(tree["model"])
            return cls(config, tokenizer_from_state(tree["tokenizer"]), model, rewrites)


def _within(time: float, seconds: float) -> float:
    return min(max(time, 0.0), seconds)


def load_run(path: Path) -> Recogniser:
    """The model of a finished run.

    Raises:
        InputError: no run, not finished, or damaged.
    """
    return Recogniser.load(RunDirectory.trained(path, task=TASK).best)
