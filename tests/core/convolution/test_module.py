from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.convolution import ConvolutionModule, DepthwiseConv
from core.errors import InputError
from core.norm import BatchNorm
from core.optim import route
from core.testing.convolutions import depthwise_oracle
from core.testing.tolerances import draw, draw_mask

WIDTH = 4


def module(**options: Any) -> ConvolutionModule:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvolutionModule(WIDTH, **{"kernel": 5, **options}).double()


def by_torch(block: ConvolutionModule, rows: list[Tensor]) -> list[Tensor]:
    """The module in training on sequences of their own lengths, with torch's batch norm over all of their elements."""
    channels = block.depthwise.channels
    norm = nn.BatchNorm1d(channels, eps=block.norm.eps, dtype=torch.float64)
    convolved = []
    for x in rows:
        h = block.pointwise_in(x)
        h = F.silu(h) if block.activation == "swish" else F.glu(h)
        h = F.pad(h.T[None], (block.depthwise.left, block.depthwise.right))
        convolved.append(F.conv1d(h, block.depthwise.weight, block.depthwise.bias, groups=channels)[0].T)
    normed = norm(torch.cat(convolved)).split([len(x) for x in rows])
    return [block.pointwise_out(F.silu(h)) for h in normed]


@pytest.mark.parametrize("options", [{}, {"activation": "glu", "causal": True}])
def test_training_on_a_padded_batch_is_training_on_its_real_frames(options: dict[str, Any]) -> None:
    lengths = [6, 1, 0, 3]
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    for garbage in (0.0, float("nan"), 1e30):
        block = module(**options)
        x = draw(4, 7, WIDTH).masked_fill(~mask[..., None], garbage).requires_grad_()
        y = block(x, mask=mask)
        wanted = torch.cat(by_torch(block, [x[b, :n] for b, n in enumerate(lengths) if n]))
        torch.testing.assert_close(y[mask], wanted, rtol=1e-10, atol=1e-12)
        weights = draw(*wanted.shape, seed=5)
        parameters = [x, *(p for name, p in block.named_parameters() if not name.startswith("norm."))]
        ours = torch.autograd.grad((y[mask] * weights).sum(), parameters)
        theirs = torch.autograd.grad((wanted * weights).sum(), parameters)
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_packed_rows_train_like_padded_ones() -> None:
    padded, packed = module(), module()
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    x = draw(2, 5, WIDTH)
    y = padded(x, mask=mask)
    torch.testing.assert_close(packed(x[mask], offsets=torch.tensor([0, 5, 7])), y[mask])
    assert isinstance(padded.norm, BatchNorm)
    assert isinstance(packed.norm, BatchNorm)
    torch.testing.assert_close(packed.norm.running_var, padded.norm.running_var)


def test_a_batch_norm_that_counts_padding_depends_on_it() -> None:
    results = []
    for masked in (True, False):
        block = module(norm_options={"masked": masked})
        x, mask = draw(2, 5, WIDTH), draw_mask(2, 5)
        mask[:, 4] = False
        results.append((block(x[:, :4], mask=mask[:, :4]) - block(x, mask=mask)[:, :4]).abs().max())
    assert results[0] < 1e-12
    assert results[1] > 1e-3


@pytest.mark.parametrize(("causal", "reach"), [(False, [1, 2, 3, 4, 5]), (True, [3, 4, 5, 6, 7])])
def test_how_far_a_frame_reaches(causal: bool, reach: list[int]) -> None:
    block = module(causal=causal).eval()
    x = draw(1, 9, WIDTH)
    changed = x.clone()
    changed[:, 3] += 1
    moved = (block(changed) != block(x)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == reach


def test_options_reach_the_norm_and_widths_follow_the_activation() -> None:
    swish = module(norm_options={"eps": 1e-3, "momentum": 0.015, "masked": False})
    assert isinstance(swish.norm, BatchNorm)
    assert (swish.norm.eps, swish.norm.momentum, swish.norm.masked) == (1e-3, 0.015, False)
    assert [swish.depthwise.channels, swish.norm.width] == [8, 8]
    glu = module(activation="glu")
    assert [glu.depthwise.channels, glu.norm.width, glu.pointwise_out.in_features] == [4, 4, 4]
    count = {"swish": 4 * WIDTH**2 + (3 + 2 * 31 + 2 + 4) * WIDTH, "glu": 3 * WIDTH**2 + (3 + 31 + 1 + 2) * WIDTH}
    for activation, wanted in count.items():
        assert sum(p.numel() for p in module(activation=activation, kernel=31).parameters()) == wanted


def test_roles_of_the_parameters() -> None:
    roles = {entry.name: entry.role for entry in route(module()).entries}
    assert roles == {
        "pointwise_in.weight": "matrix",
        "pointwise_in.bias": "bias",
        "depthwise.weight": "matrix",
        "depthwise.bias": "bias",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "pointwise_out.weight": "matrix",
        "pointwise_out.bias": "bias",
    }


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel": 4}, "convolution: the kernel must be odd, not 4"),
        ({"activation": "relu"}, "no activation 'relu'; swish or glu"),
        ({"norm": "batchnrm"}, r"convolution: no norm 'batchnrm'; did you mean 'batchnorm'\?"),
        ({"norm_options": {"momentun": 1}}, r"norm 'batchnorm': no option 'momentun'; did you mean 'momentum'\?"),
        ({"norm_options": {"eps": -1.0}}, "norm 'batchnorm'.*eps > 0"),
    ],
)
def test_mistakes_are_said_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        module(**options)
    assert "\n" not in str(error.value)


def test_a_depthwise_layer_with_its_lengths_and_torchs_state() -> None:
    ours = DepthwiseConv(3, 5, stride=2, right=3).double()
    theirs = nn.Conv1d(3, 3, 5, stride=2, groups=3).double()
    ours.load_state_dict(theirs.state_dict())
    lengths = torch.arange(9)
    assert ours.output_lengths(lengths).tolist() == [n // 2 for n in range(9)]
    for n in range(9):
        x = draw(2, n, 3)
        y = ours(x)
        assert y.shape[1] == n // 2
        torch.testing.assert_close(y, torch.stack([depthwise_oracle(ours, row) for row in x]))
        if n > 1:
            torch.testing.assert_close(y, theirs(F.pad(x.transpose(1, 2), (0, 3))).transpose(1, 2))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_a_depthwise_layer_refuses_nonsense(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="depth-wise convolution: channels, kernel and stride"):
        DepthwiseConv(*sizes)
