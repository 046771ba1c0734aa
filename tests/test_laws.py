"""The public laws over every row of the table of methods, every predictor, family and scheme, and over broken ones."""

from dataclasses import replace

import pytest
import torch

from gradatim import families, regimes
from gradatim.families import (
    GaussianMixture,
    ImageClassification,
    LatentSequences,
    LinearClassification,
    LinearRegression,
    RandomNetworkRegression,
    Sinusoids,
    StructuralCausalModel,
)
from gradatim.methods import METHODS, build
from gradatim.nn.fixed_features import FixedFeatures
from gradatim.predictors import (
    Committee,
    CrossEntropy,
    Decoder,
    Ensemble,
    Landmarks,
    Network,
    Readout,
    SquaredError,
)
from gradatim.refiners import CONSTANT, DECAYING, Gain, TransformerConfig
from gradatim.signal import BOTH, GRADIENTS, OBSERVATIONS, PLAIN
from gradatim.testing import check_family, check_predictor, check_refiner, check_scheme
from gradatim.testing.options import fitting
from gradatim.training.evolution import Evolution
from gradatim.training.schemes import Greedy, Unrolled

SMALL = dict(support_rows=15, query_rows=6)
REGRESSION = LinearRegression(3, 0.5, **SMALL)
CLASSES = LinearClassification(3, 3, **SMALL)
SIMULATED = {"regression": REGRESSION, "classification": CLASSES}
CONFIG = TransformerConfig(width=16, layers=2, heads=2)


def config(**changes):
    return TransformerConfig(**{"width": 16, "layers": 2, "heads": 2, **changes})


@pytest.mark.parametrize("family", SIMULATED.values(), ids=SIMULATED)
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if not row.orders])
def test_every_method_keeps_the_laws(name, family):
    if name == "implicit-probabilities" and family.likelihood.classes is None:
        pytest.skip("a regression has no probabilities")
    if METHODS[name].regression and family.likelihood.classes is not None:
        pytest.skip("it knows no classes")
    if METHODS[name].classification and family.likelihood.classes is None:
        pytest.skip("it knows classes only")
    # lbfgs stops where its objective no longer falls by 1e-10; a kernel matrix of few, near rows is ill-conditioned
    tolerance = {"lbfgs": 1e-5, "gaussian-process": 1e-7}.get(name, 1e-9)
    check_refiner(build(name, family, **fitting(name, CONFIG)), family, tolerance)


PREFIXES = config(prefixes=True)
VARIANTS = {
    "prefixes-both": lambda f: regimes.parametric(f, BOTH, PREFIXES),
    "prefixes-observations": lambda f: regimes.parametric(f, OBSERVATIONS, PREFIXES),
    "prefixes-gradients": lambda f: regimes.parametric(f, GRADIENTS, PREFIXES),
    "prefixes-explicit": lambda f: regimes.explicit(f, BOTH, PREFIXES, tokens=3, token_width=8),
    "prefixes-implicit": lambda f: regimes.implicit(f, PLAIN, PREFIXES),
    "prefixes-latents": lambda f: regimes.implicit(f, PLAIN, PREFIXES, "latents"),
    "prefixes-tail": lambda f: regimes.parametric(f, BOTH, config(prefixes=True, tail=1.0)),
    "one-token": lambda f: regimes.parametric(f, BOTH, CONFIG, token_per_row=False),
    "hidden-layers": lambda f: regimes.parametric(f, BOTH, CONFIG, hidden=(5, 4)),
    "hidden-one-token": lambda f: regimes.parametric(f, PLAIN, CONFIG, (5,), token_per_row=False),
    "one-vector": lambda f: regimes.explicit(f, BOTH, CONFIG, tokens=1, token_width=8),
    "tail": lambda f: regimes.parametric(f, BOTH, config(tail=1.0)),
    "tail-uniform": lambda f: regimes.explicit(f, OBSERVATIONS, config(tail=0.0)),
    "curvature": lambda f: regimes.parametric(f, BOTH, config(curvature=DECAYING)),
    "curvature-newest": lambda f: regimes.parametric(f, GRADIENTS, config(curvature=CONSTANT), (4,)),
    "curvature-prefixes": lambda f: regimes.parametric(
        f, BOTH, config(prefixes=True, curvature=DECAYING), token_per_row=False
    ),
    "curvature-rows": lambda f: regimes.parametric(f, OBSERVATIONS, config(curvature=DECAYING)),
    "explicit-features": lambda f: regimes.explicit(f, BOTH, config(curvature=DECAYING), features=6),
    "explicit-features-rows": lambda f: regimes.explicit(f, PLAIN, config(curvature=CONSTANT), features=6),
    "modulated": lambda f: regimes.explicit(f, BOTH, CONFIG, modulated=(6, 4)),
    "history": lambda f: regimes.parametric(f, BOTH, config(history=2)),
    "history-rows-explicit": lambda f: regimes.explicit(f, PLAIN, config(history=1)),
    "history-prefixes": lambda f: regimes.parametric(f, BOTH, config(prefixes=True, history=1)),
    "constant-gain": lambda f: regimes.parametric(f, BOTH, config(gain=CONSTANT)),
    "root-gain": lambda f: regimes.implicit(f, PLAIN, config(gain=Gain(power=0.5, value=0.7))),
}


