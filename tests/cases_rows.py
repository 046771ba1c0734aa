"""Cases D14 to D17, D19, D22 to D25: rows, labels and weights in Python, and what is learnt of them."""

import datetime
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gradatim import Batch, LinearRegression, build
from gradatim.estimators import RefinedClassifier, RefinedRegressor
from gradatim.regimes import bayesian
from gradatim.tree import flatten

from .case_tools import answers, cases_into, fit, raises

ROWS: dict[str, Callable[[Path], None]] = {}


case = cases_into(ROWS)


@case("D14")
def empty_at_fit_filled_later(folder: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=320)
    for empty in (np.full(320, np.nan), np.full(320, None, dtype=object)):
        X = pd.DataFrame({"a": a, "m": empty})
        models = [RefinedClassifier().fit(X, X.a > 0), RefinedClassifier().partial_fit(X, X.a > 0)]
        models.append(RefinedRegressor().fit(X, X.a))
        for model in models:
            wanted = model.predict(pd.DataFrame({"a": [0.1], "m": [None]}))
            for cell in ("word", 3.5, True, datetime.date(2024, 1, 1), pd.Timestamp("2024-01-01")):
                row = pd.DataFrame({"a": [0.1], "m": [cell]})
                np.testing.assert_allclose(model.predict(row).astype(float), wanted.astype(float), rtol=1e-9)
    fit(folder, "\n".join(["a,m,y", *(f"{v:.3f},,{'np'[v > 0]}" for v in a.tolist())]))
    assert answers(folder, "a,m\n1.5,word\n-1.5,7\n1.5,\n") == ["p", "n", "p"]


@case("D15")
def the_loop_of_states_is_flat(folder: Path) -> None:
    family = LinearRegression(dim=8, noise_std=0.5, support_rows=256)
    task = family.sample(16, torch.Generator().manual_seed(0))
    for learner in (bayesian(family), build("ridge", family), build("parametric-gradients", family)):
        with torch.enable_grad():
            for state in learner.states(task.support.split(16)):
                parts = flatten(state).values()
                assert all(part.grad_fn is None for part in parts), (
                    "a state holds the graph of all steps before"
                )
        *_, state = learner.states(task.support.split(64), differentiable=True)
        assert any(part.requires_grad for part in flatten(state).values()) or not [*learner.parameters()]


