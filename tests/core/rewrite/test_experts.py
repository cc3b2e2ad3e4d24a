import pytest
import torch

from core.errors import InputError
from core.feedforward import Experts, choose
from core.layout import Entry
from core.rewrite import Rewrite, blocks_of, replay, rewrite
from core.rewrite.experts import ExpertsOptions, MergeExpertsOptions
from core.testing.tolerances import draw, draw_mask

FEEDFORWARDS = (
    Entry("mixer", "softmax", {"heads": 2}),
    Entry("feedforward", "mlp", {"hidden": 12}),
    Entry("feedforward", "glu", {"hidden": 8, "bias": False}),
)


@pytest.mark.parametrize("active", [1, 2, 4])
@pytest.mark.parametrize("host", ["stack", "speech"])
def test_blocks_become_experts_and_dense_again(hosts, host: str, active: int) -> None:
    made = hosts.stack(*FEEDFORWARDS) if host == "stack" else hosts.speech()
    done = rewrite(made.make(), "experts", ExpertsOptions(active=active), made.evidence())
    assert done.status == ("exact" if active == 4 else "approximate")
    assert (done.change64 < 1e-12) == (active == 4)
    made.replays(done)
    split = blocks_of(done.model, Experts)
    assert len(split) == {"stack": 2, "speech": 6}[host]
    assert sum(p.numel() for p in done.model.parameters()) == sum(p.numel() for p in made.make().parameters())
    for labels in done.rewrite.decision["labels"].values():
        assert sorted(labels) == sorted([0, 1, 2, 3] * (len(labels) // 4))
    # The weights are the dense block's: merged, the function is the first one again.
    merged = rewrite(done.model, "merge_experts", None, made.evidence())
    assert merged.status == done.status
    torch.testing.assert_close(made.run(merged.model), made.run(made.make().eval()), rtol=1e-11, atol=1e-11)
    assert not blocks_of(merged.model, Experts)
    both = replay(made.make(), [done.rewrite, merged.rewrite])
    both.load_state_dict(merged.model.state_dict())
    assert torch.equal(made.run(both.eval()), made.run(merged.model))


def test_gradients_of_all_experts_are_those_of_the_block(hosts) -> None:
    made = hosts.stack(*FEEDFORWARDS)
    model = made.make().eval()
    done = rewrite(model, "experts", ExpertsOptions(active=4)).model
    for each in (model, done):
        made.run(each).square().sum().backward()
    up = model.sublayers[1].block.up.weight.grad
    parts = torch.cat([part.up.weight.grad for part in done.sublayers[1].block.experts])
    torch.testing.assert_close(parts.sum(0), up.sum(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(done.sublayers[1].block.bias.grad, model.sublayers[1].block.down.bias.grad)


def test_a_stack_gives_its_mask_to_what_reads_it_now(hosts) -> None:
    """Blocks that read masks come and go, and the stack says which blocks it has."""
    model = hosts.stack(*FEEDFORWARDS).make().eval()
    split = rewrite(model, "experts", ExpertsOptions(active=4)).model
    x, mask = draw(3, 6, 8), draw_mask(3, 6)
    given: list[object] = []
    block = split.sublayers[1].block
    block.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs["mask"]), with_kwargs=True)
    torch.testing.assert_close(split(x, mask=mask), model(x, mask=mask), rtol=1e-11, atol=1e-11)
    assert given == [mask]
    assert [line.name for line in split.describe()] == ["softmax", "experts", "experts"]
    merged = rewrite(split, "merge_experts").model
    torch.testing.assert_close(merged(x, mask=mask), model(x, mask=mask), rtol=1e-11, atol=1e-11)
    assert [line.name for line in merged.describe()] == ["softmax", "mlp", "glu"]


def test_blocks_by_name(hosts) -> None:
    made = hosts.speech()
    done = rewrite(made.make(), "experts", ExpertsOptions(blocks=("before.*",))).model
    assert len(blocks_of(done.before, Experts)) == 2
    assert not blocks_of(done.reduced, Experts)
    with pytest.raises(InputError, match=r"no feed-forward is called 'behind.\*'"):
        rewrite(made.make(), "experts", ExpertsOptions(blocks=("behind.*",)))
    # What is within experts is not divided again.
    more = rewrite(done, "experts", ExpertsOptions(blocks=("reduced.*", "after.*"))).model
    assert len(blocks_of(more, Experts)) == 6
    with pytest.raises(InputError, match="no feed-forward of hidden units"):
        rewrite(more, "experts")


def test_refusals(hosts) -> None:
    with pytest.raises(InputError, match=r"stack.sublayers.1.block: its hidden units are not projected; an mlp"):
        rewrite(hosts.tables().make(), "experts")
    stack = hosts.stack(*FEEDFORWARDS).make()
    with pytest.raises(InputError, match=r"5 experts do not divide the 12 hidden units of sublayers.1.block"):
        rewrite(stack, "experts", ExpertsOptions(experts=5, active=1))
    with pytest.raises(InputError, match="3 of 2 experts"):
        rewrite(stack, "experts", ExpertsOptions(experts=2, active=3))
    sized = hosts.stack(Entry("feedforward", "mlp", {"hidden": 8, "nested": (0.5, 1.0)})).make()
    choose(sized, 0.5)
    with pytest.raises(InputError, match=r"sublayers.0.block: it computes with a chosen size"):
        rewrite(sized, "experts")
    with pytest.raises(InputError, match="no experts"):
        rewrite(stack, "merge_experts")
    routed = hosts.stack(Entry("feedforward", "experts", {"hidden": 4})).make()
    with pytest.raises(InputError, match=r"sublayers.0.block: experts weighted by a softmax"):
        rewrite(routed, "merge_experts", MergeExpertsOptions(blocks=("sublayers.*",)))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": None},
        {"labels": {"sublayers.7.block": []}},
        {"labels": {"sublayers.0.block": [0, 1]}},
        {"labels": {"sublayers.1.block": [0] * 12}},
        {"labels": {"sublayers.1.block": [0, 1, 2, 3] * 2}},
        {"labels": {"sublayers.1.block": [0, 1, 2, 9] * 3}},
        {"labels": {"sublayers.1.block": [0, 1, 2, True] * 3}},
        {"labels": {"sublayers.1.block": 12}},
        {"experts": 10**12},
        {"experts": 2.0},
        {"active": 0},
        {"active": "2"},
    ],
)
def test_wrong_decisions(hosts, change: dict[str, object]) -> None:
    decision = {"labels": {"sublayers.1.block": [0, 1, 2, 3] * 3}, "experts": 4, "active": 2}
    model = hosts.stack(*FEEDFORWARDS).make()
    replay(model, [Rewrite("experts", decision)])
    with pytest.raises(InputError):
        replay(model, [Rewrite("experts", {**decision, **change})])
    with pytest.raises(InputError):
        replay(model, [Rewrite("merge_experts", {"blocks": ["sublayers.1.block"]})])
