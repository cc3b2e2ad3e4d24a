from __future__ import annotations

import pytest
import torch

from core.kernels import conv_length, depthwise_conv1d, depthwise_conv1d_reference
from core.testing.checks import compiles
from core.testing.tolerances import assert_close, draw

SHAPES = [  # kernel, stride, left, right
    (31, 1, 15, 15),
    (31, 1, 30, 0),
    (5, 2, 0, 3),
    (5, 2, 3, 3),
    (3, 2, 1, 0),
    (4, 3, 0, 2),
    (1, 1, 0, 0),
]


def written_out(x, weight, bias, *, stride, left, right):
    """The definition, output after output, in float64."""
    length, kernel = x.shape[1], weight.shape[2]
    firsts = range(-left, length + right - kernel + 1, stride)
    rows = []
    for first in firsts:
        taps = [j for j in range(kernel) if 0 <= first + j < length]
        read = x[:, [first + j for j in taps]].double()
        row = (read * weight[:, 0, taps].double().T).sum(1)
        row = row if bias is None else row + bias.double()
        rows.append(row)
    return torch.stack(rows, 1) if rows else x[:, :0].double()


@pytest.mark.parametrize(("kernel", "stride", "left", "right"), SHAPES)
@pytest.mark.parametrize("length", [0, 1, 6, 40])
@pytest.mark.parametrize("form", [depthwise_conv1d, depthwise_conv1d_reference])
def test_equals_the_definition_gradients_included(form, length, kernel, stride, left, right):
    padding = {"stride": stride, "left": left, "right": right}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        inputs = [
            draw(2, length, 3, dtype=dtype).requires_grad_(),
            draw(3, 1, kernel, dtype=dtype, seed=1).requires_grad_(),
            draw(3, dtype=dtype, seed=2).requires_grad_(),
        ]
        y, wanted = form(*inputs, **padding), written_out(*inputs, **padding)
        assert y.dtype == dtype
        assert y.shape[1] == conv_length(length, kernel, **padding) == wanted.shape[1]
        weights = draw(*y.shape, seed=3)
        results = [[y], [wanted]]
        for result in results:
            loss = (result[0].double() * weights).sum()
            result += torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        for got, expected in zip(*results, strict=True):
            assert_close(got, expected, dtype, f"kernel {kernel}, {length} elements")


@pytest.mark.parametrize("channels", [1, 16, 17, 40])
def test_sixteen_bits_return_for_few_channels(channels):
    """One of torch's forms of this never does."""
    x, weight = draw(2, 63, channels, dtype=torch.bfloat16), draw(channels, 1, 31, dtype=torch.bfloat16)
    assert_close(
        depthwise_conv1d(x, weight, left=15, right=15),
        written_out(x, weight, None, stride=1, left=15, right=15),
        torch.bfloat16,
        f"{channels} channels",
    )


def test_without_bias_and_for_one_operand_only():
    x, weight = draw(2, 9, 4), draw(4, 1, 3, seed=1).requires_grad_()
    y = depthwise_conv1d(x, weight, left=1, right=1)
    wanted = written_out(x, weight, None, stride=1, left=1, right=1)
    torch.testing.assert_close(y, wanted)
    ours, theirs = (torch.autograd.grad(result.square().sum(), weight)[0] for result in (y, wanted))
    torch.testing.assert_close(ours, theirs)


def test_gradients_are_true_with_slices_and_strides():
    x, weight, bias = draw(2, 7, 6).requires_grad_(), draw(3, 1, 4, seed=1).requires_grad_(), draw(3).requires_grad_()
    # a slice of channels is not contiguous, nor is the gradient of a transposed result
    assert torch.autograd.gradcheck(
        lambda x, w, b: depthwise_conv1d(x[..., ::2], w, b, stride=2, left=1, right=2).transpose(0, 1),
        (x, weight, bias),
    )


def test_an_empty_batch():
    assert depthwise_conv1d(torch.zeros(0, 7, 3), torch.ones(3, 1, 3), left=1, right=1).shape == (0, 7, 3)


def test_the_result_lies_like_the_input():
    assert depthwise_conv1d(torch.zeros(2, 7, 8), torch.zeros(8, 1, 3), left=1, right=1).is_contiguous()


def test_autocast_computes_in_its_dtype():
    x, weight = draw(2, 9, 4, dtype=torch.float32), draw(4, 1, 3, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv1d(x, weight, left=1, right=1)
    assert y.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(y.float().sum(), weight)
    assert grad.dtype == torch.float32


def test_lengths_as_numbers_and_as_tensors():
    for kernel, stride, left, right in SHAPES:
        padding = {"stride": stride, "left": left, "right": right}
        lengths = torch.arange(60)
        assert conv_length(lengths, kernel, **padding).tolist() == [
            conv_length(n, kernel, **padding) for n in range(60)
        ]


@pytest.mark.untyped
def test_compiles_to_one_graph():
    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(draw(4, 1, 5))
            self.bias = torch.nn.Parameter(draw(4))

        def forward(self, x):
            return depthwise_conv1d(x, self.weight, self.bias, left=4)

    compiles(Convolution(), draw(2, 9, 4), {})


@pytest.mark.parametrize(("batch", "length", "left", "right"), [(24, 25, 15, 15), (40, 13, 10, 20), (9, 70, 15, 15)])
def test_gradients_of_a_batch_that_is_joined_or_taken_in_pieces(batch, length, left, right):
    x, weight = draw(batch, length, 192).requires_grad_(), draw(192, 1, 31, seed=1).requires_grad_()
    gradients = []
    for form in (depthwise_conv1d, depthwise_conv1d_reference):
        y = form(x, weight, left=left, right=right)
        gradients.append(torch.autograd.grad((y * draw(*y.shape, seed=2)).sum(), (x, weight)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
