"""From the outputs of a CTC model to tokens, words with times, and alignments.

A path names a token or the blank for every frame; it says the tokens that are left when repeats are merged and blanks
then dropped (Graves et al., Connectionist temporal classification, ICML 2006). So a text has many paths:

- `greedy` takes the most probable path, frame by frame;
- `prefix_beam` looks for the most probable text, the sum over its paths (Hannun et al., arXiv 1408.2873, without a
  language model): exact without pruning, and never less probable than greedy's text;
- `align` takes the most probable path of a given text (Viterbi, ``torchaudio.functional.forced_align``).

All three give a `Hypothesis`: where each token lies on a path, and how sure the model is of it there. The confidence of
a token is the geometric mean of its probabilities over the frames it is named in, which is no calibrated probability;
that of a word is the smallest of its tokens'.

Times: frame t is centred on ``frame_offset + t frame_seconds``, and a token reaches half a frame to either side of
those it is named in. CTC names a token in few frames, often one, somewhere in its sound: a word begins about when its
first token is named, but lasts longer than its last. Its end is therefore moved on by ``extension`` seconds, never
beyond the start of the next word; with 0 it is where the frames end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from apps.asr.tokenizer import Tokenizer
from core.command import require
from core.errors import InputError
from core.sequence import Ragged

BEAM = 16
EXTENSION = 0.08
"""Seconds: one step of the encoder's slower half."""


@dataclass(frozen=True)
class Hypothesis:
    """What was said in one utterance, and when.

    Attributes:
        tokens: without blanks and repeats.
        spans: for each token, its first frame and the one after its last.
        confidence: for each token, the geometric mean of its probabilities there, in (0, 1].
        score: log-probability of the path (`greedy`, `align`) or of the text (`prefix_beam`).
    """

    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    confidence: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class Word:
    """A word with its times in seconds, and the smallest confidence of its tokens."""

    text: str
    start: float
    stop: float
    confidence: float


def greedy(logits: Float[Tensor, "B T V"], lengths: Int[Tensor, " B"], blank: int) -> list[Hypothesis]:
    """The most probable path of each utterance; none of its frames, an empty hypothesis.

    Args:
        logits: outputs, before the softmax.
        lengths: frames of each utterance; what lies beyond is not read.
        blank: index of the blank.

    >>> logits = torch.log(torch.tensor([[[0.2, 0.8], [0.1, 0.9], [0.6, 0.4], [0.5, 0.5]]]))
    >>> greedy(logits, torch.tensor([3]), 0)[0].tokens, greedy(logits, torch.tensor([3]), 0)[0].spans
    ((1,), ((0, 2),))
    """
    lengths = Ragged.from_lengths(lengths, logits.shape[1]).lengths
    if logits.shape[1] == 0:
        return [Hypothesis((), (), (), 0.0) for _ in range(len(logits))]
    best, path = _log_probabilities(logits).max(dim=-1)
    return _collapsed(path.cpu().numpy(), best.double().cpu().numpy(), lengths.cpu().numpy(), blank)


def prefix_beam(
    logits: Float[Tensor, "B T V"], lengths: Int[Tensor, " B"], blank: int, *, beam: int | None = BEAM
) -> list[Hypothesis]:
    """The most probable text of each utterance that the search finds; its spans are those of `align`.

    Args:
        logits, lengths, blank: as in `greedy`.
        beam: texts kept after each frame; None keeps all, which is exact and grows exponentially.

    >>> logits = torch.log(torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]))  # greedy: nothing, 0.36; "1": 0.64
    >>> prefix_beam(logits, torch.tensor([2]), 0)[0].tokens
    (1,)
    """
    if beam is not None and beam < 1:
        raise InputError(f"a beam keeps at least 1 text, got {beam}", where="beam")
    scores = _log_probabilities(logits).cpu()
    found = []
    for row, length, path in zip(scores, lengths.tolist(), greedy(scores, lengths, blank), strict=True):
        row = row[:length]
        # a narrow beam can drop greedy's text, and what it dropped is missing from the sums it reports
        texts = {_search(row.double().numpy(), blank, beam), path.tokens}
        score, tokens = max((_text_score(row, text, blank), text) for text in texts)
        found.append(replace(align(row, tokens, blank), score=score))
    return found


