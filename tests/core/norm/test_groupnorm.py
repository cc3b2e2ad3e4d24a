import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.errors import InputError
from core.norm import GroupNorm, LayerNorm
from core.testing.tolerances import draw, draw_mask

WIDTH = 6


def drawn(groups: int = 1) -> GroupNorm:
    norm = GroupNorm(WIDTH, groups=groups, eps=1e-3).double()
    with torch.no_grad():
        for index, parameter in enumerate(norm.parameters()):
            parameter.copy_(draw(WIDTH, seed=index))
    return norm


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_it_is_torchs_on_channels_first(groups: int) -> None:
    norm, theirs = drawn(groups), nn.GroupNorm(groups, WIDTH, eps=1e-3).double()
    theirs.load_state_dict(norm.state_dict())
    x = draw(3, 7, WIDTH)
    torch.testing.assert_close(norm(x), theirs(x.transpose(1, 2)).transpose(1, 2), rtol=1e-12, atol=1e-12)
    image = draw(3, 4, 5, WIDTH)
    wanted = theirs(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(norm(image), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(x[0]), theirs(x[0]), rtol=1e-12, atol=1e-12)


def test_rows_by_themselves_are_layer_norm() -> None:
    norm, layer = drawn(), LayerNorm(WIDTH, eps=1e-3).double()
    layer.load_state_dict(norm.state_dict())
    x = draw(9, WIDTH)
    torch.testing.assert_close(norm(x), layer(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(x[:, None]), layer(x[:, None]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(x[0]), layer(x[0]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_reaches_nothing(garbage: float) -> None:
    norm, mask = drawn(2), draw_mask(3, 7, seed=3)
    mask[2] = False
    x = draw(3, 7, WIDTH).masked_fill(~mask[..., None], garbage).requires_grad_()
    y = norm(x, mask)
    grads = torch.autograd.grad(y.square().sum(), [x, *norm.parameters()])
    assert all(bool(grad.isfinite().all()) for grad in grads)
    assert not bool(grads[0][~mask].any())
    assert not bool(y[~mask].any())
    for b in range(2):
        real = x[b][mask[b]].T[None]
        wanted = F.group_norm(real, 2, norm.weight, norm.bias, 1e-3)[0].T
        torch.testing.assert_close(y[b][mask[b]], wanted, rtol=1e-11, atol=1e-12)


def test_gradients_with_a_mask_are_true() -> None:
    norm, mask = drawn(3), draw_mask(2, 4, seed=5)
    x = draw(2, 4, WIDTH).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: norm(x, mask), (x, *norm.parameters()))


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="groupnorm: 4 groups do not divide the width 6"):
        GroupNorm(6, groups=4)
