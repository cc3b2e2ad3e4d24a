"""Presets as plain data, the published values, and the sizes of batches."""

import json

import pytest

from apps.tabular.prediction.config import TabularConfig
from apps.tabular.prediction.presets import PRESETS, official
from core.command import config_from_dict, config_to_dict
from core.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_plain_data(name):
    config = PRESETS[name]()
    text = json.dumps(config_to_dict(config))
    assert config_from_dict(TabularConfig, json.loads(text)) == config


def test_official_preset_has_the_published_values():
    config = official()
    model = config.model
    assert (model.layers, model.width, model.heads, model.init_scale) == (3, 256, 32, 0.01)
    assert (model.attention_dropout, model.residual_dropout, model.head) == (0.3, 0.0, "official")
    assert (model.mask, model.ties, model.category_embedding) == ("semi_permeable", "arbitrary", False)
    assert (config.optim.lr, config.optim.weight_decay, config.mixing.beta) == (1e-4, 0.0, 0.5)
    assert (config.fit.max_epochs, config.fit.patience, config.members) == (500, 200, 1)
    assert [config.rows_per_batch(n, 10**6) for n in (1, 32, 33, 100, 101, 1000, 1001)] == [
        512,
        512,
        *[128] * 2,
        *[32] * 2,
        16,
    ]
    factor = config.schedule.build(500)  # one step an epoch
    assert factor(9) == 1.0
    assert factor(4) == pytest.approx(0.5)
    assert factor(10 + 245) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "features", "batch"),
    [(7, 5, 7), (400, 5, 32), (2100, 5, 64), (24000, 5, 256), (24000, 80, 128), (24000, 2000, 16)],
)
def test_automatic_batch(rows, features, batch):
    assert TabularConfig().rows_per_batch(features, rows) == batch


@pytest.mark.parametrize(
    ("field", "value"), [("members", 0), ("batch_size", 0), ("batch_size", "some"), ("validation_fraction", 1.0)]
)
def test_values_out_of_range(field, value):
    with pytest.raises(InputError, match=field):
        TabularConfig(**{field: value})
