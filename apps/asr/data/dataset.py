"""Utterances to batches: audio from the store, augmented in training, as features with their targets.

    store -> speed -> padded (B, N) -> log-mel (B, T, F) -> SpecAugment

What is random is drawn from torch's global generator, which :class:`core.training.Loader` seeds for each batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apps.asr.augment import AugmentConfig, random_speed, spec_augment
from apps.asr.data.audio import SAMPLE_RATE, AudioStore
from apps.asr.data.manifest import Utterance
from apps.asr.features import LogMel
from core.errors import InputError


class SpeechBatches:
    """A :class:`core.training.BatchSource` of utterances.

    Args:
        utterances: what is read.
        targets: the tokens of each, without blanks.
        store: reads and remembers.
        features: the extractor.
        augment: what to draw; None changes nothing, as in evaluation.

    Raises:
        InputError: not one target for each utterance.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        targets: Sequence[Sequence[int]],
        store: AudioStore,
        features: LogMel,
        augment: AugmentConfig | None = None,
    ) -> None:
        if len(utterances) != len(targets):
            raise InputError(f"{len(utterances)} utterances with {len(targets)} targets")
        self.utterances, self.store, self.features, self.augment = tuple(utterances), store, features, augment
        # Tensors and not lists: a worker process would copy every page of counted Python integers.
        self._targets = [torch.tensor(tokens, dtype=torch.int64) for tokens in targets]

    def __len__(self) -> int:
        return len(self.utterances)

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        """How long each utterance lasts, before any change of speed."""
        return tuple(self.store.samples(utterance) / SAMPLE_RATE for utterance in self.utterances)

    @torch.no_grad()
    def __getitem__(self, indices: Int64[Tensor, " B"], /) -> dict[str, Tensor]:
        """The batch of these utterances.

        Returns:
            ``features (B,T,F)`` float32 with zeros in the padding; ``lengths (B,)`` int64, frames of each; ``targets
            (sum U,)`` int64, the tokens of all, one utterance after the other; ``target_lengths (B,)``; ``index (B,)``.

        Raises:
            InputError: a recording cannot be read.
        """
        chosen = indices.tolist()
        audio = [self.store[self.utterances[index]] for index in chosen]
        if self.augment is not None:
            audio = [random_speed(samples, self.augment) for samples in audio]
        samples = torch.tensor([len(one) for one in audio])
        features, lengths = self.features(pad_sequence(audio, batch_first=True), samples)
        if self.augment is not None:
            features = spec_augment(features, lengths, self.augment)
        targets = [self._targets[index] for index in chosen]
        return {
            "features": features,
            "lengths": lengths,
            "targets": torch.cat(targets),
            "target_lengths": torch.tensor([len(tokens) for tokens in targets]),
            "index": indices,
        }
