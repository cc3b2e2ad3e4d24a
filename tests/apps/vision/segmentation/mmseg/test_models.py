"""Our network inside mmsegmentation: the config of the README, built, trained and scored by mmengine's Runner."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import apps.vision.segmentation as home
from apps.vision.segmentation.adaptation import pixel_loss
from apps.vision.segmentation.config import SIZES, ModelConfig
from apps.vision.segmentation.metrics import confusion, scores
from apps.vision.segmentation.mmseg import mmseg_module, register
from apps.vision.segmentation.mmseg.names import mmseg_names, our_names
from apps.vision.segmentation.model import Segmentor
from apps.vision.segmentation.weights import encoder_state
from core.errors import InputError
from core.training import preserved

pytestmark = pytest.mark.filterwarnings("ignore")
NARROW = {"widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}
HEAD = {"in_channels": [8, 8, 16, 16], "channels": 8, "dilations": [1, 2], "num_classes": 10}


@pytest.fixture(scope="module", autouse=True)
def registered():
    pytest.importorskip("mmengine")
    pytest.importorskip("mmcv")
    register()


@pytest.fixture
def config(tmp_path):
    """The config of the README, as a file."""
    text = (Path(home.__file__).parent / "README.md").read_text(encoding="utf-8")
    (block,) = (part.split("\n```")[0] for part in text.split("```python\n") if part.startswith("custom_imports"))
    (tmp_path / "config.py").write_text(block)
    return mmseg_module("mmengine.config").Config.fromfile(tmp_path / "config.py")


def build(config):
    """As the Runner does."""
    config = mmseg_module("mmengine.config").ConfigDict(config)
    with mmseg_module("mmengine.registry").DefaultScope.overwrite_default_scope("mmseg"):
        return mmseg_module("mmseg.registry").MODELS.build(config)


def small_model(backbone=(), head=(), **more):
    return build(
        {
            "type": "EncoderDecoder",
            "backbone": {"type": "ManyformerMiT", **NARROW, **dict(backbone)},
            "decode_head": {"type": "ManyformerDAFormerHead", **HEAD, **dict(head)},
            "train_cfg": {},
            "test_cfg": {"mode": "whole"},
            **more,
        }
    )


def ours_like(**changes):
    shape = {name: tuple(value) for name, value in NARROW.items()}
    return ModelConfig(**shape, head_width=8, dilations=(1, 2), **changes)


def samples(labels):
    structures = mmseg_module("mmseg.structures")
    pixels = mmseg_module("mmengine.structures").PixelData
    found = []
    for label in labels:
        sample = structures.SegDataSample(metainfo={"img_shape": label.shape, "ori_shape": label.shape})
        sample.gt_sem_seg = pixels(data=label[None])
        found.append(sample)
    return found


def scattered(model):
    """Statistics of batch norms away from 0 and 1 too."""
    torch.manual_seed(3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor + 0.1 * torch.rand_like(tensor))
    return model


def test_logits_and_loss_are_ours(config):
    config.model.decode_head.dropout_ratio = 0.0
    config.model.backbone.drop_path = 0.0
    theirs = build(config.model)
    ours = scattered(Segmentor(10, replace(SIZES["b0"].model(), drop_path=0.0, head_dropout=0.0)))
    theirs.load_state_dict(mmseg_names(ours.state_dict()))
    Segmentor(10, ours.config).load_state_dict(our_names(theirs.state_dict()))  # all of them, and no other
    images, labels = torch.randn(2, 3, 70, 96), torch.randint(10, (2, 70, 96))
    labels[:, :20] = 255
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(images), ours.eval()(images), rtol=0, atol=1e-6)
        losses = theirs.train().loss(images, samples(labels))
        wanted = pixel_loss(ours.train()(images), labels)
    assert losses["decode.loss_ce"].item() == pytest.approx(wanted.item(), abs=1e-6)


def test_switches_are_those_of_the_config():
    theirs = small_model(
        {"norm": "rmsnorm", "feedforward": "mlp", "placement": "peri"},
        {"context": "none", "embedding": "convolution", "norm": "layernorm"},
    )
    config = ours_like(norm="rmsnorm", feedforward="mlp", placement="peri", context="none", embedding="convolution")
    ours = Segmentor(10, replace(config, head_norm="layernorm"))
    theirs.load_state_dict(mmseg_names(ours.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(theirs.eval()(images), ours.eval()(images), rtol=0, atol=1e-6)


def test_the_conventions_of_a_decode_head_hold():
    loss = [{"type": "CrossEntropyLoss", "class_weight": [2.0] * 10}, {"type": "DiceLoss", "ignore_index": 7}]
    model = small_model((), {"loss_decode": loss, "ignore_index": 7})
    labels = torch.randint(10, (2, 32, 32))
    losses = model.loss(torch.randn(2, 3, 32, 32), samples(labels))
    assert {"decode.loss_ce", "decode.loss_dice", "decode.acc_seg"} <= losses.keys()
    ignored = model.loss(torch.randn(2, 3, 32, 32), samples(torch.full_like(labels, 7)))
    assert ignored["decode.loss_ce"].item() == 0
    binary = small_model((), {"num_classes": 2, "out_channels": 1, "threshold": 0.4})
    binary_said = binary.eval().predict(torch.randn(1, 3, 32, 32))[0]
    assert binary_said.seg_logits.data.shape == (1, 32, 32)
    assert set(binary_said.pred_sem_seg.data.unique().tolist()) <= {0, 1}
    one = small_model((), {"in_channels": [8, 16], "in_index": [0, 2]})
    assert one.eval()(torch.randn(1, 3, 64, 32)).shape == (1, 10, 16, 8)


def test_sliding_is_whole_where_the_window_is_the_image():
    whole = scattered(small_model(test_cfg={"mode": "slide", "crop_size": (64, 96), "stride": (32, 48)})).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        slid = whole.predict(images)[0].seg_logits.data
        whole.test_cfg = mmseg_module("mmengine.config").ConfigDict(mode="whole")
        torch.testing.assert_close(whole.predict(images)[0].seg_logits.data, slid)
        whole.test_cfg = mmseg_module("mmengine.config").ConfigDict(mode="slide", crop_size=(32, 32), stride=(16, 16))
        assert whole.predict(images)[0].seg_logits.data.shape == slid.shape


def pretrained(path):
    return {"init_cfg": {"type": "Pretrained", "checkpoint": str(path)}}


@pytest.mark.parametrize("layout", ["official", "mmsegmentation", "ours", "backbone"])
def test_pretrained_weights_of_every_layout(layout, tmp_path):
    ours = scattered(Segmentor(10, ours_like()))
    state = ours.state_dict() if layout == "ours" else mmseg_names(ours.state_dict())
    if layout in ("official", "mmsegmentation"):
        state = encoder_state(ours, layout)
    save_file(state, tmp_path / "mit.safetensors")
    given = pretrained(tmp_path / "mit.safetensors")
    constant = {"type": "Constant", "val": 3.0, "layer": "Conv2d"}
    model = small_model({"init_cfg": [given["init_cfg"], constant]} if layout == "ours" else given)
    model.init_weights()
    images = torch.randn(1, 3, 64, 64)
    for mine, other in zip(ours.eval().features(images), model.eval().extract_feat(images), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"does not fit|is missing"):
        small_model({**pretrained(tmp_path / "mit.safetensors"), "depths": [2, 1, 1, 1]}).init_weights()


def test_what_is_refused():
    with pytest.raises(InputError, match="no size 'b9'"):
        small_model({"size": "b9"})
    with pytest.raises(InputError, match="no switch 'mixr'; did you mean 'mixer'"):
        small_model({"mixr": "sra"})
    with pytest.raises(InputError, match="norm_cfg means nothing here; say norm='batchnorm'"):
        small_model((), {"norm_cfg": {"type": "BN"}})
    with pytest.raises(InputError, match="corners not aligned"):
        small_model((), {"align_corners": True})
    with pytest.raises(InputError, match="no context 'fusd'; did you mean 'fused'"):
        small_model((), {"context": "fusd"})
    with pytest.raises(InputError, match="no such file"):
        small_model(pretrained("nowhere.pth")).init_weights()


def test_registering_twice_is_once_and_names_are_kept(monkeypatch):
    models = mmseg_module("mmseg.registry").MODELS
    before = models.get("ManyformerMiT")
    register()
    assert models.get("ManyformerMiT") is before
    monkeypatch.setitem(models.module_dict, "ManyformerMiT", torch.nn.Linear)
    with pytest.raises(InputError, match="another class already"):
        register()


def test_blocks_that_need_it_are_told_the_step_and_add_to_the_loss():
    model = small_model({"norm": "prepbn", "feedforward": "experts"}, type="ManyformerEncoderDecoder")
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(10, (2, 64, 64))
    with pytest.raises(InputError, match="how far its training has come"):
        model.train().loss(images, samples(labels))
    hook = mmseg_module("mmseg.registry").HOOKS.build({"type": "ManyformerClock"})
    runner = type("Runner", (), {"model": model, "iter": 3, "max_iters": 9})()
    hook.before_train_iter(runner, 3)
    losses = model.loss(images, samples(labels))
    assert losses["loss_blocks"].item() > 0


def test_norms_are_not_decayed_and_the_head_is_faster(config):
    wrapper = mmseg_module("mmengine.optim").build_optim_wrapper(small_model(), config.optim_wrapper)
    model = small_model()
    names = [name for name, _ in model.named_parameters()]
    groups = dict(zip(names, wrapper.optimizer.param_groups, strict=True))
    norms = {name for name in names if name.startswith("backbone.") and ".norm" in name}
    modules = dict(model.named_modules())
    assert norms == {
        name
        for name in names
        if name.startswith("backbone.") and "Norm" in type(modules[name.rpartition(".")[0]]).__name__
    }
    assert {name for name in names if groups[name]["weight_decay"] == 0} == norms
    rates = {name.split(".")[0]: groups[name]["lr"] for name in names}
    assert rates == pytest.approx({"backbone": 6e-5, "decode_head": 6e-4})
    assert len({groups[name]["lr"] for name in names}) == 2


def test_what_decays_norms_unseen(config):
    """What the README says of mmsegmentation's own encoder, and of torch's classes."""
    backbone = {"type": "MixVisionTransformer", "embed_dims": 8, "num_layers": [1] * 4, "num_heads": [1, 1, 1, 2]}
    head = {"type": "ManyformerDAFormerHead", **HEAD, "in_channels": [8, 8, 8, 16]}
    theirs = build({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head})
    decayed = decayed_norms(theirs, config.optim_wrapper)
    assert decayed == {f"backbone.layers.{stage}.2.{kind}" for stage in range(4) for kind in ("weight", "bias")}
    by_class = {**config.optim_wrapper, "paramwise_cfg": {"norm_decay_mult": 0.0}}
    assert not decayed_norms(theirs, by_class)
    model = small_model()
    assert not decayed_norms(model, config.optim_wrapper)
    assert len(decayed_norms(model, by_class)) > 20


def decayed_norms(model, optim_wrapper):
    """Parameters of the encoder's norms that the optimiser decays."""
    wrapper = mmseg_module("mmengine.optim").build_optim_wrapper(model, optim_wrapper)
    decay = {id(group["params"][0]): group["weight_decay"] for group in wrapper.optimizer.param_groups}
    norms = [name for name, module in model.named_modules() if "Norm" in type(module).__name__]
    return {
        name
        for name, parameter in model.named_parameters()
        if name.startswith("backbone.") and name.rpartition(".")[0] in norms and decay[id(parameter)] > 0
    }


