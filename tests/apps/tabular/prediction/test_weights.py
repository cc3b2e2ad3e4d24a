"""Official weights: the same function as the official computation written out. pytorch-frame: the same parts."""

import math

import pytest
import torch
from safetensors.torch import save_file

from apps.tabular.prediction.config import ModelConfig
from apps.tabular.prediction.model import ExcelFormer
from apps.tabular.prediction.weights import load_official, load_pytorch_frame, read_state, to_official
from core.errors import InputError

N, D, H, L, C = 6, 24, 4, 3, 3


def official_state(n=N, d=D, layers=L, c=C, seed=0):
    """Random weights in the official layout, large enough that every part matters."""
    torch.manual_seed(seed)
    state = {f"tokenizer.{name}": torch.randn(n, d) for name in ("weight", "weight2", "bias", "bias2")}

    def linear(name, rows, columns):
        state[f"{name}.weight"] = torch.randn(rows, columns) / math.sqrt(columns)
        state[f"{name}.bias"] = torch.randn(rows) / 4

    def norm(name):
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + torch.randn(d) / 4, torch.randn(d) / 4

    for i in range(layers):
        for name in ("W_q", "W_k", "W_v", "W_out"):
            linear(f"layers.{i}.attention.{name}", d, d)
        linear(f"layers.{i}.linear0", 2 * d, d)
        norm(f"layers.{i}.norm1")
        if i:
            norm(f"layers.{i}.norm0")
    norm("last_normalization")
    state["last_activation.weight"] = torch.tensor([0.1])
    linear("head", c, d)
    linear("last_fc", 1, n)
    return state


def official_forward(state, x, heads=H, layers=L):
    """What the official program computes, in plain tensor operations, head by head."""
    t = "tokenizer."
    rows = x.unsqueeze(-1)
    h = (rows * state[t + "weight"] + state[t + "bias"]) * torch.tanh(rows * state[t + "weight2"] + state[t + "bias2"])
    d = h.shape[-1]

    def apply(name, u):
        return u @ state[name + ".weight"].T + state[name + ".bias"]

    def norm(name, u):
        centred = u - u.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / spread * state[name + ".weight"] + state[name + ".bias"]

    n, size = h.shape[1], d // heads
    block_future = torch.full((n, n), -1e4).triu(1)
    for i in range(layers):
        u = norm(f"layers.{i}.norm0", h) if i else h
        q, k, v = (apply(f"layers.{i}.attention.W_{m}", u) for m in "qkv")
        parts = []
        for a in range(heads):
            own = slice(a * size, (a + 1) * size)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(size) + block_future
            parts.append(scores.softmax(-1) @ v[..., own])
        joined = torch.cat(parts, -1)
        h = h + (apply(f"layers.{i}.attention.W_out", joined) if heads > 1 else joined)
        value, gate = apply(f"layers.{i}.linear0", norm(f"layers.{i}.norm1", h)).split(d, -1)
        h = h + value * torch.tanh(gate)
    pooled = (h.transpose(1, 2) @ state["last_fc.weight"].T + state["last_fc.bias"])[..., 0]
    active = norm("last_normalization", pooled)
    active = torch.where(active >= 0, active, state["last_activation.weight"] * active)
    return apply("head", active)


def model_for(n=N, c=C, **options):
    return ExcelFormer(n, c, ModelConfig(**{"width": D, "heads": H, "layers": L, **options})).eval()


@pytest.mark.parametrize(("n", "c", "layers", "heads"), [(6, 3, 3, 4), (1, 1, 1, 8), (9, 1, 2, 24), (5, 2, 2, 1)])
def test_official_weights_give_the_official_function(n, c, layers, heads):
    state = official_state(n=n, c=c, layers=layers)
    if heads == 1:
        state = {key: tensor for key, tensor in state.items() if "W_out" not in key}
    model = model_for(n, c, layers=layers, heads=heads)
    load_official(model, state)
    x = torch.randn(33, n)
    expected = official_forward(state, x, heads=heads, layers=layers)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    double = {key: tensor.double() for key, tensor in state.items()}
    expected = official_forward(double, x.double(), heads=heads, layers=layers)
    torch.testing.assert_close(model.double()(x.double()), expected, rtol=1e-10, atol=1e-11)


