"""Boundaries: what is known of a grid exactly, steps of learners, rows worth labelling, the command, the study."""

import numpy as np
import pytest
from rich.console import Console
from sklearn.dummy import DummyClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from gradatim.cli import main
from gradatim.comparison.runs import Study
from gradatim.estimators import RefinedClassifier
from gradatim.families import LinearClassification, LinearRegression
from gradatim.methods import build
from gradatim.probing import acquire, boundaries, boundary, draw_boundaries
from gradatim.probing.boundary import differing

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


class Rule:
    """A classifier that follows a rule of the place, with probabilities 0 and 1 or of its own."""

    def __init__(self, rule):
        self.rule, self.classes_ = rule, np.array([0, 1])

    def predict_proba(self, X):
        p = np.clip(np.asarray(self.rule(np.asarray(X)), dtype=float), 0, 1)
        return np.stack([1 - p, p], 1)

    def predict(self, X):
        return self.predict_proba(X).argmax(1)


def shown(rule, grid=10, **options):
    return boundary(Rule(rule), CORNERS, [0, 1, 0, 1], grid, margin=0.0, **options)


def ring(X):
    return np.linalg.norm(X - 0.5, axis=1) < 0.3


def test_a_half_plane_is_as_rough_as_its_side_is_long():
    half = shown(lambda X: X[:, 0] > 0.5)
    # of 2 * 10 * 9 pairs of neighbours, the 10 across the line differ
    assert half.roughness == pytest.approx(10 / 180)
    assert (half.regions, half.odd) == (2, 0.0)
    assert half.labels[0].tolist() == [0] * 5 + [1] * 5  # a row runs along the first column
    assert half.x_axis[[0, -1]].tolist() == [0.0, 1.0]


def test_a_chessboard_is_all_border_and_a_plain_field_has_none():
    board = shown(lambda X: np.rint(9 * X).astype(int).sum(1) % 2)
    assert (board.roughness, board.regions) == (1.0, 100)
    # inside, five of the nine cells around are like the one in the middle; in the corners two of four are
    assert board.odd == pytest.approx(np.mean([*_by_hand(board.labels)]))
    plain = shown(lambda X: X[:, 0] < 2)
    assert (plain.roughness, plain.regions, plain.odd) == (0.0, 1, 0.0)


def _by_hand(labels):
    for i, j in np.ndindex(labels.shape):
        near = labels[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].ravel().tolist()
        yield near.count(labels[i, j]) < len(near) / 2


def test_odd_cells_are_counted_by_hand():
    generator = np.random.default_rng(0)
    noise = generator.random(400) < 0.3
    found = shown(lambda X: noise, grid=20)
    assert found.odd == pytest.approx(np.mean([*_by_hand(found.labels)]))
    assert differing(found.labels) == found.roughness


def test_a_disc_has_two_regions_and_an_island_makes_three():
    assert shown(ring, 40).regions == 2
    assert shown(lambda X: ring(X) | (X.max(1) > 0.98) & (X.min(1) > 0.9), 40).regions == 3
    # cells that touch at a corner only are two regions
    corner = shown(lambda X: (X[:, 0] > 0.5) == (X[:, 1] > 0.5), 4)
    assert corner.regions == 4


def test_roughness_is_in_units_of_the_reference():
    best = Rule(ring)
    assert shown(ring, 30, reference=best).roughness == 1.0
    labels = shown(ring, 30).labels
    assert shown(lambda X: X[:, 0] > 0.5, 30, reference=labels).roughness == pytest.approx(
        shown(lambda X: X[:, 0] > 0.5, 30).roughness / differing(labels)
    )
    with pytest.raises(ValueError, match="one label on the whole grid"):
        shown(ring, 30, reference=np.zeros((30, 30)))
    with pytest.raises(ValueError, match="30 by 30 cells"):
        shown(ring, 30, reference=np.zeros((3, 3)))


def moons(n=96):
    generator = np.random.default_rng(0)
    angle, side = np.pi * generator.random(n), np.arange(n) % 2
    X = (
        np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(side, -1, 1)[:, None]
        + [1, -0.5] * side[:, None]
    )
    return X, np.where(side, "low", "high")


