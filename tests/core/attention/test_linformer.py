import pytest
import torch

from core.attention import Linformer, SoftmaxAttention
from core.errors import InputError
from core.optim import route
from core.testing.tolerances import draw, draw_mask


def identities(n: int) -> tuple[Linformer, SoftmaxAttention]:
    """Every mixture a token: E = F = I, beside softmax attention with the same maps."""
    mixer, softmax = Linformer(6, 2, tokens=n, k=n).double(), SoftmaxAttention(6, 2).double()
    maps = {name: value for name, value in mixer.state_dict().items() if not name.startswith("mix")}
    softmax.load_state_dict(maps)
    with torch.no_grad():
        mixer.mix_keys.copy_(torch.eye(n))
        assert mixer.mix_values is not None
        mixer.mix_values.copy_(torch.eye(n))
    return mixer, softmax


def test_a_mixture_a_token_is_softmax_attention() -> None:
    mixer, softmax = identities(9)
    x = draw(2, 9, 6)
    torch.testing.assert_close(mixer(x), softmax(x), rtol=1e-11, atol=1e-12)


def test_masked_keys_are_left_out_of_the_mixtures() -> None:
    mixer, x, mask = Linformer(6, 2, tokens=9, k=4).double(), draw(1, 9, 6), draw_mask(1, 9)
    assert bool((~mask).any())
    without = Linformer(6, 2, tokens=9, k=4).double()
    without.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        without.mix_keys[:, ~mask[0]] = 0
        assert without.mix_values is not None
        without.mix_values[:, ~mask[0]] = 0
    torch.testing.assert_close(mixer(x, mask=mask)[mask], without(x)[mask], rtol=1e-11, atol=1e-12)


def test_a_shorter_sequence_uses_the_first_columns() -> None:
    mixer, short = Linformer(6, 2, tokens=9, k=4).double(), Linformer(6, 2, tokens=5, k=4).double()
    state = mixer.state_dict()
    short.load_state_dict({name: value[:, :5] if name.startswith("mix") else value for name, value in state.items()})
    x = draw(2, 5, 6)
    torch.testing.assert_close(mixer(x), short(x), rtol=1e-11, atol=1e-12)


def test_weights_add_up_to_one() -> None:
    mixer = Linformer(6, 2, tokens=9, k=4, project=False).double()
    with torch.no_grad():  # every mixed value is one where each mixture adds up to one
        mixer.qkv.weight[12:] = 0
        mixer.qkv.bias[12:] = 1
        assert mixer.mix_values is not None
        mixer.mix_values.copy_(mixer.mix_values.softmax(-1))
    y = mixer(draw(2, 9, 6))
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_parameters_roles_and_start(shared: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = Linformer(8, 2, tokens=300, k=64, shared=shared)
    maps = 4 * 8**2 + 4 * 8
    assert sum(p.numel() for p in mixer.parameters()) == maps + 64 * 300 * (1 if shared else 2)
    assert float(mixer.mix_keys.detach().abs().max()) == pytest.approx(1 / 8, rel=0.01)
    roles = {routed.name: routed.role for routed in route(mixer).entries}
    assert roles["mix_keys"] == "matrix"


@pytest.mark.parametrize(("tokens", "mixtures"), [(7, 7), (256, 256), (1000, 256)])
def test_mixtures_where_none_are_named(tokens: int, mixtures: int) -> None:
    assert Linformer(4, 1, tokens=tokens).mix_keys.shape == (mixtures, tokens)


def test_refusals() -> None:
    with pytest.raises(InputError, match="10 tokens; it was made for up to 9"):
        Linformer(4, 1, tokens=9)(torch.zeros(1, 10, 4))
    with pytest.raises(InputError, match="10 tokens; it was made for up to 9"):
        Linformer(4, 1, tokens=9)(torch.zeros(12, 4), offsets=torch.tensor([0, 2, 12]))
    with pytest.raises(InputError, match="at least one mixture"):
        Linformer(4, 1, tokens=9, k=0)