def test_official_round_trip_is_exact():
    state = official_state()
    model = model_for()
    load_official(model, state)
    back = to_official(model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    back["head.weight"].zero_()
    assert not (model.head.output.weight == 0).any()


def test_published_size_has_the_published_keys():
    state = to_official(ExcelFormer(8, 1, ModelConfig()))
    assert sum(tensor.numel() for tensor in state.values()) == 1_195_787
    assert state["last_fc.weight"].shape == (1, 8)
    assert state["tokenizer.weight2"].shape == (8, 256)
    assert "layers.0.norm0.weight" not in state
    assert "layers.1.norm0.weight" in state


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda s: s.update({"tokenizer.bias2": torch.zeros(7, D)}),
                r"'tokenizer.bias2' has size \(7, 24\), the model \(6, 24\)",
            ),
            (lambda s: s.pop("layers.1.attention.W_k.bias"), r"'layers.1.attention.W_k.bias' is missing"),
            (lambda s: s.update({"layers.0.norm0.weight": torch.zeros(D)}), r"'layers.0.norm0.weight' has no place"),
        ],
        ids=["size", "missing", "foreign"],
    )
    def test_keys(self, change, words):
        state = official_state()
        change(state)
        model = model_for()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with pytest.raises(InputError, match=words) as caught:
            load_official(model, state)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())

    @pytest.mark.parametrize(
        "options", [{"head": "paper"}, {"norm": "rmsnorm"}, {"feedforward": "mlp"}, {"placement": "peri"}], ids=str
    )
    def test_switches(self, options):
        (name,) = options
        with pytest.raises(InputError, match=rf"model\.{name}: these weights need"):
            load_official(model_for(**options), official_state())


class TestReading:
    def test_both_formats(self, tmp_path):
        state = official_state()
        save_file(state, tmp_path / "a.safetensors")
        torch.save(state, tmp_path / "a.pt")
        for name in ("a.safetensors", "a.pt"):
            read = read_state(tmp_path / name)
            assert read.keys() == state.keys()
            assert all(torch.equal(read[key], state[key]) for key in state)

    @pytest.mark.parametrize("content", [{"model": {"w": torch.zeros(2)}}, [1, 2], "words"], ids=str)
    def test_more_than_tensors_is_refused(self, tmp_path, content):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(InputError, match="more than named tensors"):
            read_state(tmp_path / "a.pt")

    @pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
    def test_rubbish_is_refused_in_one_line(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"not a model at all")
        with pytest.raises(InputError, match="cannot be read") as caught:
            read_state(tmp_path / name)
        assert "\n" not in str(caught.value)

    def test_code_in_a_file_is_not_run(self, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")  # a whole module: needs unpickling of classes
        with pytest.raises(InputError, match="cannot be read"):
            read_state(tmp_path / "a.pt")

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_state(tmp_path / "none.pt")


@pytest.fixture
def frame_model():
    """The real model of pytorch-frame, with weights large enough that every part matters."""
    pytest.importorskip("torch_frame")
    from torch_frame import stype
    from torch_frame.data.stats import StatType
    from torch_frame.nn import ExcelFormer as Other

    names = [f"c{i}" for i in range(N)]
    stats = {name: {StatType.MEAN: 0.5 * i, StatType.STD: 1.0 + i} for i, name in enumerate(names)}
    other = Other(D, C, N, L, H, stats, {stype.numerical: names}).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) / math.sqrt(D))
    return other


def loaded_from(other):
    model = model_for(head="paper")
    left = load_pytorch_frame(model, other.state_dict(), partial=True)
    return model, left


class TestPytorchFrame:
    def test_the_tokeniser_is_the_same_function(self, frame_model):
        model, _ = loaded_from(frame_model)
        x, column = torch.randn(11, N), torch.arange(float(N))
        theirs = frame_model.excelformer_encoder.encoder_dict["numerical"]
        torch.testing.assert_close(model.tokenizer((x - 0.5 * column) / (1 + column)), theirs.encode_forward(x))

    @pytest.mark.parametrize("block", range(L))
    def test_every_block_is_the_same_functions(self, frame_model, block):
        model, _ = loaded_from(frame_model)
        tokens, theirs = torch.randn(11, N, D), frame_model.excelformer_convs[block]
        mixer, gated = model.stack.sublayers[2 * block], model.stack.sublayers[2 * block + 1]
        torch.testing.assert_close(mixer.block(tokens), theirs.DiaM(tokens), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gated.block(tokens), theirs.AiuM(tokens))
        torch.testing.assert_close(gated.norms[0](tokens), theirs.norm_2(tokens))
        if block:
            torch.testing.assert_close(mixer.norms[0](tokens), theirs.norm_1(tokens))

    def test_the_head_is_the_same_function(self, frame_model):
        model, _ = loaded_from(frame_model)
        tokens = torch.randn(11, N, D)
        torch.testing.assert_close(model.head(tokens), frame_model.excelformer_decoder(tokens))

    def test_what_is_left_out_is_named(self, frame_model):
        _, left = loaded_from(frame_model)
        columns = {f"excelformer_encoder.encoder_dict.numerical.{name}" for name in ("mean", "std", "fill_values")}
        first = {f"excelformer_convs.0.norm_1.{name}" for name in ("weight", "bias")}
        assert set(left) == columns | first | {f"excelformer_convs.{i}.DiaM.seq_ids" for i in range(L)}

    def test_the_whole_is_another_function_and_must_be_asked_for(self, frame_model):
        with pytest.raises(InputError, match="another function"):
            load_pytorch_frame(model_for(head="paper"), frame_model.state_dict())

    def test_official_head_is_refused(self, frame_model):
        with pytest.raises(InputError, match="head='paper'"):
            load_pytorch_frame(model_for(), frame_model.state_dict(), partial=True)