def test_a_fitted_classifier_is_taken_as_it_is_and_another_is_copied_and_fitted():
    X, y = moons()
    fitted = GaussianNB().fit(X[:40], y[:40])
    unfitted = make_pipeline(StandardScaler(), KNeighborsClassifier(1))
    assert (boundary(fitted, X, y, 8).labels.ravel() == fitted.predict(_points(X, 8))).all()
    found = boundary(unfitted, X, y, 8)
    assert not hasattr(unfitted, "classes_")
    assert (found.labels.ravel() == unfitted.fit(X, y).predict(_points(X, 8))).all()
    assert found.probabilities.shape == (8, 8, 2) and found.classes.tolist() == ["high", "low"]


def _points(X, grid):
    low, high = X.min(0), X.max(0)
    axes = [
        np.linspace(low[c] - 0.01 * (high - low)[c], high[c] + 0.01 * (high - low)[c], grid) for c in range(2)
    ]
    return np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)


def test_steps_of_an_estimator_end_where_it_ends():
    X, y = moons()
    model = RefinedClassifier()
    steps = boundaries(model, X, y, 8, batch_size=40)
    assert [len(step.X) for step in steps] == [40, 80, 96]
    assert not hasattr(model, "classes_")
    for start in (0, 40, 80):
        model.partial_fit(X[start : start + 40], y[start : start + 40])
    whole = boundary(model, X, y, 8)
    np.testing.assert_array_equal(whole.probabilities, steps[-1].probabilities)
    refitted = boundaries(KNeighborsClassifier(1), X, y, 8, batch_size=40)
    assert (refitted[1].labels == boundary(KNeighborsClassifier(1).fit(X[:80], y[:80]), X, y, 8).labels).all()


@pytest.mark.parametrize("name", ["ridge", "implicit-logits"])
def test_steps_of_a_learner_are_those_of_its_loop(name):
    import torch

    from gradatim.batch import Batch

    torch.manual_seed(0)
    learner = build(name, LinearClassification(2, 2)).eval()
    X, y = moons(20)
    steps = boundaries(learner, X, y, 6, batch_size=8)
    assert [len(step.X) for step in steps] == [8, 16, 20]
    rows = Batch(torch.as_tensor(X)[None].float(), torch.as_tensor(y == "low")[None, :, None].long())
    points = torch.as_tensor(_points(X, 6))[None].float()
    query = Batch(points, torch.zeros(1, 36, 1, dtype=torch.int64))
    with torch.no_grad():
        p = learner.predict(points, learner.adapt(rows, 8, query))[0].softmax(-1)
    np.testing.assert_allclose(steps[-1].probabilities.reshape(36, 2), p, atol=1e-6)
    whole = boundary(learner, X, y, 6, batch_size=8)
    np.testing.assert_array_equal(whole.probabilities, steps[-1].probabilities)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": np.zeros((4, 3))}, "two columns"),
        ({"X": [["a", "b"]] * 4}, "no numbers"),
        ({"X": np.full((4, 2), np.nan)}, "missing or infinite"),
        ({"y": [1, 1, 1, 1]}, "same label"),
        ({"y": [0, 1]}, "one label for each row"),
        ({"grid": 1}, "2 to 1000 cells"),
        ({"grid": 5.0}, "grid"),
        ({"grid": 3000}, "2 to 1000 cells"),
        ({"margin": np.nan}, "margin"),
        ({"y": ["a", None, "b", "a"]}, "missing labels"),
        ({"y": [0.0, np.nan, 1.0, 0.0]}, "missing labels"),
        ({"y": np.array(["a", 1, "b", 2], dtype=object)}, "several types"),
        ({"predictor": SVC()}, "predict_proba"),
        ({"predictor": object()}, "predict_proba"),
        ({"predictor": build("ridge", LinearRegression(2))}, "classes"),
        (
            {"predictor": build("ridge", LinearClassification(2, 3)), "X": CORNERS[:3], "y": [0, 1]},
            "one label",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, words):
    given = {"predictor": GaussianNB(), "X": CORNERS, "y": [0, 1, 0, 1]} | change
    with pytest.raises(ValueError, match=words):
        boundary(**given)


