import pytest
import torch
from torch import nn

from core.clock import Stepped, advance
from core.errors import InputError
from core.norm import PRepBN


class Told(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[int, int]] = []

    def at_step(self, step: int, of: int) -> None:
        self.heard.append((step, of))


def test_every_module_that_asks_is_told_once_wherever_it_stands() -> None:
    inner, outer = Told(), Told()
    model = nn.Sequential(nn.Linear(2, 2), outer, nn.ModuleList([nn.Sequential(inner), inner]))
    advance(model, 3, 10)
    advance(outer, 4, 10)
    assert inner.heard == [(3, 10)]
    assert outer.heard == [(3, 10), (4, 10)]
    assert isinstance(outer, Stepped)
    assert not isinstance(model[0], Stepped)


@pytest.mark.parametrize(("step", "of"), [(-1, 10), (0, 0)])
def test_a_step_that_cannot_be_is_refused(step: int, of: int) -> None:
    with pytest.raises(InputError, match=f"advance: no step {step} of {of}"):
        advance(nn.Linear(2, 2), step, of)


def test_a_module_that_was_never_told_says_so_in_training_only() -> None:
    norm = PRepBN(3)
    x = torch.ones(2, 3)
    with pytest.raises(InputError, match="prepbn: does not know how far") as error:
        norm(x)
    assert "\n" not in str(error.value)
    norm.eval()(x)
