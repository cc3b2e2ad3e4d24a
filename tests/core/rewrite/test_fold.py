"""What scales and shifts, outside training, moves into the maps beside it."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from apps.asr.config import ModelConfig
from apps.asr.model import Squeezeformer
from core.convolution import ConvolutionModule
from core.errors import InputError
from core.layout import Entry, Repeat, Stack, build
from core.norm import NORMS, Identity
from core.rewrite import Evidence, Rewrite, pass_named, replay, rewrite
from core.rewrite.fold import reads
from core.testing.tolerances import draw, draw_mask

WIDTH = 8
NEAR = {"rtol": 1e-10, "atol": 1e-11}
MIX = Entry("mixer", "softmax", {"heads": 2})
MLP = Entry("feedforward", "mlp", {"hidden": 12})
BLOCKS = [
    MIX,
    Entry("mixer", "relative", {"heads": 2}),
    Entry("mixer", "softmax", {"heads": 2, "bias": False}),
    Entry("mixer", "convolution", {"kernel": 5}),
    Entry("mixer", "convolution", {"kernel": 5, "activation": "glu", "causal": True, "norm": "layernorm"}),
    MLP,
    Entry("feedforward", "glu", {"hidden": 12, "bias": False}),
    Entry("feedforward", "experts", {"hidden": 5, "active": 1}),
    Entry("feedforward", "experts", {"hidden": 5, "active": 1, "router": "average"}),
]


def randomised(model: Any) -> Any:
    with torch.no_grad():
        for index, (name, value) in enumerate([*model.named_parameters(), *model.named_buffers()]):
            if value.is_floating_point():
                drawn = 0.5 * draw(*value.shape, seed=index)
                value.copy_(drawn.abs() + 0.5 if "running_var" in name else drawn)
    return model.double().eval()


def stack_of(*layout: Any) -> Stack:
    made: Stack = randomised(build(layout, WIDTH))
    return made


def compared(stack: Stack, *, exact: float = 1e-10) -> tuple[Stack, Mapping[str, Any]]:
    """The folded stack, with a mask and packed, compared; replayed on a new one; its decision."""
    x, mask, offsets = draw(3, 6, WIDTH), draw_mask(3, 6), torch.tensor([0, 4, 9])
    state = copy.deepcopy(stack.state_dict())
    done = rewrite(stack, "fold", evidence=Evidence(run=lambda model: model(x.to(_kind(model)), mask=mask)))
    assert done.status == "exact in evaluation"
    assert done.change64 is not None
    assert done.change32 is not None
    assert done.change64 < exact
    assert done.change32 < 1e-5
    torch.testing.assert_close(done.model(x), stack(x), **NEAR)
    rows = draw(9, WIDTH)
    torch.testing.assert_close(done.model(rows, offsets=offsets), stack(rows, offsets=offsets), **NEAR)
    assert all(torch.equal(value, state[name]) for name, value in stack.state_dict().items()), "the original changed"
    return done.model, done.rewrite.decision


def _kind(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


@pytest.mark.parametrize("placement", ["pre", "post", "peri", "none"])
@pytest.mark.parametrize("entry", BLOCKS, ids=lambda entry: f"{entry.name}-{len(entry.options)}")
def test_scales_and_affines_fold_away(entry: Entry, placement: Any) -> None:
    entry = dataclasses.replace(entry, placement=placement, scale=True)
    layout = (Repeat((entry,), 2), dataclasses.replace(entry, share="s"), dataclasses.replace(entry, share="s"))
    folded, decision = compared(stack_of(*layout))
    assert decision["scales"] == [f"sublayers.{index}" for index in range(3)]
    assert list(decision["norms"]) == ([] if placement in ("post", "none") else decision["scales"])
    assert not any(".scale." in name for name in folded.state_dict())
    affine = [name for name in folded.state_dict() if ".norms.0.weight" in name]
    assert len(affine) == (3 if placement == "post" else 0)
    assert not any(each.scale for each in folded.entries)
    with pytest.raises(InputError, match="nothing can be folded"):
        rewrite(folded, "fold")


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_before_a_block(name: str) -> None:
    options: dict[str, Any] = {"eps": 0.1} | ({"groups": 2} if name == "groupnorm" else {})
    layout = [
        dataclasses.replace(each, norm=name, norm_options=options, scale=index == 0, drop=0.1)
        for index, each in enumerate((MIX, BLOCKS[3], BLOCKS[7], MLP))
    ]
    folded, decision = compared(stack_of(*layout))
    norms = [sublayer.norms[0] for sublayer in folded.sublayers]
    assert not any(True for norm in norms for _ in norm.parameters())
    assert decision["norms"] == {} if name == "identity" else dict.fromkeys(_paths(4), name)
    assert decision["convolutions"] == {"sublayers.1.block": "batchnorm"}
    whole = name in ("batchnorm", "prepbn", "unifiednorm", "identity")
    assert all(isinstance(norm, Identity) == whole and norm.eps == 0.1 for norm in norms)
    assert {entry.norm for entry in folded.entries} == {"identity" if whole else name}
    built = build(tuple(folded.entries), WIDTH)
    assert set(built.state_dict()) >= {key for key in folded.state_dict() if "norms" in key}


def _paths(count: int) -> list[str]:
    return [f"sublayers.{index}" for index in range(count)]


@pytest.mark.parametrize("norm", ["batchnorm", "prepbn", "unifiednorm"])
def test_a_batch_norm_moves_into_the_convolution_before(norm: str) -> None:
    entry = Entry("mixer", "convolution", {"kernel": 3, "norm": norm}, placement="post")
    folded, decision = compared(stack_of(entry, entry))
    assert decision == {"scales": [], "norms": {}, "convolutions": dict.fromkeys(_blocks(2), norm)}
    blocks = [module for module in folded.modules() if isinstance(module, ConvolutionModule)]
    assert all(isinstance(block.norm, Identity) for block in blocks)


def _blocks(count: int) -> list[str]:
    return [f"{path}.block" for path in _paths(count)]


def test_a_map_without_a_bias_gains_one_and_weights_stay_where_they_lie() -> None:
    stack = stack_of(dataclasses.replace(BLOCKS[2], norm_options={"bias": False}, scale=True), BLOCKS[6])
    folded, _ = compared(stack)
    assert all(linear.bias is not None for sublayer in folded.sublayers for linear in reads(sublayer.block))
    plain, _ = compared(stack_of(dataclasses.replace(BLOCKS[2], norm="rmsnorm")))
    assert reads(plain.sublayers[0].block)[0].bias is None


def test_what_does_not_read_linearly_keeps_its_norm_and_scale() -> None:
    minimal = Entry("mixer", "minimal", {}, scale=True)
    stack = stack_of(minimal, MLP)
    folded, decision = compared(stack)
    assert decision == {"scales": [], "norms": {"sublayers.1": "layernorm"}, "convolutions": {}}
    assert [each.scale for each in folded.entries] == [True, False]
    assert len(list(folded.sublayers[0].norms.parameters())) == 2


def test_a_block_between_norms_of_its_own_keeps_them() -> None:
    shared = dataclasses.replace(MLP, share="mlp", share_norms=False)
    _, decision = compared(stack_of(shared, shared, MIX))
    assert decision["norms"] == {"sublayers.2": "layernorm"}
    with pytest.raises(InputError, match="nothing can be folded"):
        rewrite(stack_of(shared, shared), "fold")


def test_a_folded_model_is_replayed() -> None:
    layout = tuple(dataclasses.replace(each, norm="prepbn", scale=True) for each in BLOCKS[:4])
    folded, decision = compared(stack_of(*layout))
    again = replay(build(layout, WIDTH).double(), [Rewrite("fold", decision)])
    assert again.training
    again.load_state_dict(folded.state_dict())
    x, mask = draw(3, 6, WIDTH), draw_mask(3, 6)
    assert torch.equal(again.eval()(x, mask=mask), folded(x, mask=mask))


@pytest.mark.parametrize("changes", [{}, {"placement": "pre", "norm": "prepbn", "conv_norm": "prepbn"}])
def test_speech(changes: dict[str, Any]) -> None:
    config = ModelConfig(width=6, layers=3, heads=2, reduce=1, kernel=5, **changes)
    model: Squeezeformer = randomised(Squeezeformer(8, 7, config))
    features, lengths = draw(3, 41, 8, seed=1), torch.tensor([41, 40, 23])

    def run(network: nn.Module) -> torch.Tensor:
        logits, counts = network(features.to(_kind(network)), lengths)
        return torch.cat([row[:n] for row, n in zip(logits, counts.tolist(), strict=True)])

    done = rewrite(model, "fold", evidence=Evidence(run=run))
    assert len(done.rewrite.decision["scales"]) == 12
    assert set(done.rewrite.decision["norms"].values()) == ({"prepbn"} if changes else set())
    assert len(done.rewrite.decision["convolutions"]) == 3
    again = replay(Squeezeformer(8, 7, config).double(), [done.rewrite])
    again.load_state_dict(done.model.state_dict())
    assert torch.equal(run(again.eval()), run(done.model))


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ({}, "holds no 'scales'"),
        ({"scales": ["sublayers.0"], "norms": {}, "convolutions": {}}, "sublayers.0: has no input scale"),
        ({"scales": [], "norms": {"sublayers.0": "prepbn"}, "convolutions": {}}, "sublayers.0: has no prepbn"),
        ({"scales": [], "norms": {}, "convolutions": {"sublayers.0.block": "batchnorm"}}, "is no convolution module"),
        ({"scales": [], "norms": {}, "convolutions": {"sublayers.1.block": "prepbn"}}, "has no prepbn"),
    ],
)
def test_decisions_that_do_not_fit_are_refused(decision: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pass_named("fold").apply(stack_of(MLP, BLOCKS[3]), decision)