def test_a_fitted_classifier_begins_its_steps_with_nothing_learnt():
    X, y = moons()
    fitted = GaussianNB().fit(X, y[::-1])
    for mine, fresh in zip(
        boundaries(fitted, X, y, 8, batch_size=20),
        boundaries(GaussianNB(), X, y, 8, batch_size=20),
        strict=True,
    ):
        np.testing.assert_array_equal(mine.probabilities, fresh.probabilities)
    assert (fitted.predict(X) == GaussianNB().fit(X, y[::-1]).predict(X)).all()


def test_steps_that_cannot_be_are_refused():
    X, y = moons()
    with pytest.raises(ValueError, match="shuffle the rows"):
        boundaries(KNeighborsClassifier(1), X, np.sort(y), 5, batch_size=8)
    with pytest.raises(ValueError, match="none of them"):
        boundaries(Rule(ring), X, y, 5)
    with pytest.raises(ValueError, match="batch_size"):
        boundaries(GaussianNB(), X, y, 5, batch_size=0)


def test_rows_are_taken_where_the_classifier_is_least_sure():
    pool = np.stack([np.linspace(0, 1, 101), np.zeros(101)], 1)
    model = Rule(lambda X: X[:, 0])
    assert acquire(model, pool, 1).tolist() == [50]
    assert sorted(acquire(model, pool, 5, spread=0.0).tolist()) == [48, 49, 50, 51, 52]
    places = acquire(model, pool, 5)
    assert places[0] == 50 and len(set(places.tolist())) == 5
    gaps = np.diff(np.sort(pool[places, 0]))
    assert gaps.min() > 0.1 > 0.02 > np.diff(np.sort(pool[acquire(model, pool, 5, spread=0.0), 0])).max()


def test_rows_beside_labelled_ones_are_passed_over_and_columns_count_alike():
    pool = np.stack([np.linspace(0, 1, 101), np.zeros(101)], 1)
    model = Rule(lambda X: np.full(len(X), 0.5))
    assert acquire(model, pool, 1, labelled=[[0.0, 0.0]]).tolist() == [100]
    generator = np.random.default_rng(0)
    square = generator.random((200, 2))
    even = acquire(model, square, 10)
    assert (acquire(model, square * [1000.0, 0.001], 10) == even).all()
    assert sorted(acquire(model, square, 200).tolist()) == [*range(200)]


def test_rows_that_are_all_sure_are_still_spread():
    pool = np.random.default_rng(0).random((50, 2))
    places = acquire(Rule(lambda X: X[:, 0] > 2), pool, 50)
    assert sorted(places.tolist()) == [*range(50)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 0}, "k must be a whole number of at least 1"),
        ({"k": 5}, "k is 1 to 4"),
        ({"k": 3.0}, "k"),
        ({"labelled": [[0.0]]}, "columns of the pool, 2; got 1"),
        ({"spread": -1.0}, "spread at least 0"),
        ({"pool": [[np.nan, 0.0]]}, "the pool has missing"),
        ({"predictor": SVC()}, "predict_proba"),
    ],
)
def test_rows_that_cannot_be_taken_are_refused(change, words):
    given = {"predictor": Rule(ring), "pool": CORNERS, "k": 2} | change
    with pytest.raises(ValueError, match=words):
        acquire(**given)


def test_pictures_are_drawn_of_one_of_many_and_moving(tmp_path):
    pytest.importorskip("matplotlib")
    X, y = moons(30)
    steps = boundaries(GaussianNB(), X, y, 6, batch_size=6)
    assert steps[0].plot(tmp_path / "one.png") is None
    assert draw_boundaries(steps, tmp_path / "strip.png") is None
    assert draw_boundaries(steps, tmp_path / "steps.gif", names=("a", "b")) is None
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "steps.gif").read_bytes()[:3] == b"GIF"
    assert boundary(DummyClassifier(strategy="most_frequent"), X, y, 6).plot(tmp_path / "dull.png") is None
    (tmp_path / "file").write_text("")
    assert "could not be written" in (draw_boundaries(steps, tmp_path / "file" / "steps.gif") or "")
    with pytest.raises(ValueError, match="no boundary to draw"):
        draw_boundaries([], tmp_path / "none.png")


def table(path, X, y, more=""):
    lines = [f"{a},{b}{more},{label}" for (a, b), label in zip(X, y, strict=True)]
    path.write_text("\n".join([f"a,b{',c' if more else ''},y", *lines]) + "\n")
    return str(path)


