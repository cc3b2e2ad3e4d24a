from collections.abc import Callable

import pytest
import torch

from core.attention import MIXERS
from core.testing.attentions import MIXER_ORACLES
from core.testing.cases import WIDTH, MixerCase, mixer_cases
from core.testing.checks import compiles
from core.testing.mixers import MIXER_CHECKS
from core.testing.tolerances import draw, draw_mask


@pytest.mark.parametrize("check", MIXER_CHECKS.values(), ids=list(MIXER_CHECKS))
@pytest.mark.parametrize("case", mixer_cases(), ids=str)
def test_contract(case: MixerCase, check: Callable[[MixerCase], None]) -> None:
    check(case)


def test_every_mixer_has_an_oracle() -> None:
    assert set(MIXER_ORACLES) == set(MIXERS)


@pytest.mark.slow
@pytest.mark.parametrize("case", mixer_cases(), ids=str)
def test_inductor(case: MixerCase) -> None:
    masks = {"mask": draw_mask(2, 7)} if case.make().capabilities.masked else {}
    compiles(case.sized(7, torch.float32), draw(2, 7, WIDTH, dtype=torch.float32), masks, backend="inductor")
