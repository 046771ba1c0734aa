"""Neural processes beside plain loops over rows; states that go on as one pass over all rows would."""

import pytest
import torch
import torch.nn.functional as F

from gradatim.batch import Batch
from gradatim.families import LinearClassification, LinearRegression
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.predictors import Network, SquaredError
from gradatim.refiners import AttentiveProcess, NeuralProcess, TransformerConfig
from gradatim.signal import GRADIENTS, PLAIN
from gradatim.testing import randomised
from gradatim.testing.options import fitting
from gradatim.training.schemes import Greedy, Unrolled

SIZES = dict(support_rows=15, query_rows=6)
FAMILIES = {
    "regression": LinearRegression(3, 0.5, **SIZES),
    "classification": LinearClassification(3, 4, **SIZES),
}
CONFIG = TransformerConfig(width=8, layers=1, heads=2)
NAMES = ("conditional-neural-process", "attentive-neural-process")


def setting(name, family, **settings):
    """Return a float64 learner off its start, three tasks, and a support with holes, in mini-batches of 5."""
    torch.manual_seed(0)
    learner = randomised(build(name, family, **fitting(name, CONFIG), **settings))
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    mask = torch.ones(3, 15, dtype=torch.bool)
    mask[1, 5:10] = mask[2, 3] = False
    return learner, task, Batch(task.support.x, task.support.y, mask)


def last(learner, batches, query=None):
    *_, state = learner.states(batches, query, differentiable=True)
    return state


def answers(batch, b, n, family):
    """Return what is known of a row's answer: y, one-hot where it is a class."""
    y = batch.y[b, n]
    return (
        torch.eye(family.likelihood.classes, dtype=torch.float64)[y.item()]
        if family.likelihood.classes
        else y
    )


