import pytest
import torch

from core.convolution import SeparableConvolution
from core.errors import InputError
from core.optim import route
from core.testing.tolerances import draw


def delta(width: int = 4, kernel: int = 7) -> SeparableConvolution:
    """Linear maps that copy, and taps that read their own position."""
    mixer = SeparableConvolution(width, kernel=kernel).double()
    with torch.no_grad():
        mixer.pointwise_in.weight.copy_(torch.eye(2 * width)[:, :width])
        mixer.pointwise_out.weight.copy_(torch.eye(2 * width)[:width])
        mixer.taps.zero_()
        mixer.taps[:, 0, kernel // 2] = 1
    return mixer


def test_identities_around_a_delta_are_the_activation() -> None:
    mixer, x = delta(), draw(2, 9, 4)
    torch.testing.assert_close(mixer(x), x.clamp(min=0) ** 2, rtol=1e-12, atol=1e-12)  # squared ReLU at the start
    with torch.no_grad():
        mixer.activation.scale.fill_(0.5)
        mixer.activation.bias.fill_(-0.25)
    torch.testing.assert_close(mixer(x), 0.5 * x.clamp(min=0) ** 2 - 0.25, rtol=1e-12, atol=1e-12)


def test_the_activation_can_have_mean_zero_and_variance_one() -> None:
    mixer = delta(width=1, kernel=1)
    with torch.no_grad():
        mixer.activation.scale.fill_(1.25**-0.5)
        mixer.activation.bias.fill_(-0.5 * 1.25**-0.5)
        y = mixer(draw(1, 1_000_000, 1))
    assert abs(float(y.mean())) < 3e-3
    assert float(y.var()) == pytest.approx(1, abs=1e-2)


def test_a_constant_beyond_the_sequence_is_not_read() -> None:
    mixer, x = delta(), draw(1, 5, 4)
    with torch.no_grad():
        mixer.activation.bias.fill_(1.0)
        mixer.taps.fill_(1.0)
    padded = torch.cat([x, torch.full((1, 4, 4), 7.0, dtype=torch.float64)], dim=1)
    mask = torch.arange(9)[None] < 5
    torch.testing.assert_close(mixer(padded, mask=mask)[:, :5], mixer(x), rtol=1e-12, atol=1e-12)
    ones = mixer(torch.zeros(1, 9, 4, dtype=torch.float64))[0, :, 0]  # how many taps meet the sequence
    assert ones.tolist() == [4, 5, 6, 7, 7, 7, 6, 5, 4]


def test_parameters_start_and_roles() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = SeparableConvolution(64)
    assert sum(p.numel() for p in mixer.parameters()) == 4 * 64**2 + 2 * 64 * 7 + 2
    assert float(mixer.pointwise_in.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(mixer.taps.detach().abs().max()) == pytest.approx(7**-0.5, rel=0.05)
    roles = {routed.name: routed.role for routed in route(mixer).entries}
    assert (roles["taps"], roles["activation.scale"], roles["activation.bias"]) == ("matrix", "gain", "bias")


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="must be odd, not 4"):
        SeparableConvolution(8, kernel=4)