def required_frames(targets: Sequence[int]) -> int:
    """Frames that an alignment needs: one a token, and a blank between two that are equal.

    >>> required_frames([3, 5, 5, 5])
    6
    """
    return len(targets) + sum(a == b for a, b in pairwise(targets))


def align(logits: Float[Tensor, "T V"], targets: Sequence[int], blank: int) -> Hypothesis:
    """The most probable path that says ``targets`` (none of them the blank), for one utterance.

    Raises:
        InputError: it has too few frames for them.

    >>> align(torch.zeros(4, 3), [1, 1], 0).spans[0][1] < 4
    True
    >>> align(torch.zeros(2, 3), [1, 1], 0)
    Traceback (most recent call last):
    core.errors.InputError: 2 frames cannot hold 2 tokens with 1 repeats, which need 3; ...
    """
    needed = required_frames(targets)
    if len(logits) < needed:
        what = f"{len(logits)} frames cannot hold {len(targets)} tokens with {needed - len(targets)} repeats, "
        raise InputError(what + f"which need {needed}", mend="check the text, or that the audio is whole")
    scores = _log_probabilities(logits)
    if len(targets) == 0:
        return Hypothesis((), (), (), float(scores[:, blank].double().sum()))
    torchaudio = require("torchaudio", "asr")
    path, best = torchaudio.functional.forced_align(scores[None], torch.tensor([list(targets)]), blank=blank)
    return _collapsed(path.numpy(), best.double().numpy(), np.array([len(logits)]), blank)[0]


def words(
    hypothesis: Hypothesis,
    tokenizer: Tokenizer,
    frame_seconds: float,
    frame_offset: float,
    *,
    extension: float = EXTENSION,
) -> list[Word]:
    """The words of a hypothesis, with times in seconds.

    Args:
        hypothesis: of one utterance.
        tokenizer: of the model; words begin where its pieces have spaces.
        frame_seconds, frame_offset: distance of two frames, and the centre of the first.
        extension: by how much an end is moved on at most.

    >>> from apps.asr.tokenizer import CharTokenizer
    >>> tokenizer = CharTokenizer.fit(["a b"])
    >>> said = Hypothesis((2, 1, 3), ((0, 1), (2, 3), (3, 5)), (0.9, 0.5, 0.8), -1.0)
    >>> [(word.text, round(word.start, 2), round(word.stop, 2)) for word in words(said, tokenizer, 0.04, 0.03)]
    [('a', 0.01, 0.13), ('b', 0.13, 0.29)]
    """
    found = []
    for text, members in _spelled(hypothesis.tokens, tokenizer):
        first, last = hypothesis.spans[members[0]][0], hypothesis.spans[members[-1]][1]
        start, stop = (frame_offset + (edge - 0.5) * frame_seconds for edge in (first, last))
        found.append(Word(text, start, stop, min(hypothesis.confidence[member] for member in members)))
    limits = [*(word.start for word in found), float("inf")][1:]
    return [replace(word, stop=min(word.stop + extension, limit)) for word, limit in zip(found, limits, strict=False)]