def embedded(embed, x, answer):
    shift, scale = embed.answer(answer).chunk(2)
    return embed.x(x) + shift + embed.scale(x) * scale


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_conditional_process_is_the_mean_of_encoded_rows(family):
    learner, task, support = setting(NAMES[0], family, tokens=2, token_width=3)
    refiner = learner.refiner
    z = refiner.latent(last(learner, support.split(5)))
    for b in range(3):
        seen = [n for n in range(15) if support.mask[b, n]]
        rows = [embedded(refiner.embed, support.x[b, n], answers(support, b, n, family)) for n in seen]
        mean = sum(refiner.encode(row) for row in rows) / len(seen)
        torch.testing.assert_close(z[b].flatten(), mean, rtol=1e-11, atol=1e-12)
    state = refiner.init(3)
    assert not refiner.latent(state).any() and learner.predict(task.query.x, state).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_an_attentive_process_is_softmax_attention_over_all_rows(family):
    learner, task, support = setting(NAMES[1], family)
    refiner, query = learner.refiner, task.query
    found = refiner.latent(last(learner, support.split(5), query))
    width = CONFIG.width // CONFIG.heads
    for b in range(3):
        seen = [n for n in range(15) if support.mask[b, n]]
        keys = torch.stack([refiner.key(refiner.place(support.x[b, n])) for n in seen])
        rows = [embedded(refiner.embed, support.x[b, n], answers(support, b, n, family)) for n in seen]
        values = torch.stack([refiner.encode(row) for row in rows])
        for i in range(query.n_rows):
            asked, heard = refiner.query(refiner.place(query.x[b, i])), []
            for h in range(CONFIG.heads):
                own = slice(h * width, (h + 1) * width)
                weights = (keys[:, own] @ asked[own] / width**0.5).softmax(0)
                heard.append(weights @ values[:, own])
            wanted = refiner.decode(torch.cat([query.x[b, i], refiner.out(torch.cat(heard))]))
            torch.testing.assert_close(found[b, i], wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sharpness", [1.0, 300.0])
def test_mini_batches_give_what_one_pass_gives(name, sharpness):
    """States, answers and gradients alike, also where scores are so far apart that a plain exponential overflows."""
    family = FAMILIES["regression"]
    learner, task, support = setting(name, family)
    if name == NAMES[1]:
        with torch.no_grad():
            learner.refiner.query.weight.mul_(sharpness)
    found = {}
    for size in (1, 4, 15):
        state = last(learner, support.split(size), task.query)
        loss = learner.loss(task.query, state).mean()
        slopes = torch.autograd.grad(loss, list(learner.parameters()))
        found[size] = [loss, learner.predict(task.query.x, state), *slopes]
    assert all(part.isfinite().all() for part in found[15])
    for size in (1, 4):
        for one, other in zip(found[size], found[15], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11 * sharpness)
    shapes = [[part.shape for part in state] for state in learner.states(support.split(5), task.query)]
    assert all(shape == shapes[0] for shape in shapes), "a state does not grow with the rows"


def test_attention_agrees_with_that_of_torch():
    learner, task, _ = setting(NAMES[1], FAMILIES["regression"])
    refiner, support = learner.refiner, task.support
    state = last(learner, support.split(4), task.query)
    heads = [
        part.unflatten(-1, (CONFIG.heads, -1)).transpose(1, 2)
        for part in (
            refiner.query(refiner.place(task.query.x)),
            refiner.key(refiner.place(support.x)),
            refiner.encode(refiner.embed(support.x, support.y)),
        )
    ]
    wanted = F.scaled_dot_product_attention(*heads).transpose(1, 2)
    found = state.values / state.weights[..., None]
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_states_of_shards_add():
    learner, task, support = setting(NAMES[0], FAMILIES["classification"])
    shards = [support.slice(0, 5), support.slice(5, 10), support.slice(10, 15)]
    merged = learner.merge([last(learner, [shard]) for shard in shards])
    whole = last(learner, [support])
    torch.testing.assert_close(merged.total, whole.total, rtol=1e-12, atol=1e-12)
    assert torch.equal(merged.rows, whole.rows)
    attentive, _, _ = setting(NAMES[1], FAMILIES["classification"])
    states = [last(attentive, [shard], task.query) for shard in shards]
    with pytest.raises(ValueError, match="do not merge: its state is a prediction for its own queries"):
        attentive.merge(states)


@pytest.mark.parametrize("name", NAMES)
def test_meta_training_lowers_the_loss(name):
    family = LinearRegression(2, 0.1, support_rows=16, query_rows=10)
    torch.manual_seed(0)
    learner, generator = (
        build(name, family, **fitting(name, TransformerConfig(width=16, heads=2))),
        torch.Generator().manual_seed(0),
    )
    adam, task, losses = torch.optim.Adam(learner.parameters(), 0.01), family.sample(8, generator), []
    for _ in range(40):
        loss = Unrolled(8, 2).loss(learner, task, generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_kernel_average_weighs_every_row_by_its_distance(family):
    learner, task, support = setting("kernel", family, width=0.7)
    state = learner.adapt(support, 5, task.query)
    for b in range(3):
        seen = [n for n in range(15) if support.mask[b, n]]
        known = torch.stack([answers(support, b, n, family) for n in seen])
        apart = (task.query.x[b][:, None] - support.x[b, seen]).square().sum(-1)
        weights = torch.exp(-apart / (2 * 0.7**2))
        average = weights @ known.double() / weights.sum(-1, keepdim=True)
        said = learner.predict(task.query.x, state)[b]
        torch.testing.assert_close(
            said.softmax(-1) if family.likelihood.classes else said, average, rtol=1e-6, atol=1e-9
        )


def test_misuse_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match=r"a kernel needs width > 0; got 0\.0"):
        build("kernel", FAMILIES["regression"], width=0.0)
    with pytest.raises(ValueError, match="heads that divide the width; got width 8, heads 3"):
        AttentiveProcess(3, 1, None, 8, 3)
    for name in NAMES:
        learner, task, _ = setting(name, FAMILIES["regression"])
        kind = type(learner.refiner).__name__
        with pytest.raises(ValueError, match=f"{kind} writes parts of its state that only later steps read"):
            Greedy(5, 3).loss(learner, task, torch.Generator())
    with pytest.raises(ValueError, match="got no query: pass query="):
        learner.adapt(task.support, 5)
    state = learner.adapt(task.support, 5, task.query)
    with pytest.raises(ValueError, match="answers the queries it was made for"):
        learner.predict(task.query.x + 1, state)
    f = Network(3, SquaredError())
    with pytest.raises(ValueError, match="NeuralProcess needs observations"):
        Learner(f, NeuralProcess(f.latent_shape, 3, 1, None), GRADIENTS)
    seen = PLAIN(f, f.initial().expand(3, -1).double(), task.support)._replace(batch=None)
    refiner = NeuralProcess(f.latent_shape, 3, 1, None)
    with pytest.raises(ValueError, match="this refiner sees rows; got a signal without them"):
        refiner.step(refiner.init(3), seen)
