import pytest
import torch

from core.attention import Capabilities, Mixer, StickBreakingAttention
from core.errors import InputError
from core.layout import Entry, Request, build, mixer_options
from core.layout.build import TABLES
from core.testing.tolerances import draw

OFFERED = {"heads": 2, "dropout": 0.1, "init_scale": 0.5, "project": False, "tokens": 5}


@pytest.mark.parametrize("name", TABLES["mixer"])
@pytest.mark.parametrize("request_", [Request(), Request(causal=True), Request(masked=True, pairwise=True)])
def test_what_fits_can_be_built_and_does_what_was_asked(name: str, request_: Request) -> None:
    block = TABLES["mixer"][name]
    assert issubclass(block, Mixer)
    if request_.lacking(block) is not None:
        with pytest.raises(
            InputError, match=f"^model.mixer: {name!r} does not fit a test: it .*; these fit: .*softmax"
        ):
            mixer_options(name, request_, OFFERED, host="a test")
        return
    options = mixer_options(name, request_, OFFERED, host="a test")
    stack = build((Entry("mixer", name, options, placement="none"),), width=6).double().eval()
    x = draw(2, 5, 6)
    masks = {"mask": torch.ones(2, 5, dtype=torch.bool)} if request_.masked else {}
    pairs = torch.ones(5, 5, dtype=torch.bool).tril()
    if request_.pairwise:
        masks["pair_mask"] = pairs
    changed = x.clone()
    changed[:, 3:] += 1
    moved = (stack(changed, **masks) != stack(x, **masks)).any(-1)
    assert bool(moved[:, 3:].all())
    if request_.causal or request_.pairwise:
        assert not bool(moved[:, :3].any())


def test_options_are_those_that_the_mixer_takes() -> None:
    assert mixer_options("softmax", Request(position="rotary"), OFFERED, host="a test") == {
        "heads": 2,
        "dropout": 0.1,
        "init_scale": 0.5,
        "project": False,
        "causal": False,
        "position": "rotary",
    }
    assert mixer_options("random", Request(causal=True), OFFERED, host="a test") == {"tokens": 5, "causal": True}
    assert mixer_options("identity", Request(causal=True), OFFERED, host="a test") == {}


class OnAGrid(StickBreakingAttention):
    capabilities = Capabilities(grid=True, masked=True)
    positions = ("rotary",)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(), "needs a grid of tokens"),
        (Request(causal=True), "cannot be kept from reading later tokens"),
        (Request(pairwise=True), "takes no mask of pairs of tokens"),
    ],
)
def test_what_is_lacking(request_: Request, words: str) -> None:
    assert request_.lacking(OnAGrid) == words


def test_positions_and_lengths() -> None:
    softmax, linformer, nala = (TABLES["mixer"][name] for name in ("softmax", "linformer", "nala"))
    assert Request(position="alibi").lacking(softmax) is None  # type: ignore[arg-type]
    assert Request(position="alibi").lacking(nala) == "takes no position 'alibi'"  # type: ignore[arg-type]
    assert Request(any_length=True).lacking(linformer) == "is made for a number of tokens"  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no mixer 'softmaxx'; did you mean 'softmax'"):
        mixer_options("softmaxx", Request(), {}, host="a test")
