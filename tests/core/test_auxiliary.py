import pytest
import torch

from core.auxiliary import collected, contribute


def test_what_is_contributed_is_summed_with_its_graph() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    with collected() as extra:
        contribute(x.square())
        contribute(2 * x)
    (x.detach() + extra.total()).backward()
    assert x.grad is not None
    assert float(x.grad) == 8.0


def test_without_a_collector_contributions_vanish_and_no_contribution_is_zero() -> None:
    contribute(torch.tensor(1.0))
    with collected() as extra:
        pass
    contribute(torch.tensor(1.0))
    assert float(extra.total()) == 0.0


def test_an_inner_block_takes_its_own_and_an_error_ends_the_block() -> None:
    with collected() as outer:
        contribute(torch.tensor(1.0))
        with pytest.raises(RuntimeError):
            fail()
        contribute(torch.tensor(2.0))
    assert float(outer.total()) == 3.0


def fail() -> None:
    with collected() as inner:
        contribute(torch.tensor(5.0))
        assert float(inner.total()) == 5.0
        raise RuntimeError
