"""The refusals of :class:`Mixer`, seen on a mixer that can do nothing special."""

import pytest
import torch
from torch import Tensor

from core.attention import Capabilities, Mixer
from core.errors import InputError
from core.testing.cases import MixerCase
from core.testing.mixers import MIXER_CHECKS


class Reverse(Mixer):
    """Reads the sequence backwards; refuses every mask."""

    capabilities = Capabilities()

    def mix(self, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
        return x.flip(1)


class Leaky(Mixer):
    """Claims to mask and does not: every sequence sees the mean of the batch."""

    capabilities = Capabilities(masked=True, pairwise=True, packed=True)

    def mix(self, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
        return x + x.mean((0, 1))


def reverse_oracle(module: object, x: Tensor, mask: Tensor | None, pair_mask: Tensor | None) -> Tensor:
    return x.flip(1)


@pytest.mark.parametrize("name", ["matches_oracle", "ignores_padding", "takes_packed_rows", "keeps_sequences_apart"])
def test_the_contract_serves_a_mixer_that_can_do_nothing(name: str) -> None:
    MIXER_CHECKS[name](MixerCase("reverse", Reverse, reverse_oracle))


@pytest.mark.parametrize("name", ["matches_oracle", "ignores_padding", "takes_packed_rows", "keeps_sequences_apart"])
def test_the_contract_catches_a_leak(name: str) -> None:
    with pytest.raises(AssertionError):
        MIXER_CHECKS[name](MixerCase("leaky", Leaky, reverse_oracle))


@pytest.mark.parametrize("asked", ["mask", "pair_mask"])
def test_what_it_cannot_do_is_refused(asked: str) -> None:
    masks = {"mask": torch.ones(2, 3, dtype=torch.bool), "pair_mask": torch.ones(3, 3, dtype=torch.bool)}
    with pytest.raises(InputError, match="Reverse: this mixer cannot do"):
        Reverse(4)(torch.zeros(2, 3, 4), **{asked: masks[asked]})


def test_width_must_be_positive() -> None:
    with pytest.raises(InputError, match="width >= 1"):
        Reverse(0)