def _spelled(tokens: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """Each word with the positions of the tokens that spell it."""
    found: list[tuple[str, list[int]]] = [("", [])]
    for position, token in enumerate(tokens):
        for character in tokenizer.pieces[token]:
            if character == " ":
                found.append(("", []))
            else:
                text, members = found[-1]
                found[-1] = (text + character, [*members, position])
    return [(text, members) for text, members in found if text]


# --- paths ------------------------------------------------------------------------------------------------------------


def _log_probabilities(logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
    return logits.float().log_softmax(dim=-1)


def _collapsed(
    path: NDArray[np.int64], best: NDArray[np.float64], lengths: NDArray[np.int64], blank: int
) -> list[Hypothesis]:
    """Merge repeats and drop blanks of paths (B,T) with their log-probabilities (B,T); T > 0."""
    batch, frames = path.shape
    valid = np.arange(frames) < lengths[:, None]
    first = valid.copy()
    first[:, 1:] &= path[:, 1:] != path[:, :-1]
    row, start = np.nonzero(first)
    follows = np.r_[row[1:] == row[:-1], False] if len(row) else np.zeros(0, dtype=bool)
    stop = np.where(follows, np.roll(start, -1), lengths[row])
    total = np.concatenate([np.zeros((batch, 1)), np.cumsum(np.where(valid, best, 0.0), axis=1)], axis=1)
    token = path[row, start]
    confidence = np.exp((total[row, stop] - total[row, start]) / (stop - start))
    said = token != blank
    row, token, start, stop, confidence = (x[said] for x in (row, token, start, stop, confidence))
    edges = np.searchsorted(row, np.arange(batch + 1))
    found = []
    for b, (low, high) in enumerate(pairwise(edges.tolist())):
        spans = tuple(zip(start[low:high].tolist(), stop[low:high].tolist(), strict=True))
        tokens, sure = tuple(token[low:high].tolist()), tuple(confidence[low:high].tolist())
        found.append(Hypothesis(tokens, spans, sure, float(total[b, -1])))
    return found


def _text_score(scores: Float[Tensor, "T V"], tokens: Sequence[int], blank: int) -> float:
    """Log-probability of a text: the sum over all of its paths."""
    if len(scores) == 0:
        return 0.0
    sizes = torch.tensor([len(scores)]), torch.tensor([len(tokens)])
    targets = torch.tensor([list(tokens)], dtype=torch.int64)
    return -float(F.ctc_loss(scores.double()[:, None], targets, *sizes, blank=blank, reduction="sum"))


# --- search -----------------------------------------------------------------------------------------------------------


class _Prefixes:
    """A tree of texts: each is a number, and knows the text it prolongs and by which token. 0 is the empty one."""

    def __init__(self, blank: int) -> None:
        self.parent, self.token = [-1], [blank]  # the empty text ends in nothing that could repeat
        self._child: dict[tuple[int, int], int] = {}

    def child(self, parent: int, token: int) -> int:
        """The text ``parent`` with ``token`` after it."""
        number = self._child.setdefault((parent, token), len(self.parent))
        if number == len(self.parent):
            self.parent.append(parent)
            self.token.append(token)
        return number

    def spell(self, number: int) -> tuple[int, ...]:
        tokens = []
        while number:
            tokens.append(self.token[number])
            number = self.parent[number]
        return tuple(reversed(tokens))


def _search(scores: NDArray[np.float64], blank: int, beam: int | None) -> tuple[int, ...]:
    """The most probable text under log-probabilities (T,V).

    Of each text kept, the probability of its paths so far that end in a blank and of those that end in its last token
    are apart: only the former can go on with that token again as a new one.
    """
    tree = _Prefixes(blank)
    texts, in_blank, in_token = [0], np.zeros(1), np.full(1, -np.inf)
    for frame in scores:
        both = np.logaddexp(in_blank, in_token)
        last = np.array([tree.token[text] for text in texts])
        stay_blank, stay_token = both + frame[blank], in_token + frame[last]
        grow = both[:, None] + frame
        grow[np.arange(len(texts)), last] = in_blank + frame[last]
        grow[:, blank] = -np.inf
        _merge(tree, texts, stay_token, grow)
        total = np.concatenate([np.logaddexp(stay_blank, stay_token), grow.ravel()])
        kept = np.argsort(-total, kind="stable")[:beam]
        kept = kept[np.isfinite(total[kept])]
        count, width = len(texts), len(frame)
        texts = [
            texts[k] if k < count else tree.child(texts[(k - count) // width], (k - count) % width)
            for k in kept.tolist()
        ]
        never = np.full(grow.size, -np.inf)
        in_blank = np.concatenate([stay_blank, never])[kept]
        in_token = np.concatenate([stay_token, grow.ravel()])[kept]
    return tree.spell(texts[int(np.logaddexp(in_blank, in_token).argmax())])


def _merge(tree: _Prefixes, texts: list[int], stay: NDArray[np.float64], grow: NDArray[np.float64]) -> None:
    """Where a kept text grows into another kept one, give the probability to the latter."""
    row = {text: index for index, text in enumerate(texts)}
    for index, text in enumerate(texts):
        parent = row.get(tree.parent[text])
        if parent is not None:
            token = tree.token[text]
            stay[index] = np.logaddexp(stay[index], grow[parent, token])
            grow[parent, token] = -np.inf