def test_the_command_draws_a_table_and_says_how_rough_it_is(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    X, y = moons()
    path = table(tmp_path / "moons.csv", [*X, (1, "")], [*y, "low"])
    out = tmp_path / "out.png"
    assert main(["boundary", path, "--target", "y", "--out", str(out), "--grid", "12"]) == 0
    said = capsys.readouterr().out
    found = boundary(RefinedClassifier(), X, y, 12)
    assert f"{found.roughness:.4f}" in said and "1 row with missing cells left out" in said
    assert out.exists()
    steps = tmp_path / "steps.gif"
    assert main(["boundary", path, "--target", "y", "--steps", "--out", str(steps), "--grid", "8"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines if len(line) == 4 and line[0].isdigit()] == [
        str(n) for n in range(12, 97, 12)
    ]
    assert steps.read_bytes()[:3] == b"GIF"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "3 beside the target (a, b, c): choose two with --columns"),
        (["--columns", "a"], "--columns names 1 column; a boundary needs two"),
        (["--columns", "a,z"], "no column 'z'"),
        (["--columns", "a,y"], "--columns y: it is the target"),
        (["--columns", "a,b", "--target", "x"], "no column 'x'"),
        (["--columns", "b,c", "--target", "a"], "'a' has 96 classes"),
        (["--columns", "a,b", "--batch-size", "5"], "--batch-size is for --steps"),
        (["--columns", "a,b", "--steps", "--batch-size", "1"], "at most 40 are drawn: choose 3 or more"),
        (["--columns", "a,b", "--grid", "1"], "a grid has 2 to 1000 cells"),
    ],
)
def test_the_command_refuses_with_a_sentence(tmp_path, capsys, options, words):
    pytest.importorskip("pyarrow")
    X, y = moons()
    path = table(tmp_path / "three.csv", X, y, more=",1.5")
    target = [] if "--target" in options else ["--target", "y"]
    assert main(["boundary", path, *target, "--out", str(tmp_path / "out.png"), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_the_command_refuses_one_class_and_words(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    X, y = moons()
    path = table(tmp_path / "one.csv", X, ["up"] * len(y))
    assert main(["boundary", path, "--target", "y"]) == 2
    assert "'y' has 1 class in 96 rows" in capsys.readouterr().err
    words = table(tmp_path / "words.csv", X, y, more=",red")
    assert main(["boundary", words, "--target", "y", "--columns", "a,c"]) == 2
    assert "--columns c: it holds text, not numbers; choose from a, b" in capsys.readouterr().err


def test_the_best_classifier_of_the_study_is_the_best():
    tasks = pytest.importorskip("studies.frozen.boundary_tasks")
    for shape in tasks.SHAPES:
        X, y, best = tasks.drawn(shape, 400, 5)
        assert y.tolist() == [0, 1] * 200
        wrong = (best.predict(X) != y).mean()
        assert wrong <= (SVC(C=10.0).fit(X[:200], y[:200]).predict(X[200:]) != y[200:]).mean() + 0.02
        np.testing.assert_allclose(best.predict_proba(X).sum(1), 1)
    _, _, best = tasks.drawn("circles", 10, 0)
    along = np.stack([np.linspace(0, 1.2, 2401), np.zeros(2401)], 1)
    border = along[np.flatnonzero(np.diff(best.predict(along)))[0], 0]
    # the ring of half the size is as thick and twice as dense: by hand, from log I0(r R / s^2) - R^2 / 2 s^2
    assert border == pytest.approx(0.75 + 0.0025 / 0.5 * np.log(2) / 2, abs=2e-3)


def test_the_part_runs_at_its_smallest_size_and_goes_on_from_its_records(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    from studies.frozen import boundary as study_part

    study = Study(tmp_path, 1, Console(quiet=True))
    found = study_part.part(study, smoke=True, seeds=1)
    assert [each["id"] for each in found["claims"]] == [
        f"frozen.boundary.{name}" for name in ("roughness", "acquire", "finetuned")
    ]
    assert all(len(row) == len(each["columns"]) for each in found["listings"] for row in each["rows"])
    assert all(0 <= record["errors"][0] <= 1 for record in found["records"])
    for name in ("by_size", "acquired", "untuned", "finetuned", "moved_by_order"):
        monkeypatch.setattr(study_part, name, None)
    assert study_part.part(study, smoke=True, seeds=1)["claims"] == found["claims"]