@pytest.fixture
def closed():
    """Close the files of mmengine's loggers: left open they warn of themselves in another test."""
    with preserved():
        yield
    for logger in mmseg_module("mmengine.logging").MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
        logger.handlers.clear()
    logging.shutdown()


@pytest.mark.usefixtures("closed")
def test_the_runner_trains_and_scores_as_we_do(config, tmp_path):
    shrunk = {
        "model.backbone": {"type": "ManyformerMiT", **NARROW},
        "model.decode_head": {"type": "ManyformerDAFormerHead", **HEAD},
        "train_cfg.max_iters": 3,
        "train_cfg.val_interval": 3,
        "work_dir": str(tmp_path / "work"),
        "log_level": "ERROR",
    }
    for split, images in (("train", 4), ("val", 2), ("test", 3)):
        shrunk |= {f"{split}_dataloader.num_workers": 0, f"{split}_dataloader.dataset.indices": images}
    config.model.backbone, config.model.decode_head = {}, {}
    config.merge_from_dict(shrunk)
    config.optim_wrapper.optimizer.lr = 1e-3
    runner = mmseg_module("mmengine.runner").Runner.from_cfg(config)
    before = {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    runner.train()
    changed = {name for name, tensor in runner.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"backbone", "decode_head"}
    found = runner.test()
    matrices = []
    for batch in runner.test_dataloader:
        (sample,) = runner.model.test_step(batch)
        truth, said = (getattr(sample, name).data[0].numpy() for name in ("gt_sem_seg", "pred_sem_seg"))
        matrices.append(confusion(truth, said, 10))
    ours = scores(np.stack(matrices), tuple(map(str, range(10))))
    assert found["aAcc"] == pytest.approx(ours.metrics["pixel_accuracy"].value, abs=0.006)  # theirs is rounded
    union = ours.matrix.sum(0) + ours.matrix.sum(1)
    counted = [ours.metrics[f"iou/{name}"].value if f"iou/{name}" in ours.metrics else 0.0 for name in range(10)]
    theirs = np.mean([value for value, total in zip(counted, union, strict=True) if total])  # predicted only: 0 there
    assert found["mIoU"] == pytest.approx(theirs, abs=0.006)


@pytest.mark.slow
def test_the_program_of_mmsegmentation_trains_from_the_file_alone(config, tmp_path):
    program = Path(mmseg_module("mmseg").__file__).parent / ".mim" / "tools" / "train.py"
    options = ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "log_level=ERROR"]
    options += [f"{split}_dataloader.dataset.indices=2" for split in ("train", "val")]
    words = [sys.executable, "-W", "ignore", program, config.filename, "--work-dir", tmp_path / "work"]
    done = subprocess.run(
        [str(word) for word in [*words, "--cfg-options", *options]],
        env={**os.environ, "PYTHONPATH": str(Path(home.__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
