from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from apps.asr.config import SIZES, ModelConfig
from apps.asr.model import Squeezeformer
from core.clock import advance
from core.errors import InputError
from core.optim import route

BINS, OUTPUTS = 8, 7
TINY = ModelConfig(width=6, layers=3, heads=2, reduce=1, kernel=5, dropout=0.0)

SWITCHES = [
    {},
    {"reduce": None},
    {"reduce": 0, "recover": 1},
    {"mixer": "softmax"},
    {"mixer": "softmax", "position": "rotary", "heads": 1},
    {"mixer": "softmax", "position": "alibi"},
    {"mixer": "nala"},
    {"mixer": "minimal"},
    {"mixer": "pooling", "scale": False},
    {"mixer": "sepconv"},
    {"feedforward": "glu", "norm": "rmsnorm"},
    {"conv_activation": "glu", "conv_norm": "layernorm"},
    {"conv_masked": False},
    {"placement": "pre", "scale": False},
    {"placement": "peri"},
    {"feedforward": "experts", "norm": "groupnorm"},
    {"feedforward": "memory", "norm": "crmsnorm"},
    {"feedforward": "activator", "conv_norm": "prepbn"},
    {"block": "macaron", "nested": (0.5, 1.0), "conv_norm": "unifiednorm"},
]


def small(**changes: object) -> Squeezeformer:
    """A small model with every parameter and statistic drawn at random: fresh ones hide mistakes."""
    torch.manual_seed(0)
    model = Squeezeformer(BINS, OUTPUTS, replace(TINY, **changes))
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else value + 0.3 * torch.randn_like(value))
    return model.eval()


