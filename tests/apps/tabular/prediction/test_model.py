"""ExcelFormer: mask direction, initialisation, heads, switches, parameter counts."""

from dataclasses import replace

import pytest
import torch

from apps.tabular.prediction.config import ModelConfig
from apps.tabular.prediction.model import ExcelFormer, FeatureTokenizer
from core.errors import InputError
from core.layout.build import TABLES

SMALL = ModelConfig(width=16, heads=4, layers=3)


def small(n_features=5, n_outputs=1, seed=0, **options):
    """A small model whose blocks are not almost the identity."""
    torch.manual_seed(seed)
    keep = {name: options.pop(name) for name in ("importance", "cardinalities") if name in options}
    return ExcelFormer(n_features, n_outputs, replace(SMALL, **{"init_scale": 1.0, **options}), **keep).eval()


def moved_tokens(model, feature, n_features=5):
    """Which tokens before the head change, bit for bit, when one feature does."""
    x = torch.randn(7, n_features, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, feature] += 1.0
    return (model.tokens(x) != model.tokens(other)).any(2).all(0).tolist()


class TestMask:
    @pytest.mark.parametrize("feature", range(5))
    def test_more_informative_features_never_see_less_informative_ones(self, feature):
        assert moved_tokens(small(), feature) == [rank >= feature for rank in range(5)]

    @pytest.mark.parametrize("feature", range(5))
    def test_reversed_mask_turns_the_direction(self, feature):
        assert moved_tokens(small(mask="reversed"), feature) == [rank <= feature for rank in range(5)]

    def test_full_mask_lets_all_see_all(self):
        assert moved_tokens(small(mask="full"), 4) == [True] * 5

    def test_ties_are_mutual_when_asked(self):
        importance = [0.9, 0.4, 0.4, 0.4, 0.1]
        model = small(ties="mutual", importance=importance)
        assert moved_tokens(model, 3) == [False, True, True, True, True]
        assert moved_tokens(model, 0) == [True] * 5
        assert moved_tokens(model, 4) == [False] * 4 + [True]

    def test_ties_are_mutual_in_the_reversed_mask(self):
        model = small(ties="mutual", mask="reversed", importance=[0.9, 0.4, 0.4, 0.4, 0.1])
        assert moved_tokens(model, 1) == [True, True, True, True, False]

    def test_mutual_without_ties_is_the_causal_model(self):
        importance = [5.0, 4.0, 3.0, 2.0, 1.0]
        causal, mutual = small(importance=importance), small(ties="mutual", importance=importance)
        x = torch.randn(3, 5)
        torch.testing.assert_close(causal(x), mutual(x))

    def test_gradient_of_a_token_is_zero_for_less_informative_features(self):
        x = torch.randn(4, 5, requires_grad=True)
        small().tokens(x)[:, 2].sum().backward()
        assert (x.grad[:, :3] != 0).all()
        assert (x.grad[:, 3:] == 0).all()


MASKS = {  # the mixers that fit each mask by their name alone
    "semi_permeable": ("convolution identity minimal nala normlin random relative sepconv softmax stickbreaking topk"),
    "full": "convolution identity linformer minimal nala normlin pooling random relative sepconv softmax topk",
    "reversed": "identity minimal normlin random relative softmax topk",
}


class TestMixers:
    @pytest.mark.parametrize(
        ("mask", "mixer"), [(mask, mixer) for mask, mixers in MASKS.items() for mixer in mixers.split()]
    )
    def test_a_name_is_enough_and_the_mask_is_followed(self, mask, mixer):
        model = small(mask=mask, mixer=mixer)
        for feature in range(5):
            moved = moved_tokens(model, feature)
            assert moved[feature]
            if mask != "full":
                before = slice(feature) if mask == "semi_permeable" else slice(feature + 1, 5)
                assert not any(moved[before])
        loss = model.train()(torch.randn(4, 5)).square().sum()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    @pytest.mark.parametrize("mask", MASKS)
    def test_no_other_fits(self, mask):
        for mixer in set(TABLES["mixer"]) - set(MASKS[mask].split()):
            with pytest.raises(InputError, match=f"{mixer!r} does not fit the mask {mask!r}"):
                small(mask=mask, mixer=mixer)


