import pytest
import torch

from core.errors import InputError
from core.feedforward import choose
from core.feedforward.nested import nested_blocks
from core.layout import Entry
from core.rewrite import Rewrite, replay, rewrite
from core.rewrite.extract import ExtractOptions

NESTED = (0.25, 0.5, 1.0)


@pytest.mark.parametrize("shares", [(0.25,), (1.0,), (0.25, 0.25, 0.5, 0.5, 0.5, 1.0)])
def test_what_is_extracted_is_the_chosen_one(hosts, shares: tuple[float, ...]) -> None:
    made = hosts.speech(nested=NESTED)
    done = rewrite(made.make(), "extract", ExtractOptions(shares=shares), made.evidence())
    chosen = made.make().eval()
    choose(chosen, shares[0] if len(shares) == 1 else shares)
    torch.testing.assert_close(made.run(done.model), made.run(chosen), rtol=1e-12, atol=1e-12)
    assert done.status == "approximate"
    assert (done.change64 == 0.0) == (shares == (1.0,))
    assert not nested_blocks(done.model)
    made.replays(done)
    # 2 F D + F + D numbers a block of F units.
    sizes = list(done.rewrite.decision["sizes"].values())
    lost = sum((48 - size) * (2 * 12 + 1) for size in sizes)
    before = sum(p.numel() for p in made.make().parameters())
    assert sum(p.numel() for p in done.model.parameters()) == before - lost


def test_gradients_are_those_of_the_chosen_units(hosts) -> None:
    made = hosts.speech(nested=NESTED)
    done = rewrite(made.make(), "extract", ExtractOptions(shares=(0.25,))).model
    chosen = made.make().eval()
    choose(chosen, 0.25)
    for model in (chosen, done):
        made.run(model).square().sum().backward()
    for whole, small in zip(nested_blocks(chosen), nested_blocks_of(done), strict=True):
        torch.testing.assert_close(small.up.weight.grad, whole.up.weight.grad[:12], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(small.down.weight.grad, whole.down.weight.grad[:, :12], rtol=1e-10, atol=1e-10)
        assert not bool(whole.up.weight.grad[12:].any())


def nested_blocks_of(model):
    return [each for each in model.modules() if type(each).__name__ == "MLP"]


def test_refusals(hosts) -> None:
    made = hosts.speech(nested=NESTED)
    for shares, said in (((0.5, 0.5), "2 shares for 6"), ((0.0,), "not 0"), ((1.5,), "not 1.5"), ((), "0 shares")):
        with pytest.raises(InputError, match=said):
            rewrite(made.make(), "extract", ExtractOptions(shares=shares))
    with pytest.raises(InputError, match="no feed-forward of the model is nested"):
        rewrite(hosts.tables().make(), "extract")
    decision = {"sizes": {"before.sublayers.1.block": 12}}
    replay(made.make(), [Rewrite("extract", decision)])
    for size in (0, 49, 10**12, 1.5, "12", None, True):
        with pytest.raises(InputError):
            replay(made.make(), [Rewrite("extract", {"sizes": {"before.sublayers.1.block": size}})])
    for sizes in (None, [12], {"before.sublayers.0.block": 12}, {"": 12}):
        with pytest.raises(InputError):
            replay(made.make(), [Rewrite("extract", {"sizes": sizes})])
    chosen = made.make()
    choose(chosen, 0.25)
    plain = rewrite(chosen, "extract").model  # what was chosen before counts no more
    assert {block.hidden for block in nested_blocks_of(plain)} == {24}
    with pytest.raises(InputError, match="nested"):
        rewrite(plain, "extract")


def test_shared_blocks_stay_shared(hosts) -> None:
    shared = Entry("feedforward", "mlp", {"hidden": 16, "nested": NESTED}, share="one", share_norms=False)
    made = hosts.stack(shared, shared)
    done = rewrite(made.make(), "extract", None, made.evidence())
    assert done.model.sublayers[0].block is done.model.sublayers[1].block
    made.replays(done)
