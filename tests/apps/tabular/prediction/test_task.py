"""Losses against formulas written out, sample weights, mixed labels, whole-split metrics."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from apps.tabular.prediction.config import MixingConfig, ModelConfig
from apps.tabular.prediction.mixing import Mix
from apps.tabular.prediction.model import ExcelFormer
from apps.tabular.prediction.task import MONITORS, RowDataset, TabularTask, mixed_loss, row_loss
from core.auxiliary import collected
from core.errors import InputError

KINDS = {"binary": 1, "multiclass": 3, "regression": 1}


def rows(kind, n=41, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = {
        "binary": torch.randint(0, 2, (n,), generator=generator),
        "multiclass": torch.randint(0, 3, (n,), generator=generator),
        "regression": torch.randn(n, generator=generator),
    }[kind]
    weight = torch.rand(n, generator=generator)
    return RowDataset(torch.randn(n, 4, generator=generator), torch.zeros(n, 4, dtype=torch.int64), y, weight)


def task_of(kind, mixing="none", **options):
    torch.manual_seed(0)
    config = ModelConfig(width=8, heads=2, layers=1, init_scale=1.0, attention_dropout=0.0, **options)
    model = ExcelFormer(4, KINDS[kind], config, importance=[4.0, 3.0, 2.0, 1.0])
    return TabularTask(model, kind, MixingConfig(kind=mixing))


def one_label(kind, output, label):
    """The loss of one row in plain formulas."""
    if kind == "binary":
        p = 1 / (1 + torch.exp(-output[0]))
        return -torch.log(p if label == 1 else 1 - p)
    if kind == "multiclass":
        return -torch.log(output.exp()[label] / output.exp().sum())
    return (output[0] - label) ** 2


@pytest.mark.parametrize("kind", KINDS)
def test_row_loss(kind):
    outputs, y = torch.randn(41, KINDS[kind]), rows(kind).tensors["y"]
    expected = torch.stack([one_label(kind, o, label) for o, label in zip(outputs, y, strict=True)])
    torch.testing.assert_close(row_loss(kind, outputs, y), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_loss_is_both_labels_by_share(kind):
    y, outputs = rows(kind).tensors["y"][:3], torch.randn(3, KINDS[kind])
    partner, share = torch.tensor([2, 0, 1]), torch.tensor([0.25, 1.0, 0.0])
    mix = Mix("tokens", partner, torch.ones(3, 1, 1, dtype=torch.bool), share)
    loss = mixed_loss(kind, outputs, y, torch.ones(3), mix)
    if kind == "regression":
        first = one_label(kind, outputs[0], 0.25 * y[0] + 0.75 * y[2])
    else:
        first = 0.25 * one_label(kind, outputs[0], y[0]) + 0.75 * one_label(kind, outputs[0], y[2])
    expected = torch.stack([first, one_label(kind, outputs[1], y[1]), one_label(kind, outputs[2], y[1])])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_two_is_the_row_twice(kind):
    task, data = task_of(kind), rows(kind).tensors
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0])
    weighted = RowDataset(data["x"][:4], data["codes"][:4], data["y"][:4], weights)
    copies = torch.tensor([0, 1, 1, 2, 2, 2])
    repeated = RowDataset(*(data[name][copies] for name in ("x", "codes", "y")))
    losses = [task.training_loss(d[torch.arange(len(d))])["loss"] for d in (weighted, repeated)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(
        task.evaluate([weighted[torch.arange(4)]]), task.evaluate([repeated[torch.arange(6)]]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_mixed_weights_follow_their_labels(kind):
    outputs, y, weight = torch.randn(2, KINDS[kind]), torch.tensor([0, 1]), torch.tensor([2.0, 0.0])
    mix = Mix("tokens", torch.tensor([1, 0]), torch.ones(2, 1, 1, dtype=torch.bool), torch.tensor([0.25, 0.25]))
    expected = torch.stack([0.25 * 2 * one_label(kind, outputs[0], 0), 0.75 * 2 * one_label(kind, outputs[1], 0)])
    torch.testing.assert_close(mixed_loss(kind, outputs, y, weight, mix), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_is_of_the_split_not_of_batches(kind):
    task, data = task_of(kind), rows(kind)
    task.model.eval()
    whole = task.evaluate([data[torch.arange(41)]])
    parts = task.evaluate([data[torch.arange(0, 5)], data[torch.arange(5, 40)], data[torch.arange(40, 41)]])
    assert whole == pytest.approx(parts, rel=1e-5)
    assert set(whole) == {"loss", MONITORS[kind][0]}


def test_metrics_against_scikit_learn():
    for kind in KINDS:
        task, data = task_of(kind), rows(kind)
        task.model.eval()
        found = task.evaluate([data[torch.arange(41)]])
        t = data.tensors
        outputs, y, w = task.model(t["x"], t["codes"]).detach(), t["y"].numpy(), t["weight"].numpy()
        if kind == "binary":
            assert found["auc"] == pytest.approx(roc_auc_score(y, outputs[:, 0].numpy(), sample_weight=w))
            p = outputs[:, 0].sigmoid().double().numpy()
            assert found["loss"] == pytest.approx(log_loss(y, p, sample_weight=w), rel=1e-5)
        if kind == "multiclass":
            assert found["accuracy"] == pytest.approx(accuracy_score(y, outputs.argmax(1), sample_weight=w), rel=1e-5)
        if kind == "regression":
            error = ((outputs[:, 0] - t["y"]) ** 2 * t["weight"]).sum() / t["weight"].sum()
            assert found["rmse"] == pytest.approx(float(error.sqrt()), rel=1e-5)


def test_one_class_alone_ranks_nothing():
    task, data = task_of("binary"), rows("binary").tensors
    single = RowDataset(data["x"], data["codes"], torch.ones(41, dtype=torch.int64))
    assert task.evaluate([single[torch.arange(41)]])["auc"] == 0.5


@pytest.mark.parametrize("mixing", ["none", "feat", "hidden", "input"])
@pytest.mark.parametrize("kind", KINDS)
def test_learns(kind, mixing):
    """A target that is the product of two features, which an additive model cannot follow."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 4, generator=generator)
    value = x[:, 0] * x[:, 1]
    y = {"regression": value, "binary": (value > 0).long(), "multiclass": (value > 0).long() + (value > 1).long()}[kind]
    data = RowDataset(x, torch.zeros(256, 4, dtype=torch.int64), y)
    task = task_of(kind, mixing)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=2e-2)
    everything = data[torch.arange(256)]
    before = task.evaluate([everything])["loss"]
    for _ in range(80):
        optimizer.zero_grad()
        task.training_loss(everything)["loss"].backward()
        optimizer.step()
    after = task.evaluate([everything])["loss"]
    assert after < (0.6 if mixing == "none" else 0.9) * before