def interaction_share(scale, seed):
    """Second differences over pairs of features, relative to main effects, of an additive read-out of the tokens."""
    torch.manual_seed(seed)
    config = ModelConfig(width=64, heads=8, layers=3, init_scale=scale)
    model = ExcelFormer(8, 1, config).double().eval()
    read = torch.randn(8, 64, dtype=torch.float64)

    def output(x):
        return (model.tokens(x) * read).sum((1, 2))

    base, step = torch.randn(32, 8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    start = output(base)
    single = [output(base + step[i]) for i in range(8)]
    seconds = [
        output(base + step[i] + step[j]) - single[i] - single[j] + start for i in range(8) for j in range(i + 1, 8)
    ]
    mains = [moved - start for moved in single]
    return (torch.stack(seconds).abs().mean() / torch.stack(mains).abs().mean()).item()


class TestInitialisation:
    @pytest.mark.parametrize("seed", range(3))
    def test_attenuated_model_is_additive_at_the_start(self, seed):
        assert interaction_share(0.01, seed) < 0.01

    @pytest.mark.parametrize("seed", range(3))
    def test_without_attenuation_it_is_not(self, seed):
        assert interaction_share(1.0, seed) > 0.1

    def test_ranges(self):
        torch.manual_seed(0)
        model = ExcelFormer(6, 1, ModelConfig())
        mixer, gated = model.stack.sublayers[2].block, model.stack.sublayers[3].block
        near = {"rtol": 0.02, "atol": 0.0}
        for weight, bound in ((mixer.qkv.weight, 0.01 / 16), (gated.up.weight, 0.01 / 16), (mixer.out.weight, 1 / 16)):
            torch.testing.assert_close(weight.abs().max(), torch.tensor(bound), **near)
        for bias in (mixer.qkv.bias, mixer.out.bias, gated.up.bias):
            assert (bias == 0).all()
        for name in ("value_weight", "value_bias", "gate_weight", "gate_bias"):
            torch.testing.assert_close(getattr(model.tokenizer, name).abs().max(), torch.tensor(1 / 16), **near)


class TestSizes:
    @pytest.mark.parametrize(("n_features", "n_outputs", "count"), [(8, 1, 1_195_787), (54, 7, 1_244_479)])
    def test_published_parameter_counts(self, n_features, n_outputs, count):
        model = ExcelFormer(n_features, n_outputs, ModelConfig())
        assert sum(parameter.numel() for parameter in model.parameters()) == count

    def test_paper_head_count(self):
        head = small(5, 3, head="paper").head
        assert sum(parameter.numel() for parameter in head.parameters()) == (5 * 3 + 3) + 1 + (16 + 1)

    def test_mlp_holds_as_many_weights_as_glu(self):
        def weights(name):
            block = small(feedforward=name).stack.sublayers[1].block
            return sum(parameter.numel() for parameter in block.parameters() if parameter.ndim == 2)

        assert weights("mlp") == weights("glu") == 2 * 16 * 16

    def test_state_holds_weights_alone(self):
        model = small(ties="mutual", importance=[3.0, 2.0, 2.0, 1.0, 0.0])
        assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


class TestTokenizer:
    def test_by_hand(self):
        tokenizer = FeatureTokenizer(2, 3)
        x = torch.tensor([[0.5, -2.0]])
        w, b, v, c = (getattr(tokenizer, n) for n in ("value_weight", "value_bias", "gate_weight", "gate_bias"))
        expected = torch.stack([(x[0, i] * w[i] + b[i]) * torch.tanh(x[0, i] * v[i] + c[i]) for i in range(2)])
        torch.testing.assert_close(tokenizer(x)[0], expected)

    def test_category_embedding_leaves_the_start_unchanged(self):
        plain = small()
        embedded = small(category_embedding=True, cardinalities=[0, 4, 0, 3, 0])
        missing, _ = embedded.load_state_dict(plain.state_dict(), strict=False)
        assert missing == ["tokenizer.categories.weight"]
        x, codes = torch.randn(6, 5), torch.tensor([[0, 3, 0, 2, 0]]).expand(6, 5)
        assert torch.equal(embedded(x, codes), plain(x))

    def test_every_category_has_a_row_and_unseen_ones_add_nothing(self):
        tokenizer = FeatureTokenizer(3, 4, cardinalities=[3, 0, 4])
        with torch.no_grad():
            tokenizer.categories.weight[1:] = torch.arange(1.0, 6.0)[:, None].expand(5, 4)
        codes = torch.tensor([[0, 0, 0], [1, 0, 1], [2, 0, 2], [3, 1, 3], [9, 9, 4]])
        x = torch.zeros(5, 3)
        plain = FeatureTokenizer(3, 4)
        plain.load_state_dict({k: v for k, v in tokenizer.state_dict().items() if k != "categories.weight"})
        added = (tokenizer(x, codes) - plain(x)).mean(2).round()
        assert added.tolist() == [[0, 0, 0], [1, 0, 3], [2, 0, 4], [0, 0, 5], [0, 0, 0]]

    def test_unseen_row_gets_no_gradient(self):
        model = small(category_embedding=True, cardinalities=[3, 0, 0, 0, 0])
        codes = torch.tensor([[0, 0, 0, 0, 0], [2, 0, 0, 0, 0]])
        model(torch.randn(2, 5), codes).sum().backward()
        gradient = model.tokenizer.categories.weight.grad
        assert (gradient[:2] == 0).all()
        assert (gradient[2] != 0).any()


class TestForward:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"head": "paper"},
            {"norm": "rmsnorm", "placement": "peri"},
            {"feedforward": "mlp"},
            {"feedforward": "experts", "norm": "crmsnorm"},
            {"feedforward": "memory", "norm": "unifiednorm"},
            {"feedforward": "activator", "norm": "prepbn"},
            {"norm": "groupnorm", "mask": "full"},
        ],
        ids=str,
    )
    def test_batch_of_many_equals_batches_of_one(self, options):
        model = small(n_outputs=3, **options)
        x = torch.randn(9, 5)
        torch.testing.assert_close(model(x), torch.cat([model(row[None]) for row in x]), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("head", ["official", "paper"])
    @pytest.mark.parametrize("heads", [1, 4])
    def test_single_feature(self, head, heads):
        model = small(n_features=1, head=head, heads=heads)
        x = torch.randn(4, 1, requires_grad=True)
        model(x).sum().backward()
        assert (x.grad != 0).all()

    def test_paper_head_by_hand(self):
        model = small(n_outputs=3, head="paper")
        tokens = model.tokens(torch.randn(2, 5))
        head = model.head
        for c in range(3):
            pooled = torch.einsum("n,bnd->bd", head.tokens.weight[c], tokens) + head.tokens.bias[c]
            active = torch.where(pooled > 0, pooled, head.activation.weight * pooled)
            expected = active @ head.output.weight[0] + head.output.bias
            torch.testing.assert_close(head(tokens)[:, c], expected)

    @pytest.mark.parametrize("options", [{}, {"ties": "mutual", "importance": [2.0, 1.0, 1.0, 0.5, 0.0]}], ids=str)
    def test_exports(self, options):
        model = small(category_embedding=True, cardinalities=[0, 4, 0, 3, 0], **options)
        x, codes = torch.randn(4, 5), torch.randint(0, 3, (4, 5))
        batch = torch.export.Dim("batch", min=1, max=4096)
        exported = torch.export.export(model, (x, codes), dynamic_shapes=({0: batch}, {0: batch}))
        x, codes = torch.randn(11, 5), torch.randint(0, 5, (11, 5))
        torch.testing.assert_close(exported.module()(x, codes), model(x, codes))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"mixer": "sofmax"}, "did you mean 'softmax'"),
            ({"mixer": "pooling"}, "'pooling' does not fit the mask 'semi_permeable': it cannot be kept from reading"),
            ({"mixer": "nala", "mask": "reversed"}, "it takes no mask of pairs of tokens; these fit: .*softmax"),
            ({"mixer": "stickbreaking", "mask": "full"}, "it reads earlier tokens alone; these fit: .*softmax"),
            ({"feedforward": "moe"}, "no feedforward 'moe'"),
            ({"norm": "groupnorm"}, "'groupnorm' reads every feature of a row.*use the mask 'full'"),
            ({"norm": "layrnorm"}, "did you mean 'layernorm'"),
            ({"heads": 3}, "3 heads do not divide the width 16"),
            ({"ties": "mutual"}, "no importance was given"),
            ({"ties": "mutual", "mask": "full", "importance": [1.0] * 5}, "everything is read already"),
            ({"category_embedding": True}, "needs the cardinalities"),
            ({"category_embedding": True, "cardinalities": [1, 2]}, "2 cardinalities for 5 features"),
            ({"importance": [1.0, 1.0, 1.0, 1.0, -0.1]}, "at least 0"),
            ({"importance": [1.0, float("nan"), 1.0, 1.0, 1.0]}, "finite"),
            ({"importance": [1.0]}, "1 importances for 5 features"),
        ],
    )
    def test_one_line(self, options, words):
        with pytest.raises(InputError, match=words) as caught:
            small(**options)
        assert "\n" not in str(caught.value)

    def test_codes_are_asked_for(self):
        with pytest.raises(InputError, match="needs codes"):
            small(category_embedding=True, cardinalities=[1] * 5)(torch.zeros(1, 5))

    def test_no_features(self):
        with pytest.raises(InputError, match="at least one feature"):
            small(n_features=0)
