"""The learning task: CTC, and the error rates of greedy decoding.

The loss of an utterance is the negative log-likelihood of its tokens, summed over all alignments (Graves et al., ICML
2006); a batch's loss is the mean over its utterances, not over tokens, as in the released program and in NeMo:
``torch.nn.CTCLoss(reduction="mean")`` would also divide by the length of the text, which is another scale of gradients.
Log-softmax and the sum over alignments are float32, also under bfloat16. What cannot be aligned (fewer frames than
tokens and repeats) is found before training; should it come up all the same, it counts 0 and not infinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from apps.asr.decoding import greedy
from apps.asr.metrics import edits, error_rate
from apps.asr.tokenizer import Tokenizer
from core.auxiliary import collected
from core.training import Task

Batch = Mapping[str, Tensor]
Watch = Literal["cer", "wer", "loss"]


def ctc_loss(
    logits: Float[Tensor, "B T V"],
    lengths: Int[Tensor, " B"],
    targets: Int[Tensor, " S"],
    target_lengths: Int[Tensor, " B"],
    blank: int,
) -> Float[Tensor, " B"]:
    """Negative log-likelihood of each utterance, in nats.

    Args:
        logits: outputs of the network.
        lengths: frames of each utterance.
        targets: tokens of all utterances, one after the other.
        target_lengths: tokens of each utterance.
        blank: index of the blank.

    >>> even = torch.zeros(1, 2, 2)  # two frames, blank and one letter: 3 of the 4 paths say the letter
    >>> ctc_loss(even, torch.tensor([2]), torch.tensor([1]), torch.tensor([1]), 0).exp()
    tensor([1.3333])
    """
    with torch.autocast(logits.device.type, enabled=False):
        scores = logits.float().log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(scores, targets, lengths, target_lengths, blank=blank, reduction="none", zero_infinity=True)


class SpeechTask(Task):
    """A network that is trained with CTC.

    Args:
        model: ``(features (B,T,F), lengths (B,)) -> (logits (B,T',V), lengths' (B,))``.
        tokenizer: whose outputs the network has.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over the utterances of a batch, in nats an utterance, and what blocks of the model add to it."""
        with collected() as extra:
            loss = self._losses(batch)[0].mean()
        return {"loss": loss + extra.total()}

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean loss of an utterance; error rates of words and of characters over the whole split, in percent."""
        losses: list[Tensor] = []
        pairs: list[tuple[str, str]] = []
        for batch in batches:
            loss, logits, lengths = self._losses(batch)
            losses.append(loss.cpu())
            found = greedy(logits.float(), lengths, self.tokenizer.blank)
            said = torch.split(batch["targets"], batch["target_lengths"].tolist())
            pairs += [
                (self.tokenizer.decode(tokens.tolist()), self.tokenizer.decode(list(hypothesis.tokens)))
                for tokens, hypothesis in zip(said, found, strict=True)
            ]
        return {
            "loss": float(torch.cat(losses).double().mean()),
            "wer": error_rate(edits(one.split(), two.split()) for one, two in pairs),
            "cer": error_rate(edits(one, two) for one, two in pairs),
        }

    def _losses(self, batch: Batch) -> tuple[Float[Tensor, " B"], Float[Tensor, "B T V"], Int[Tensor, " B"]]:
        logits, lengths = self.model(batch["features"], batch["lengths"])
        targets, target_lengths = batch["targets"], batch["target_lengths"]
        return ctc_loss(logits, lengths, targets, target_lengths, self.tokenizer.blank), logits, lengths