@pytest.mark.parametrize("family", SIMULATED.values(), ids=SIMULATED)
@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
def test_variants_keep_the_laws(make, family):
    torch.manual_seed(0)
    check_refiner(make(family), family)


@pytest.mark.parametrize("name", ["parametric-both", "implicit-logits", "adam", "ridge"])
def test_real_and_ragged_tasks_keep_the_laws(name):
    digits = ImageClassification("digits", 4, 3, min_support_rows=6, **SMALL)
    check_refiner(build(name, digits, **fitting(name, CONFIG)), digits)
    network = RandomNetworkRegression(2, 4, min_support_rows=1, **SMALL)
    check_refiner(build(name, network, **fitting(name, CONFIG)), network)


# --- a check that never fails says nothing: learners, predictors, families and schemes that break one law each


def flawed(change):
    """Return a small learner whose refiner's step is changed: `change(step, state, step_input) -> state`."""
    torch.manual_seed(0)
    learner = regimes.parametric(REGRESSION, BOTH, CONFIG)
    kind = type(learner.refiner)

    class Flawed(kind):
        def step(self, state, step_input):
            return change(super().step, state, step_input)

    learner.refiner.__class__ = Flawed
    return learner


def blend_tasks(step, state, step_input):
    after = step(state, step_input)
    return after._replace(latent=after.latent + 1e-6 * after.latent.mean(0))


def mutate(step, state, step_input):
    after = step(state, step_input)
    state.rows.copy_(after.rows)
    return after


def first_row_counts_more(step, state, step_input):
    after = step(state, step_input)
    return after._replace(latent=after.latent + 1e-6 * step_input.batch.x[:, 0])


def count_places(step, state, step_input):
    return step(state, step_input)._replace(rows=state.rows + 5)


def move_without_rows(step, state, step_input):
    after = step(state, step_input)
    return after._replace(latent=after.latent + 1e-12)


def forget_the_mask(step, state, step_input):
    full = type(step_input.batch)._trusted(
        step_input.batch.x, step_input.batch.y, torch.ones_like(step_input.batch.weight)
    )
    return step(state, step_input._replace(batch=full))


def stay(step, state, step_input):
    return step(state, step_input)._replace(latent=state.latent)


