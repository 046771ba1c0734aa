"""Guided dropout: the Fisher by hand, the schedule, sites of modules and of hooks, and what stays as it was."""

import copy
import math
from collections import namedtuple

import pytest
import torch
from torch import nn

from gradatim.regularizers.dropout_sites import AddedDropout, GaussianDropout, added_sites, own_sites
from gradatim.regularizers.fisher import empirical_fisher
from gradatim.regularizers.fisher_dropout import guide_dropout, set_dropout

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def squared(model, x):
    return (model(x) - 1).square().sum(-1)


def network(sites=3):
    torch.manual_seed(0)
    layers = [layer for _ in range(sites) for layer in (nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5))]
    return nn.Sequential(*layers, nn.Linear(4, 2))


class Block(nn.Module):
    """A block of a model without dropout: its attention gives a tuple, as that of a Llama."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention, self.mlp = nn.LayerNorm(4), Pair(), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.mlp(x + self.attention(self.norm(x))[0])


class Pair(nn.Linear):
    """A layer that gives a tuple."""

    def __init__(self):
        super().__init__(4, 4)

    def forward(self, x):
        return super().forward(x), None


class Plain(nn.Module):
    """An embedding, two blocks and a head, and no dropout."""

    def __init__(self):
        super().__init__()
        self.embedding, self.blocks = nn.Embedding(9, 4), nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 9)

    def forward(self, x):
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


WORDS = torch.randint(9, (10, 5), generator=torch.Generator().manual_seed(0))


def word_loss(model, x):
    return nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())


def test_the_fisher_is_that_by_hand_by_either_way():
    model = nn.Linear(4, 1).double()
    x, y = X.double(), X.double().sum(1, keepdim=True)
    error = (model(x) - y).detach()
    wanted = (2 * error * x).square().mean(0, keepdim=True)

    def refusing(m, batch):  # vmap cannot read a number
        value = (m(batch[0]) - batch[1]).square().mean()
        return value * (1 if float(value.detach()) >= 0 else 2)

    for loss, way in ((lambda m, b: (m(b["x"]) - b["y"]).square()[:, 0], "vmap"), (refusing, "rows")):
        batches = [{"x": x[:5], "y": y[:5]}, {"x": x[5:], "y": y[5:]}]
        if way == "rows":
            batches = [(b["x"], b["y"]) for b in batches]
        fisher, rows, found = empirical_fisher(model, loss, batches)
        assert (rows, found) == (12, way)
        torch.testing.assert_close(fisher["weight"], wanted)
        torch.testing.assert_close(fisher["bias"], (2 * error).square().mean(0))


def test_the_schedule_is_linear_in_the_rank_and_the_highest_fisher_drops_nothing():
    model = network(5)
    sites = guide_dropout(model, squared, [X[:7], X[7:]], highest=0.2)
    by_fisher = [sites.p[name] for name in sorted(sites.fisher, key=sites.fisher.__getitem__)]
    assert by_fisher == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0])
    assert sites.mean == pytest.approx(0.1)
    assert {name: module.p for name, module in own_sites(model).items()} == sites.p
    other = guide_dropout(model, squared, [X], highest=0.2, order="reversed")
    assert [other.p[name] for name in sites.p] == pytest.approx([0.2 - p for p in sites.p.values()])
    assert set_dropout(network(5), sites.p).p == sites.p


def test_a_site_has_the_mean_of_the_tensors_before_it():
    model = network(2)
    fisher, _, _ = empirical_fisher(model, squared, [X])
    sites = guide_dropout(model, squared, [X])
    for site, layer in (("2", "0"), ("5", "3")):
        tensors = [float(fisher[f"{layer}.{kind}"].mean()) for kind in ("weight", "bias")]
        assert sites.fisher[site] == pytest.approx(sum(tensors) / 2)


def test_several_sites_of_one_module_are_cut_by_the_order_of_a_pass():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2).eval()
    x = torch.randn(6, 3, 4)
    loss = lambda m, b: m(b).square().mean((1, 2)) + m(b)[..., 0].sum(1)  # noqa: E731
    fisher, _, _ = empirical_fisher(model, loss, [x])
    sites = guide_dropout(model, loss, [x])
    parts = {
        "dropout1": [
            "self_attn.in_proj_weight",
            "self_attn.in_proj_bias",
            "self_attn.out_proj.weight",
            "self_attn.out_proj.bias",
            "norm1.weight",
            "norm1.bias",
        ],
        "dropout": ["linear1.weight", "linear1.bias"],
        "dropout2": ["linear2.weight", "linear2.bias", "norm2.weight", "norm2.bias"],
    }
    for layer in ("layers.0", "layers.1"):
        for site, names in parts.items():
            wanted = sum(float(fisher[f"{layer}.{name}"].mean()) for name in names) / len(names)
            assert sites.fisher[f"{layer}.{site}"] == pytest.approx(wanted)
    assert not model.training


def test_dropout_before_a_head_stays_and_is_said():
    body = network(2)[:6]
    model = nn.Sequential()
    model.add_module("body", body)
    model.add_module("dropout", nn.Dropout(0.4))
    model.add_module("head", nn.Linear(4, 2))
    sites = guide_dropout(model, squared, [X])
    assert sites.p["dropout"] == 0.4 and "dropout" not in sites.fisher
    assert [line.split()[1] for line in str(sites).splitlines() if line.startswith("dropout")] == ["-"]


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_model_as_it_was(training):
    model = network().train(training)
    model[3].eval()
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones(4, 4)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    guide_dropout(model, squared, [X])
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[3].weight.grad, torch.ones(4, 4)) and model[6].weight.grad is None
    assert not model[0].weight.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_act_in_training_only_and_are_removed():
    torch.manual_seed(0)
    model = Plain().eval()
    plain = model(WORDS)
    sites = guide_dropout(model, word_loss, [WORDS], highest=0.5)
    assert [*sites.p] == [
        "embedding",
        *(f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention", "mlp")),
    ]
    assert sites.added and "added by hooks" in str(sites)
    assert torch.equal(model(WORDS), plain)
    assert not torch.equal(model.train()(WORDS), plain)
    twin = copy.deepcopy(model)
    set_dropout(twin, 0.0)
    assert torch.equal(twin(WORDS), plain) and max(sites.p.values()) == 0.5
    again = guide_dropout(model, word_loss, [WORDS], highest=0.5)
    assert again.p == sites.p and len(added_sites(model)) == 5
    assert sum(len(module._forward_hooks) for module in model.modules()) == 5
    sites.remove()
    assert torch.equal(model(WORDS), plain) and not added_sites(model)


def test_an_added_site_keeps_the_mean_and_the_rest_of_a_tuple():
    layer = nn.Identity()
    x = torch.ones(100_000)
    torch.manual_seed(0)
    dropped, rest = AddedDropout(0.25)(layer, (), (x, "rest"))
    assert rest == "rest" and float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    named = namedtuple("Named", ["first", "second"])
    assert AddedDropout(0.25)(layer, (), named(x, "rest")).second == "rest"
    with pytest.raises(ValueError, match="Identity gave dict"):
        AddedDropout(0.25)(layer, (), {"h": x})


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_gaussian_dropout_has_the_variance_of_dropout_and_is_silent_at_evaluation(p):
    torch.manual_seed(0)
    noise, x = GaussianDropout(p), torch.full((200_000,), 2.0)
    values = noise(x)
    assert float(values.mean()) == pytest.approx(2, abs=0.02)
    assert float(values.std()) == pytest.approx(2 * math.sqrt(p / (1 - p)), rel=0.01)
    assert torch.equal(noise.eval()(x), x)


def test_gaussian_sites_are_guided_too():
    model = network()
    for place in (2, 5, 8):
        model[place] = GaussianDropout(0.3)
    sites = guide_dropout(model, squared, [X])
    assert max(sites.p.values()) == 0.1 and [model[i].p for i in (2, 5, 8)] == [*sites.p.values()]


NAN = torch.full((1, 4), math.nan)
BAD = {
    "no dropout": (nn.Linear(4, 2), squared, [X], 0.1, "has no dropout module"),
    "one site": (network(1), squared, [X], 0.1, "orders two sites or more; got 1"),
    "no batches": (network(), squared, [], 0.1, "batches are empty"),
    "no rows": (network(), squared, [X[:0]], 0.1, "at least one"),
    "uneven rows": (network(), squared, [(X, X[:3])], 0.1, "the same number of rows"),
    "no tensors": (network(), squared, ["words"], 0.1, "got str"),
    "a loss that is no number": (network(), squared, [X[:5], NAN], 0.1, "the loss of row 5 is nan"),
    "a whole is dropped": (network(), squared, [X], 1.0, "highest is a share"),
    "a negative share": (network(), squared, [X], -0.1, "highest is a share"),
    "no gradient": (network(), lambda m, x: m(x).sum() * 0, [X], 0.1, "Fisher is 0 everywhere"),
    "a constant": (
        network(),
        lambda m, x: x.sum(),
        [X],
        0.1,
        "before the sites|two sites|does not depend|0 every",
    ),
    "outputs": (network(), lambda m, x: m(x), [X], 0.1, "must be one number"),
}


@pytest.mark.parametrize(("model", "loss", "batches", "highest", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(model, loss, batches, highest, words):
    before = {name: module.p for name, module in own_sites(model).items()}
    with pytest.raises(ValueError, match=words):
        guide_dropout(model, loss, batches, highest)
    assert {name: module.p for name, module in own_sites(model).items()} == before


def test_an_unknown_order_share_or_site_is_refused():
    with pytest.raises(ValueError, match="order must be one of"):
        guide_dropout(network(), squared, [X], order="random")
    with pytest.raises(ValueError, match="9 is no site of dropout"):
        set_dropout(network(), {"9": 0.1})
    with pytest.raises(ValueError, match="share to drop"):
        set_dropout(network(), 1.0)
    model = Plain()
    with pytest.raises(ValueError, match="Fisher is 0"):
        guide_dropout(model, lambda m, x: m(x).sum() * 0, [WORDS])
    assert not added_sites(model)