def test_same_seed_same_loss_with_mixing():
    task, batch = task_of("binary", "feat"), rows("binary")[torch.arange(41)]
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(task.training_loss(batch)["loss"].item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("weight", [[-1.0, 1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_bad_weights_are_refused(weight):
    with pytest.raises(InputError, match="sample_weight"):
        RowDataset(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2), torch.tensor(weight))


def test_input_mixing_refuses_categories():
    model = ExcelFormer(2, 1, ModelConfig(width=8, heads=2, layers=1, category_embedding=True), cardinalities=[0, 3])
    with pytest.raises(InputError, match="category codes are not numbers"):
        TabularTask(model, "binary", MixingConfig(kind="input"))


def test_what_blocks_contribute_is_part_of_the_loss():
    task, batch = task_of("binary", feedforward="experts"), rows("binary")[torch.arange(41)]
    torch.manual_seed(5)
    loss = task.training_loss(batch)["loss"]
    torch.manual_seed(5)
    with collected() as extra:
        outputs = task.model(batch["x"], batch["codes"])
    own = mixed_loss("binary", outputs, batch["y"], batch["weight"], None).mean()
    assert len(extra.losses) == 1
    assert float(extra.total().detach()) > 0.009
    torch.testing.assert_close(loss, own + extra.total())
    loss.backward()
    assert bool(task.model.stack.sublayers[1].block.router.weight.grad.any())