@case("D16")
def one_absurd_cell(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, noise, test = rng.normal(size=2000), rng.normal(size=2000), rng.normal(size=(500, 1))
    y = 3 * x + 0.1 * noise
    for cells in ({3: 1e9}, {3: 1e6}, {3: -9999.0}, {3: 1e9, 700: -1e9}, {1500: 1e9}):
        dirty = x.copy()
        for place, cell in cells.items():
            dirty[place] = cell
        for fitted in ("fit", "partial_fit"):
            model = getattr(RefinedRegressor(), fitted)(dirty[:, None], y)
            error = np.sqrt(np.mean((model.predict(test) - 3 * test[:, 0]) ** 2))
            assert error < 0.2, f"RMSE {error:.3f} after {fitted} with {cells}"


@case("D17")
def intervals_after_few_rows(folder: Path) -> None:
    for y in (1e6, 0.0, -3e-7):
        model = RefinedRegressor().partial_fit([[0.0]], [y])
        assert model.predict([[0.0]], quantiles=[0.05, 0.95]).tolist() == [[-np.inf, np.inf]]
        assert np.isfinite(model.predict([[0.0]])).all()
    rng = np.random.default_rng(0)
    for n in (3, 4, 8):
        covered = []
        for draw in range(24):
            X, y, new = rng.normal(size=(n, 1)), rng.normal(100, 20, n), rng.normal(100, 20, 200)
            asked = rng.normal(size=(200, 1))
            low, high = RefinedRegressor().partial_fit(X, y).predict(asked, quantiles=[0.1, 0.9]).T
            covered.append(np.mean((low <= new) & (new <= high)))
            for unit in (1e6, 1e-6) if draw == 0 else ():
                ends = RefinedRegressor().partial_fit(X, unit * y).predict(asked, quantiles=[0.1, 0.9]) / unit
                np.testing.assert_allclose(ends, np.column_stack([low, high]), rtol=1e-6)
        # .7 on average over draws; the mean of 24 has a deviation of .04
        assert np.mean(covered) >= 0.66, f"{np.mean(covered):.2f} of new rows after {n}"


@case("D19")
def no_false_note_about_classes(folder: Path) -> None:
    out = fit(folder, "\n".join(["x,y", *(f"{i % 7},l{i * 13 % 40}" for i in range(4000))]))
    assert "unique classes" not in out and "40 classes" in out
    X, y = np.arange(300.0)[:, None] % 7, np.arange(300) * 13 % 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = RefinedClassifier()
        for start in range(0, 300, 20):
            model.partial_fit(X[start : start + 20], y[start : start + 20])
        RefinedClassifier().fit(X[:60], y[:60])


@case("D22")
def what_is_kept_for_answers_is_not_pickled(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for rows in (240, 300):
        X = rng.normal(size=(rows, 10))
        for model in (
            RefinedClassifier().fit(X, X[:, 0] > 0),
            RefinedClassifier().partial_fit(X, X[:, 0] > 0),
            RefinedRegressor().partial_fit(X, X[:, 0]),
        ):
            before, wanted = len(pickle.dumps(model)), model.predict(X[:5])
            after = pickle.dumps(model)
            assert len(after) <= 1.2 * before
            np.testing.assert_array_equal(pickle.loads(after).predict(X[:5]), wanted)


@case("D23")
def missing_labels(folder: Path) -> None:
    for missing in (np.nan, None, pd.NA, float("nan"), pd.NaT):
        for labels in (["a", missing, "b", "a"], pd.Series(["a", missing, "b", "a"])):
            for call in ("fit", "partial_fit"):
                with raises("missing", "row 1"):
                    getattr(RefinedClassifier(), call)([[0.0], [1.0], [2.0], [3.0]], labels)
    with raises("missing", "row 2"):
        RefinedClassifier().fit([[0.0], [1.0], [2.0]], [0.0, 1.0, np.nan])
    with raises("missing", "row 0"):
        RefinedClassifier().fit([[0.0], [1.0]], pd.Series([None, 1], dtype="Int64"))
    with raises():
        RefinedRegressor().fit([[0.0], [1.0]], [0.5, np.nan])


@case("D24")
def truth_values_are_one_set_of_classes(folder: Path) -> None:
    s = pd.Series([True, False] * 20)
    X = np.arange(40.0)[:, None] % 2
    forms = {
        "bool": s,
        "boolean": s.astype("boolean"),
        "array": s.to_numpy(),
        "list": s.tolist(),
        "object": s.astype(object),
        "arrow": s.astype("bool[pyarrow]"),
        "numbers": s.astype(int),
        "Int64": s.astype("Int64"),
    }
    for first in ("bool", "boolean", "numbers", "object"):
        for form, labels in forms.items():
            model = RefinedClassifier().partial_fit(X, forms[first]).partial_fit(X, labels)
            assert len(model.classes_) == 2, f"{first}, then {form}: {model.classes_}"
            assert np.mean(model.predict(X).astype(float) == s.to_numpy()) == 1
    assert RefinedClassifier().partial_fit(X, forms["boolean"]).classes_.dtype == bool


@case("D25")
def pairs_are_no_batch(folder: Path) -> None:
    family = LinearRegression(dim=3, noise_std=0.5)
    learner = build("ridge", family)
    x, y = torch.zeros(2, 4, 3), torch.zeros(2, 4, 1)
    for mini_batch in ((x, y), [x, y], {"x": x, "y": y}, x):
        with raises("Batch(x, y)"):
            list(learner.states([mini_batch]))  # type: ignore[list-item]
        with raises("Batch"):
            learner.adapt(mini_batch, 2)  # type: ignore[arg-type]
        with raises("Batch"):
            learner.step(learner.init(2), mini_batch)  # type: ignore[arg-type]
    assert len(list(learner.states([Batch(x, y)]))) == 2