def roll_dice(step, state, step_input):
    after = step(state, step_input)
    return after._replace(latent=after.latent + 1e-12 * torch.randn(()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (blend_tasks, "a task must get the same answer alone|without rows in a mini-batch must keep"),
        (mutate, "must not change the state it was handed|rows seen must be"),
        (first_row_counts_more, "order of rows|without rows in a mini-batch"),
        (count_places, "rows seen must be|without rows in a mini-batch"),
        (move_without_rows, "without rows in a mini-batch must keep its state, bit for bit"),
        (forget_the_mask, "masked rows, junk or padding, must change nothing"),
        (stay, "a step must move the answer; step 1 does not"),
        (roll_dice, "two runs on the same rows must be equal"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_broken_steps_are_found(change, said):
    with pytest.raises(AssertionError, match=said):
        check_refiner(flawed(change), REGRESSION)


def test_a_state_that_looks_at_the_answers_is_found():
    learner = regimes.implicit(REGRESSION, PLAIN, CONFIG)

    class Peeking(type(learner.refiner)):
        def init(self, n_tasks, query=None):
            state = super().init(n_tasks, query)
            return state._replace(prediction=state.prediction + 1e-6 * query.y)

    learner.refiner.__class__ = Peeking
    with pytest.raises(AssertionError, match="no state may depend on the query's y, bit for bit"):
        check_refiner(learner, REGRESSION)


def test_queries_that_see_each_other_are_found():
    learner = regimes.implicit(CLASSES, PLAIN, CONFIG)

    class Mixing(type(learner.refiner)):
        def latent(self, state):
            return state.prediction + 1e-6 * state.prediction.mean(1, keepdim=True)

    learner.refiner.__class__ = Mixing
    with pytest.raises(AssertionError, match="must not depend on the other queries"):
        check_refiner(learner, CLASSES)


def test_capabilities_that_lie_about_saving_are_found():
    learner = regimes.implicit(CLASSES, PLAIN, CONFIG)
    learner.refiner.capabilities = type(learner.refiner.capabilities)(per_query=False)
    with pytest.raises((AssertionError, ValueError), match=r"queries|query"):
        check_refiner(learner, CLASSES)


def lying(name, family, **claims):
    """Return the learner of a method whose refiner claims other capabilities than it has."""
    learner = build(name, family, **fitting(name, CONFIG))
    learner.refiner.capabilities = replace(learner.refiner.capabilities, **claims)
    return learner


@pytest.mark.parametrize(
    ("name", "claims", "law"),
    [
        ("parametric-both", {"weights": True}, "a row of weight k must count as k rows"),
        ("adam", {"weights": False, "forget": True}, "do not forget rows"),
        ("adam", {"widen": True}, "have a fixed number of outputs"),
        ("ridge", {"forget": False}, "rows that cannot be subtracted must be refused"),
        ("ridge", {"widen": False}, "new classes that have no place must be refused"),
    ],
)
def test_capabilities_that_are_not_there_are_found(name, claims, law):
    with pytest.raises((AssertionError, ValueError), match=law):
        check_refiner(lying(name, CLASSES, **claims), CLASSES)


def test_rows_that_are_not_quite_forgotten_are_found():
    learner = build("ridge", REGRESSION, **fitting("ridge", CONFIG))

    class Careless(type(learner.refiner)):
        def forget(self, state, step_input):
            return super().forget(state, step_input)._replace(cross=state.cross)

    learner.refiner.__class__ = Careless
    with pytest.raises(AssertionError, match="rows forgotten must be as never learnt"):
        check_refiner(learner, REGRESSION)


# --- predictors


@pytest.mark.parametrize("family", SIMULATED.values(), ids=SIMULATED)
@pytest.mark.parametrize(
    "make",
    [
        lambda out: Network(3, out),
        lambda out: Network(3, out, (4, 5), bias=False),
        lambda out: Decoder(3, out, tokens=3, token_width=4, units=2, width=8),
        lambda out: Ensemble(Network(3, out, (4,)), 2),
        lambda out: Decoder(3, out, tokens=1, token_width=4),
        lambda out: Landmarks(torch.eye(3), torch.eye(3), out),
        lambda out: Committee(FixedFeatures.draw(torch.eye(3)[:2], 3, [(1, 0.0)]), out, 2),
        lambda out: Readout(out),
        lambda out: Readout(out, "latents", 8),
    ],
    ids=[
        "linear",
        "network",
        "decoder",
        "ensemble",
        "one-vector",
        "landmarks",
        "committee",
        "readout",
        "latents",
    ],
)
def test_predictors_keep_the_laws(make, family):
    check_predictor(make(CrossEntropy(3) if family.likelihood.classes else SquaredError()), family)


def test_probabilities_keep_the_laws():
    check_predictor(Readout(CrossEntropy(3), "probabilities"), CLASSES)


def test_broken_predictors_are_found():
    class Mixing(Network):
        def forward(self, x, latent):
            return super().forward(x - x.mean(1, keepdim=True), latent)

    class Summing(Network):
        def loss(self, batch, latent, generator=None):
            return self.row_loss(batch, latent).mean(1)

    class Credulous(Network):
        def check(self, batch):
            pass

    for kind, said in (
        (Mixing, "rows must not see each other"),
        (Summing, "mean over present rows"),
        (Credulous, "check must refuse a y"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_predictor(kind(3, CrossEntropy(3)), CLASSES)


# --- families

FAMILIES = {
    "LinearRegression": [REGRESSION, LinearRegression(4, 0.3, 20.0, support_rows=12, min_support_rows=3)],
    "LinearClassification": [CLASSES, LinearClassification(2, 5, support_rows=9, min_support_rows=1)],
    "RandomNetworkRegression": [
        RandomNetworkRegression(3, 4),
        RandomNetworkRegression(1, 1, 0.0),
        RandomNetworkRegression(2, 5, shared=3),
    ],
    "ImageClassification": [
        ImageClassification("digits", 6, 10),
        ImageClassification("digits", None, 10),
        ImageClassification("digits", 3, 4, "test", support_rows=300, query_rows=9, min_support_rows=20),
    ],
    "Sinusoids": [
        Sinusoids(),
        Sinusoids(noise_std=0.1, support_rows=9, min_support_rows=2),
        Sinusoids(0.1, (0.5, 2.0)),
    ],
    "StructuralCausalModel": [StructuralCausalModel(3, support_rows=15)],
    "GaussianMixture": [
        GaussianMixture(2, 3),
        GaussianMixture(3, 4, 1, support_rows=9, min_support_rows=2),
    ],
    "LatentSequences": [
        LatentSequences(),
        LatentSequences(support_rows=9, length=3, symbols=2, min_support_rows=2),
    ],
}
FROM_FILES = {
    "Alphabets",
    "EmbeddingClassification",
    "OmniglotClassification",
}  # checked beside the files they read


def test_every_family_is_checked():
    assert set(FAMILIES) | FROM_FILES == set(families.__all__)


@pytest.mark.parametrize(
    "family", [f for pair in FAMILIES.values() for f in pair], ids=lambda f: type(f).__name__
)
def test_families_keep_the_laws(family):
    check_family(family)
    check_family(family.on("validation"))


def test_broken_families_are_found():
    class Global(LinearRegression):
        def sample(self, n_tasks, generator):
            torch.rand(())
            return super().sample(n_tasks, generator)

    class Stuck(LinearRegression):
        def sample(self, n_tasks, generator):
            return super().sample(n_tasks, torch.Generator().manual_seed(0))

    class Leaking(LinearRegression):
        def sample(self, n_tasks, generator):
            task = super().sample(n_tasks, generator)
            task.query.x[0, 0] = task.support.x[0, 3]
            return task

    class Peeking(LinearRegression):
        def oracle(self, task, rows=None):
            return super().oracle(task, rows) + 1e-6 * task.query.y

    class Gap(LinearClassification):
        def sample(self, n_tasks, generator):
            task = super().sample(n_tasks, generator)
            task.support.y[0, 0] = 3
            return task

    for family, said in (
        (Global(3), "from the generator given, no other"),
        (Stuck(3), "must give other tasks"),
        (Leaking(3), "no query row may stand in its task's support"),
        (Peeking(3), "the oracle must not look at the query's y"),
        (Gap(3, 3), r"classes must lie in 0 \.\. 2"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_family(family)


# --- schemes


@pytest.mark.parametrize("name", ["parametric-both", "explicit-observations", "implicit-logits"])
@pytest.mark.parametrize(
    "scheme",
    [
        Greedy(4, 3),
        Greedy(4, 3, prefixes=2, relative=True),
        Greedy(3, 5, random_horizon=True),
        Unrolled(4, 3),
        Unrolled(3, 4, truncation=2, prefixes=3),
        Evolution(4, 3, pairs=2),
        Evolution(3, 4, True, 3, True, pairs=1, truncation=2),
    ],
    ids=str,
)
def test_schemes_keep_the_laws(scheme, name):
    for family in (REGRESSION, CLASSES):
        check_scheme(
            scheme, build(name, family, **fitting(name, config(prefixes=scheme.prefixes > 2))), family
        )


def test_broken_schemes_are_found():
    class Summing(Greedy):
        def loss(self, learner, task, generator):
            return self.horizon * super().loss(learner, task, generator)

    class Noisy(Greedy):
        def loss(self, learner, task, generator):
            return super().loss(learner, task, generator) + 1e-9 * torch.rand(())

    class Cold(Greedy):
        def loss(self, learner, task, generator):
            return super().loss(learner, task, generator).detach().requires_grad_()

    learner = build("parametric-both", REGRESSION, **fitting("parametric-both", CONFIG))
    for scheme, said in (
        (Summing(4, 3), "mean over the plain loop"),
        (Noisy(4, 3), "functions of the generator|from the generator given"),
        (Cold(4, 3), "a gradient must reach the learner"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_scheme(scheme, learner, REGRESSION)
