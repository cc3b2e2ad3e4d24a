from collections.abc import Callable

import pytest
import torch

from core.attention import MIXERS
from core.convolution import CONVOLUTIONS
from core.testing.cases import WIDTH, MixerCase, convolution_cases
from core.testing.checks import compiles
from core.testing.convolutions import CONVOLUTION_ORACLES
from core.testing.mixers import MIXER_CHECKS
from core.testing.tolerances import draw, draw_mask


@pytest.mark.parametrize("check", MIXER_CHECKS.values(), ids=list(MIXER_CHECKS))
@pytest.mark.parametrize("case", convolution_cases(), ids=str)
def test_contract(case: MixerCase, check: Callable[[MixerCase], None]) -> None:
    check(case)


def test_every_member_has_an_oracle_and_a_name_of_its_own() -> None:
    assert set(CONVOLUTION_ORACLES) == set(CONVOLUTIONS)
    assert not set(CONVOLUTIONS) & set(MIXERS)


@pytest.mark.slow
@pytest.mark.parametrize("case", convolution_cases(), ids=str)
def test_inductor(case: MixerCase) -> None:
    x = draw(2, 7, WIDTH, dtype=torch.float32)
    compiles(case.make(torch.float32), x, {"mask": draw_mask(2, 7)}, backend="inductor")