def recordings(lengths: list[int], frames: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features with NaN in the padding, and lengths."""
    torch.manual_seed(1)
    x = torch.randn(len(lengths), frames, BINS, dtype=dtype)
    counts = torch.tensor(lengths)
    x[torch.arange(frames) >= counts[:, None]] = math.nan
    return x, counts


# --- the network written out, one recording at a time, in loops


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def norm_of(norm: nn.Module, x: Tensor) -> Tensor:
    rows = []
    for token in x:
        centred = token - token.sum() / len(token)
        rows.append(centred / (centred.square().sum() / len(token) + 1e-3).sqrt() * norm.weight + norm.bias)
    return torch.stack(rows)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def sinusoid(offset: int, width: int) -> Tensor:
    row = torch.zeros(width, dtype=torch.float64)
    for d in range(width):
        angle = offset / 10000 ** (2 * (d // 2) / width)
        row[d] = math.sin(angle) if d % 2 == 0 else math.cos(angle)
    return row


def attention(block: nn.Module, x: Tensor) -> Tensor:
    n, width = x.shape
    size = width // block.heads
    q, k, v = linear(block.qkv, x).split(width, dim=-1)
    joined = torch.zeros(n, width, dtype=x.dtype)
    for h in range(block.heads):
        part = slice(h * size, (h + 1) * size)
        for i in range(n):
            scores = []
            for j in range(n):
                place = block.position.weight[part] @ sinusoid(i - j, width)
                score = (q[i, part] + block.u[h]) @ k[j, part] + (q[i, part] + block.v[h]) @ place
                scores.append(score / math.sqrt(size))
            weights = torch.stack(scores).exp()
            joined[i, part] = (weights / weights.sum()) @ v[:, part]
    return linear(block.out, joined)


def convolution(block: nn.Module, x: Tensor) -> Tensor:
    y = swish(linear(block.pointwise_in, x))
    n = len(y)
    kernel = block.depthwise.weight.shape[-1]
    z = block.depthwise.bias.repeat(n, 1)
    for i in range(n):
        for j in range(kernel):
            source = i + j - kernel // 2
            if 0 <= source < n:
                z[i] += block.depthwise.weight[:, 0, j] * y[source]
    norm = block.norm
    z = (z - norm.running_mean) / (norm.running_var + 1e-3).sqrt() * norm.weight + norm.bias
    return linear(block.pointwise_out, swish(z))


def feedforward(block: nn.Module, x: Tensor) -> Tensor:
    return linear(block.down, swish(linear(block.up, x)))


def blocks(stack: nn.Module, x: Tensor) -> Tensor:
    for index, sublayer in enumerate(stack.sublayers):
        function = (attention, feedforward, convolution, feedforward)[index % 4]
        x = norm_of(sublayer.norms[0], x + function(sublayer.block, sublayer.scale.gain * x + sublayer.scale.bias))
    return x


def reference(model: Squeezeformer, features: Tensor) -> Tensor:
    """Logits of one recording ``(T,F)``; the front end has its own reference in its own tests."""
    x = blocks(model.before, model.subsampling(features[None])[0])
    n = len(x)
    reduced = torch.zeros((n + 1) // 2, x.shape[1], dtype=x.dtype)
    conv = model.reduction.depthwise
    for i in range(n // 2):
        taps = [conv.weight[:, 0, k] * x[2 * i + k] for k in range(5) if 2 * i + k < n]
        reduced[i] = linear(model.reduction.pointwise, torch.stack(taps).sum(0) + conv.bias)
    reduced = blocks(model.reduced, reduced)
    x = torch.stack([x[j] + linear(model.recovery.linear, reduced[j // 2]) for j in range(n)])
    return linear(model.head, blocks(model.after, x))


# --- tests


class TestSizes:
    @pytest.mark.parametrize("size", SIZES)
    def test_published_parameter_counts(self, size):
        config, outputs = SIZES[size].model(), 128
        with torch.device("meta"):
            model = Squeezeformer(80, outputs, config)
        d, layers = config.width, config.layers
        formula = layers * (25 * d**2 + 103 * d) + 23 * d**2 + 32 * d + (d + 1) * outputs
        assert sum(parameter.numel() for parameter in model.parameters()) == formula
        millions = {"xs": 9.03, "s": 18.57, "sm": 28.18, "m": 55.62, "ml": 125.03, "l": 236.25}
        assert round(formula / 1e6, 2) == millions[size]
        statistics = [b.numel() for name, b in model.named_buffers() if "running" in name]
        assert sum(statistics) == 4 * d * layers

    def test_multiply_adds(self):
        # Elsewhere than on a processor every query meets every offset, as the published number has it.
        with torch.device("meta"):
            model = Squeezeformer(80, 128, SIZES["xs"].model()).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            model.head(model.encode(torch.zeros(1, 3001, 80, device="meta")))
        assert counter.get_total_flops() / 2 == pytest.approx(8.93e9, rel=0.03)

    def test_description_adds_up(self):
        model = small()
        parts = [line for line in model.describe() if not line.startswith(" ")]
        counts = [int(line.split(", ")[-1].removesuffix(" parameters").replace(",", "")) for line in parts]
        assert sum(counts) == sum(parameter.numel() for parameter in model.parameters())


class TestValues:
    @pytest.mark.parametrize("frames", [4, 8, 12, 17, 20, 27, 29])
    def test_loops(self, frames):
        model = small().double()
        x, lengths = recordings([frames], frames)
        logits, counts = model(x, lengths)
        assert counts.tolist() == [frames // 4]
        torch.testing.assert_close(logits[0], reference(model, x[0]), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("frames", [0, 1, 3])
    def test_too_short(self, frames):
        logits, counts = small()(torch.zeros(1, frames, BINS), torch.tensor([frames]))
        assert logits.shape == (1, 0, OUTPUTS)
        assert counts.tolist() == [0]


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
class TestEverySwitch:
    @pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
    def test_batch_of_many_is_batches_of_one(self, changes, dtype, most):
        model = small(**changes).to(dtype)
        lengths = [37, 36, 35, 33, 30, 26, 21, 29, 14, 8, 7, 4, 3, 0]
        x, counts = recordings(lengths, 41, dtype)
        with torch.no_grad():
            many, tokens = model(x, counts)
            for row, n in enumerate(lengths):
                alone, own = model(x[row : row + 1, :n], counts[row : row + 1])
                assert tokens[row] == own[0] == alone.shape[1] == n // 4
                torch.testing.assert_close(many[row, : n // 4], alone[0], rtol=most, atol=most)

    def test_gradients(self, changes):
        model = small(**changes).train()
        advance(model, 3, 10)
        x, counts = recordings([37, 36, 22, 3], 38, torch.float32)
        logits, lengths = model(x, counts)
        real = torch.arange(logits.shape[1]) < lengths[:, None]
        (logits * torch.randn_like(logits))[real].sum().backward()
        for name, parameter in model.named_parameters():
            assert bool(parameter.grad.isfinite().all()), name
            # An expert may be chosen by no token of so few.
            assert bool((parameter.grad != 0).any()) or ".experts." in name, name


def test_a_macaron_block_has_half_steps_at_both_ends():
    model = small(block="macaron")
    names = [(type(part.block).__name__, part.factor) for part in model.before.sublayers]
    assert names == [("MLP", 0.5), ("RelativeAttention", 1.0), ("ConvolutionModule", 1.0), ("MLP", 0.5)]
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in small().parameters())


class TestTraining:
    def loss_and_gradients(self, padding: int, **changes: object) -> list[Tensor]:
        model = small(**changes).double().train()
        x, counts = recordings([21, 30], 30)
        x = torch.cat([x, torch.full((2, padding, BINS), math.nan, dtype=x.dtype)], dim=1)
        logits, _ = model(x, counts)
        loss = logits[0, :5].square().sum() + logits[1, :7].square().sum()
        statistics = [buffer for name, buffer in model.named_buffers() if "running" in name]
        return [loss, *torch.autograd.grad(loss, list(model.parameters())), *statistics]

    def test_padding_changes_nothing(self):
        for got, wanted in zip(self.loss_and_gradients(23), self.loss_and_gradients(0), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)

    def test_as_released_it_does(self):
        few, many = (self.loss_and_gradients(padding, conv_masked=False)[0] for padding in (0, 23))
        assert abs(few - many) > 1e-3 * abs(few)

    def test_dropout_follows_the_seed(self):
        model = small(dropout=0.2, attention_dropout=0.2).train()
        x, counts = recordings([30, 21], 30, torch.float32)
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            fresh = copy.deepcopy(model)
            results.append(fresh(x, counts)[0][0])
        assert torch.equal(results[0], results[1])
        assert not torch.allclose(results[0], results[2])

    def test_roles(self):
        roles = {entry.name: entry.role for entry in route(small()).entries}
        assert [name for name, role in roles.items() if role == "head"] == ["head.weight"]
        assert roles["subsampling.linear.weight"] == roles["recovery.linear.weight"] == "matrix"
        assert roles["reduction.depthwise.weight"] == "matrix"


class TestDevicesAndPrograms:
    def test_bfloat16(self):
        model = small()
        x, counts = recordings([37, 22], 37, torch.float32)
        with torch.no_grad():
            wanted, _ = model(x, counts)
            with torch.autocast("cpu", torch.bfloat16):
                got, _ = model(x, counts)
        real = torch.arange(9) < torch.tensor([[9], [5]])
        assert (got.float() - wanted)[real].norm() < 0.05 * wanted[real].norm()

    def test_bfloat16_trains(self):
        model = small().train()
        x, counts = recordings([37, 22], 37, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = model(x, counts)
        logits[:, :5].float().square().sum().backward()
        assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())

    @pytest.mark.untyped
    @pytest.mark.parametrize(
        "changes",
        [{}, pytest.param({"mixer": "softmax", "position": "rotary", "heads": 1}, marks=pytest.mark.slow)],
        ids=str,
    )
    def test_exports(self, changes):
        model = small(layers=2, reduce=0, **changes)
        free = torch.export.Dim.AUTO
        example = recordings([50, 41], 50, torch.float32)
        shapes = ({0: free, 1: free}, {0: free})
        with torch.no_grad():
            program = torch.export.export(model, example, dynamic_shapes=shapes, strict=False).module()
            for lengths, frames in (([50, 41], 50), ([61, 60, 33, 4], 61), ([27, 27, 9], 28)):
                x, counts = recordings(lengths, frames, torch.float32)
                got, tokens = program(x, counts)
                wanted, own = model(x, counts)
                assert torch.equal(tokens, own)
                for row, n in enumerate(own.tolist()):
                    torch.testing.assert_close(got[row, :n], wanted[row, :n], rtol=1e-5, atol=1e-5)


class TestTimes:
    def test_centre_of_what_a_token_reads(self):
        assert [model_time(t) for t in (0, 1, 25)] == pytest.approx([0.03, 0.07, 1.03])

    def test_output_lengths(self):
        assert small().output_lengths(torch.tensor([3, 4, 998, 3001])).tolist() == [0, 1, 249, 750]


def model_time(token: int) -> float:
    return Squeezeformer.frame_offset + token * Squeezeformer.frame_seconds


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"mixer": "relativ"}, "did you mean 'relative'"),
            ({"position": "rotary"}, "'relative' does not fit recordings: it takes no position 'rotary'"),
            ({"heads": 4}, "heads do not divide"),
            ({"norm": "layrnorm"}, "did you mean 'layernorm'"),
            ({"feedforward": "moe"}, "no feedforward 'moe'"),
            (
                {"feedforward": "memory", "nested": (0.5,)},
                "model.nested: 'memory' has no sizes in it; use 'mlp' or 'glu'",
            ),
            ({"kernel": 4}, "must be odd"),
            ({"reduce": 2}, "cannot reduce and recover"),
            ({"reduce": 1, "recover": 1}, "cannot reduce and recover"),
            ({"reduce": 1, "recover": 3}, "cannot reduce and recover"),
            ({"reduce": None, "recover": 1}, "nothing is reduced"),
            ({"layers": 0}, "at least 1"),
            ({"dropout": 1.0}, "must lie in"),
        ],
        ids=str,
    )
    def test_one_line(self, changes, words):
        with pytest.raises(InputError, match=words) as caught:
            small(**changes)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("mixer", "lacking"),
        [
            ("normlin", "is made for a number of tokens"),
            ("linformer", "is made for a number of tokens"),
            ("stickbreaking", "reads earlier tokens alone"),
        ],
    )
    def test_mixer_that_does_not_fit(self, mixer, lacking):
        with pytest.raises(InputError, match=f"{mixer!r} does not fit recordings: it {lacking}; these fit: .*relative"):
            small(mixer=mixer)

    @pytest.mark.untyped
    @pytest.mark.parametrize("lengths", [[21], [-1], [20, 20]])
    def test_lengths(self, lengths):
        with pytest.raises(InputError):
            small()(torch.zeros(1, 20, BINS), torch.tensor(lengths))

    def test_outputs(self):
        with pytest.raises(InputError, match="1 outputs"):
            Squeezeformer(80, 1, TINY)
