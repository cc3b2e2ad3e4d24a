import pytest
import torch
from torch import nn

from core.attention import MinimalAttention, RelativeAttention, SoftmaxAttention, TopKAttention
from core.errors import InputError
from core.layout import Entry
from core.rewrite import Evidence, Rewrite, blocks_of, replay, rewrite
from core.rewrite.collapse import CollapseOptions, collapsed
from core.testing.tolerances import draw, draw_mask

D = 6
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def with_values(block: nn.Module) -> nn.Module:
    block = block.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(block.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=seed))
    return block


def attentions() -> list[nn.Module]:
    softmax = [
        SoftmaxAttention(D, 1, causal=causal, bias=bias, project=project)
        for causal in (False, True)
        for bias in (False, True)
        for project in (False, True)
    ]
    kinds = (("full", "full"), ("full", "none"), ("full", "collapsed"), ("collapsed", "full"), ("symmetric", "full"))
    minimal = [MinimalAttention(D, qk=qk, vo=vo, bias=bias) for qk, vo in kinds for bias in (False, True)]
    return [with_values(each) for each in (*softmax, *minimal)]


@pytest.mark.parametrize("block", attentions(), ids=str)
@pytest.mark.parametrize("masks", ["none", "mask", "pairs", "both", "batch", "nothing", "packed"])
def test_it_is_the_same_under_every_mask(block: nn.Module, masks: str) -> None:
    """Also where a query may read nothing: what it got before the output projection was zero, and so it stays."""
    x, mask, pairs = draw(3, 7, D), draw_mask(3, 7), draw_mask(7, 7, share=0.3)
    pairs[2] = False
    given = {
        "none": {},
        "mask": {"mask": mask},
        "pairs": {"pair_mask": pairs},
        "both": {"mask": mask, "pair_mask": pairs},
        "batch": {"mask": mask, "pair_mask": draw_mask(3, 7, 7, share=0.3)},
        "nothing": {"pair_mask": torch.zeros(7, 7, dtype=torch.bool)},
        "packed": {"offsets": torch.tensor([0, 4, 4, 7])},
    }[masks]
    x = x[0] if masks == "packed" else x
    small = collapsed(block)
    assert (small.qk in ("collapsed", "symmetric"), small.vo in ("collapsed", "none")) == (True, True)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = draw(*x.shape, seed=7)
    (block(first, **given) * weights).sum().backward()
    (small(second, **given) * weights).sum().backward()
    torch.testing.assert_close(small(x, **given), block(x, **given), **CLOSE)
    torch.testing.assert_close(second.grad, first.grad, **CLOSE)


def test_sizes() -> None:
    """4 D^2 weights become 2 D^2, without an output projection 3 D^2; a bias of the queries, of the result, a shift."""
    for project, bias, before, after in (
        (True, False, 4 * D * D, 2 * D * D),
        (False, False, 3 * D * D, 2 * D * D),
        (True, True, 4 * D * D + 4 * D, 2 * D * D + 3 * D),
    ):
        block = SoftmaxAttention(D, 1, project=project, bias=bias)
        assert sum(p.numel() for p in block.parameters()) == before
        assert sum(p.numel() for p in collapsed(block).parameters()) == after
    state = torch.random.get_rng_state()
    collapsed(block)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("mask", ["semi_permeable", "full", "reversed"])
def test_tables_with_one_head(hosts, mask: str) -> None:
    made = hosts.tables(heads=1, mask=mask)
    done = rewrite(made.make(), "collapse", None, made.evidence())
    assert done.status == "exact"
    assert done.change64 < 1e-10
    made.replays(done)
    assert len(blocks_of(done.model, MinimalAttention)) == 2
    assert not blocks_of(done.model, SoftmaxAttention)
    assert {line.name for line in done.model.stack.describe()} == {"minimal", "glu"}
    again = hosts.tables(heads=1, mask=mask, attention_dropout=0.1)
    assert rewrite(again.make(), "collapse", None, again.evidence()).status == "exact in evaluation"


def test_speech_with_one_head(hosts) -> None:
    made = hosts.speech(heads=1, mixer="softmax")
    done = rewrite(made.make(), "collapse", CollapseOptions(blocks=("before.*",)), made.evidence())
    assert done.change64 < 1e-10
    assert len(blocks_of(done.model, MinimalAttention)) == 1
    made.replays(done)


def test_refusals(hosts) -> None:
    def refuses(block: nn.Module, said: str) -> None:
        with pytest.raises(InputError, match=said):
            rewrite(nn.Sequential(block), "collapse", None, Evidence())

    refuses(
        SoftmaxAttention(8, 4), r"^collapse: 0: the queries and keys of 4 heads hold 128 weights, .* hold 256; soft"
    )
    refuses(SoftmaxAttention(8, 2), "2 heads hold 128 weights, and their products would hold 128")
    refuses(SoftmaxAttention(8, 1, position="alibi"), r"its scores hold positions \(alibi\)")
    refuses(TopKAttention(8, 1), "TopKAttention is no softmax attention")
    refuses(RelativeAttention(8, 1), "RelativeAttention is no softmax attention")
    refuses(MinimalAttention(8), "nothing of it is left")
    with pytest.raises(InputError, match="no mixer"):
        rewrite(nn.Linear(2, 2), "collapse")
    low = hosts.stack(Entry("mixer", "softmax", {"heads": 1})).make()
    low = rewrite(low, "low_rank").model
    with pytest.raises(InputError, match="its maps are no plain linear ones"):
        rewrite(low, "collapse")
    both = hosts.stack(Entry("mixer", "softmax", {"heads": 1}), Entry("mixer", "softmax", {"heads": 2}))
    done = rewrite(both.make(), "collapse", None, both.evidence())
    assert done.rewrite.decision == {"blocks": ["sublayers.0.block"], "exact": True}
    with pytest.raises(InputError, match=r"sublayers\.1\.block: the queries"):
        rewrite(both.make(), "collapse", CollapseOptions(blocks=("sublayers.1.*",)))
    for blocks in (None, {"sublayers.0.block": 1}, ["sublayers.1.block"], ["sublayers.0"], ["other"], [3]):
        with pytest.raises(InputError):
            replay(both.make(), [Rewrite("collapse", {"blocks": blocks})])
    with pytest.raises(InputError):
        replay(both.make(), [Rewrite("collapse", {})])
