"""The study of streams: streams are what they are said to be, passes and ratios are those of hand, claims say all."""

import json
from importlib import import_module
from importlib.metadata import version

import numpy as np
import pytest
from rich.console import Console
from studies.streams import data, figures, peers, protocol
from studies.streams.data import Stream, after, load, moved_name
from studies.streams.figures import BARS
from studies.streams.generators import CHANGES, GENERATORS, generate, schedule
from studies.streams.moved import KINDS, move
from studies.streams.page import PAGE
from studies.streams.peers import ALL, ARF, BATCHED, BY_32, OURS, NoChange, OneByOne, Ours, Refits, Shares
from studies.streams.protocol import strict_pass
from studies.tables.data import Table

from gradatim.comparison.report import Result, write_result
from gradatim.comparison.runs import Study

run_module = import_module("studies.streams.run")
VALIDATION = {"electricity", "weather", "luxembourg", "bikes", "mixed", "sine", "friedman"}
TEST = {
    "outdoor",
    "keystroke",
    "phishing",
    "agrawal",
    "hyperplane",
    "led",
    "rbf",
    "sea",
    "stagger",
    "waveform",
}


def stream(y, classes=2, width=3, **about):
    """A stream of random numbers with these targets."""
    x = np.random.default_rng(0).normal(size=(len(y), width))
    return Stream("made", x, np.asarray(y), classes=classes, **about)


def wrong(count, rows=100):
    """The record of a pass with so many errors."""
    return {"error": (np.arange(rows) < count).astype(np.float32), "seconds": np.asarray(float(count))}


# --- the streams


def test_the_sides_are_those_of_the_hash():
    """No stream may change its side, or what was chosen on validation streams would be judged on them."""
    sides = {
        on: {*data.real(on), *(name.partition("-")[0] for name in data.drifting(on))}
        for on in ("validation", "test")
    }
    assert sides == {"validation": VALIDATION, "test": TEST}
    smoke = {name for names in run_module.SMOKE.values() for name in names}
    assert {name.partition("-")[0] for name in smoke} <= VALIDATION | {"turned"}


def test_changes_come_at_the_rows_that_are_said():
    rng = np.random.default_rng(0)
    concepts, points = schedule("abrupt", 9, rng)
    assert concepts.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and points == (3, 6)
    concepts, points = schedule("gradual", 30_000, rng)
    assert points == (10_000, 20_000)
    assert (
        (concepts[:7000] == 0).all()
        and (concepts[13_000:17_000] == 1).all()
        and (concepts[23_000:] == 2).all()
    )
    for point, share in ((8500, 0.25), (10_000, 0.5), (11_500, 0.75)):  # 600 rows: a deviation is .02
        assert abs((concepts[point - 300 : point + 300] == 1).mean() - share) < 0.08
    assert (schedule("still", 5, rng)[0] == 0).all() and schedule("still", 5, rng)[1] == ()
    with pytest.raises(ValueError, match="no kind of change is called 'sudden': there are abrupt"):
        schedule("sudden", 5, rng)


def test_a_generated_stream_is_the_same_for_a_seed_and_another_for_another(tmp_path):
    pytest.importorskip("river")
    first = load("mixed-recurring-0", tmp_path, 400)
    x, y, changes = generate("mixed", "recurring", 0, 400)
    assert (first.x == x).all() and (first.y == y).all() and changes == first.changes == (100, 200, 300)
    assert load("mixed-recurring-1", tmp_path, 400).digest != first.digest
    if version("river").startswith("0.26"):
        assert first.digest == "94418c33b23d5471"


def test_a_recurring_concept_is_the_first_one_again():
    """Mixed has two concepts, one the other's opposite: two of three hold."""
    pytest.importorskip("river")
    x, y, _ = generate("mixed", "recurring", 0, 400)
    curve = 0.5 + 0.3 * np.sin(3 * np.pi * x[:, 2])
    two = (x[:, 0] + x[:, 1] + (x[:, 3] < curve)) >= 2
    same = (y == two).reshape(4, 100).mean(1)
    assert same.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])


@pytest.mark.parametrize("family", GENERATORS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_generator_makes_the_classes_that_it_says_and_changes(family, change):
    pytest.importorskip("river")
    x, y, changes = generate(family, change, 1, 300)
    classes = GENERATORS[family].classes
    assert x.shape[0] == len(y) == 300 and np.isfinite(x).all() and len(changes) >= 2
    if classes:
        assert set(np.unique(y)) <= set(range(classes)) and len(np.unique(y)) > 1
    for column in GENERATORS[family].categorical:
        assert (x[:, column] == x[:, column].astype(int)).all()


def test_a_stored_stream_that_was_damaged_is_made_again(tmp_path):
    pytest.importorskip("river")
    whole = load("sine-abrupt-0", tmp_path, 200)
    (path,) = (tmp_path / "streams").glob("*.npz")
    np.savez(
        path, x=whole.x + 1, y=whole.y, changes=np.asarray(whole.changes), digest=np.asarray(whole.digest)
    )
    load.cache_clear()
    assert (load("sine-abrupt-0", tmp_path, 200).x == whole.x).all()
    assert [file.name for file in (tmp_path / "streams").iterdir()] == [path.name]


def test_a_real_stream_keeps_its_order_its_words_and_its_labels(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = import_module("pyarrow.parquet")
    (tmp_path / "streams").mkdir()
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    table = pyarrow.table({"day": ["b", "a", "b"], "demand": [3, 1, 2], "y": ["UP", "DOWN", "UP"]})
    parquet.write_table(table, tmp_path / "streams" / "electricity.parquet")
    table = pyarrow.table({"hum": [0.5, 0.25], "y": [16.0, 40.0]})
    parquet.write_table(table, tmp_path / "streams" / "bikes.parquet")
    load.cache_clear()
    found = load("electricity", tmp_path)
    assert found.x.tolist() == [[1, 3], [0, 1], [1, 2]] and found.categorical == (0,)
    assert found.y.tolist() == [1, 0, 1] and found.classes == 2 and found.fixed
    assert load("electricity", tmp_path, 2).y.tolist() == [1, 0]
    counts = load("bikes", tmp_path)
    assert counts.y.tolist() == [16.0, 40.0] and counts.classes == 0
    with pytest.raises(ValueError, match=r"weather.parquet is not there"):
        load("weather", tmp_path)
    load.cache_clear()
    monkeypatch.delenv("GRADATIM_DATA")
    with pytest.raises(ValueError, match="set GRADATIM_DATA, or run with --smoke"):
        load("electricity", tmp_path)


def test_a_stream_of_no_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no stream is called 'elec': there are electricity"):
        load("elec", tmp_path)


# --- what moves


def still():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    x = np.column_stack(
        [rng.normal(3, 2, 200), y, rng.integers(3, size=200), rng.normal(size=200), rng.normal(size=200)]
    )
    return Table("t", x, y, categorical=(1, 2), classes=2)


def test_units_and_places_move_in_half_the_numbers_after_the_change():
    table, rng = still(), np.random.default_rng(0)
    for kind, moved in (
        ("units-up", table.x[100:] * 1000),
        ("units-down", table.x[100:] / 1000),
        ("shift", table.x[100:] + 2 * table.x[:100].std(0)),
    ):
        x, absent = move(table, kind, 100, rng)
        assert absent is None and (x[:100] == table.x[:100]).all()
        np.testing.assert_allclose(x[100:, [0, 4]], moved[:, [0, 4]], rtol=1e-12)
        assert (x[100:, [1, 2, 3]] == table.x[100:, [1, 2, 3]]).all()


def test_the_column_that_says_most_gets_words_that_were_never_seen():
    x, _ = move(still(), "words", 100, np.random.default_rng(0))
    assert not set(x[100:, 1]) & set(x[:100, 1]) and (x[:, 2] == still().x[:, 2]).all()
    assert (x[100:, 1] - 2 == still().x[100:, 1]).all()
    with pytest.raises(ValueError, match="nothing that moves is called 'rows': there are words"):
        move(still(), "rows", 100, np.random.default_rng(0))


def test_a_column_appears_or_vanishes_and_a_learner_may_begin_at_the_change():
    for kind, lacks in (("appears", slice(0, 100)), ("vanishes", slice(100, 200))):
        x, absent = move(still(), kind, 100, np.random.default_rng(0))
        assert absent is not None and np.isnan(x[lacks, absent[0]]).all() and np.isnan(x).sum() == 100
        later = after(stream(still().y, changes=(100,), absent=absent))
        assert len(later.y) == 100 and later.absent == (absent[0], 0, 0 if kind == "appears" else 100)
        assert not later.changes


def test_a_moved_stream_is_its_table_until_the_change_and_has_what_follows_as_its_own(tmp_path):
    table = "bundled-breast_cancer"
    moved, anew = (load(moved_name(table, "units-up", 0, first), tmp_path) for first in ("moved", "after"))
    change = moved.changes[0]
    assert change == 569 // 2 and (anew.x == moved.x[change:]).all() and (anew.y == moved.y[change:]).all()
    plain = load(moved_name(table, "shift", 0), tmp_path)
    assert (plain.x[:change] == moved.x[:change]).all() and moved.digest != plain.digest
    assert data.kinds_of(table, tmp_path) == [kind for kind in KINDS if kind != "words"]


# --- the learners


def test_the_errors_of_no_change_and_of_the_majority_are_those_of_hand():
    y = [0, 0, 1, 1, 0]
    last = strict_pass(NoChange(stream(y), 0), stream(y), 1)
    assert last["error"].tolist() == [0.5, 0, 1, 0, 1]
    most = strict_pass(Shares(stream(y), 0), stream(y), 1)
    assert most["error"].tolist() == [0.5, 0, 1, 1, 0.5]  # two and two before the last row: a fair guess


def test_errors_of_numbers_are_of_the_same_rows_for_all_sizes():
    y = np.arange(70.0)
    numbers = stream(y, classes=0)
    assert strict_pass(NoChange(numbers, 0), numbers, 1)["square"].tolist() == [1.0] * 38
    assert len(strict_pass(NoChange(numbers, 0), numbers, 32)["square"]) == 38
    mean = strict_pass(Shares(numbers, 0), numbers, 1)["square"]
    np.testing.assert_allclose(mean, ((y[32:] + 1) / 2) ** 2)  # the mean of 0 to n - 1 is (n - 1) / 2


def test_models_are_fitted_anew_when_rows_have_doubled():
    fits = []

    class Model:
        classes_ = np.arange(2)

        def fit(self, x, y):
            fits.append(len(x))
            return self

        def predict_proba(self, x):
            return np.tile([0.25, 0.75], (len(x), 1))

    table = stream(np.arange(300) % 2)
    learner = Refits(lambda seed, table: Model(), True, table, 0)
    for start in range(0, 300, 32):
        learner.learn(table.x[start : start + 32], table.y[start : start + 32])
    assert fits == [32, 64, 128, 256] and learner.predict(table.x[:2]).tolist() == [[0.25, 0.75]] * 2


def test_a_model_that_saw_one_class_answers_it():
    table = stream(np.zeros(64, int))
    learner = peers.peers("classification")["refit-logistic"].make(table, 0, strength=1.0)
    learner.learn(table.x, table.y)
    assert learner.predict(table.x[:1]).tolist() == [[1.0, 0.0]]


def test_learners_see_one_row_at_a_time_but_for_refits():
    sizes = {
        name: protocol.row_by_row(name, "classification")
        for name in (OURS, BY_32, ARF, BATCHED, "no-change", "refit-forest")
    }
    assert sizes == {
        OURS: True,
        BY_32: False,
        ARF: True,
        BATCHED: False,
        "no-change": True,
        "refit-forest": False,
    }


@pytest.mark.parametrize("name", [*peers.CLASSIFIERS, *(f"numbers {name}" for name in peers.REGRESSORS)])
def test_every_peer_makes_its_pass_under_every_setting(name):
    kind = "regression" if name.startswith("numbers") else "classification"
    peer = peers.peers(kind)[name.removeprefix("numbers ")]
    if peer.package not in ("numpy", "scikit-learn"):
        pytest.importorskip(peer.package)
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=80), rng.integers(3, size=80)])
    y = (x[:, 0] > 0).astype(int) if kind == "classification" else x[:, 0]
    made = Stream("made", x, y, categorical=(1,), classes=2 * (kind == "classification"))
    for setting in peer.grid:
        values = strict_pass(
            peer.make(made, 0, **setting), made, 1 if peer.package in ("river", "numpy") else 32
        )
        assert len(values["error"]) == 80 if made.classes else len(values["square"]) == 48
        assert all(np.isfinite(v).all() for v in values.values())


def test_our_frame_lacks_the_column_that_a_stream_lacks_and_a_refusal_ends_it():
    made = stream(np.arange(96) % 2, absent=(1, 32, 64))
    learner = Ours(made, 0)
    columns = []

    class Model:
        classes_ = np.arange(2)

        def partial_fit(self, frame, y, classes):
            columns.append(list(frame.columns))
            if len(columns) == 2:
                raise ValueError("the column x1 is not there")

        def predict_proba(self, frame):
            return np.tile([0.0, 1.0], (len(frame), 1))

    learner.model = Model()
    for start in (0, 32):
        learner.learn(made.x[start : start + 32], made.y[start : start + 32])
    assert columns == [["x0", "x1", "x2"], ["x0", "x2"]] and learner.ended
    assert learner.predict(made.x[:1]).tolist() == [[0.5, 0.5]]


def test_a_refusal_of_a_stream_that_lacks_nothing_is_an_error():
    class Model:
        def partial_fit(self, rows, y, classes):
            raise ValueError("these rows are refused")

    made = stream(np.arange(64) % 2)
    learner = Ours(made, 0)
    learner.model = Model()
    with pytest.raises(ValueError, match="these rows are refused"):
        learner.learn(made.x, made.y)


def test_ours_remembers_adaptively_and_all_rows():
    assert peers.ours() == {
        OURS: {"memory": "adaptive"},
        BY_32: {"memory": "adaptive"},
        ALL: {"memory": "all"},
    }


def test_ours_one_by_one_says_what_it_says_of_mini_batches_of_one():
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=(80, 2)), rng.integers(3, size=80)]
    made = Table("t", x, (x[:, 0] > 0).astype(int), (2,), 2)
    one, many = OneByOne(made, 0, memory="adaptive"), Ours(made, 0, memory="adaptive")
    for at in range(80):
        row = slice(at, at + 1)
        one.learn(made.x[row], made.y[row])
        many.learn(made.x[row], made.y[row])
    assert np.allclose(one.predict(made.x), many.predict(made.x))


# --- records


def test_a_record_is_computed_once_and_again_for_another_setting_or_length(tmp_path, monkeypatch):
    passed = []

    def counted(learner, stream, size):
        passed.append((len(stream.y), size))
        return {"error": np.zeros(len(stream.y)), "seconds": np.asarray(0.0)}

    monkeypatch.setattr(protocol, "strict_pass", counted)
    study, name = Study(tmp_path, 1, Console(quiet=True)), "turned-bundled-wine"
    for _ in range(2):
        protocol.passes(study, {"no-change": {}}, [name], "twice", 100)
    protocol.passes(study, {"no-change": {}}, [name], "all of it")
    protocol.passes(study, {"refit-forest": {"min_samples_leaf": 3}}, [name], "another")
    assert passed == [(100, 1), (178, 1), (178, 32)]


def test_the_setting_with_the_fewest_errors_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(
        protocol,
        "passes",
        lambda study, settings, *a: {n: {"s": wrong(int(50 * s["rate"]))} for n, s in settings.items()},
    )
    assert protocol.tune(Study(tmp_path, 1, Console(quiet=True)), "river-linear", ["sine-abrupt-0"]) == {
        "rate": 0.01
    }


# --- the claims


def records(ours=10, forest=20, other=8):
    names = [
        *(f"sea-abrupt-{seed}" for seed in range(3)),
        *(f"led-abrupt-{seed}" for seed in range(3)),
        "outdoor",
    ]
    counts = {OURS: ours, ARF: forest, "no-change": other, "refit-forest": 99}
    return {name: {stream: wrong(count) for stream in names} for name, count in counts.items()}, names


def test_ratios_are_of_errors_with_half_an_error_more():
    assert np.exp(figures.log_ratio(wrong(10), wrong(20))) == pytest.approx(10.5 / 20.5)
    square = {"square": np.full(4, 9.0)}
    assert np.exp(figures.log_ratio(square, {"square": np.full(4, 36.0)})) == pytest.approx(0.5)
    made, names = records()
    assert figures.ratios(made, ARF, names[:6]).shape == (3, 2)
    assert np.exp(figures.best_ratios(made, ["outdoor"], [ARF, "no-change"])) == pytest.approx(10.5 / 8.5)
    logs = np.log([[0.25, 1.0], [0.25, 1.0]])
    assert figures.geometric(logs)[0] == pytest.approx(0.5)


def test_claims_are_those_of_the_records():
    made, names = records()
    claims = {claim["id"]: claim for claim in figures.drift_claims(made, names[:6], ["outdoor"])}
    for name in ("drift", "real"):
        assert claims[f"streams.{name}.over_arf"]["value"] == pytest.approx(10.5 / 20.5, abs=1e-5)
    best = claims["streams.real.over_best"]
    assert best["value"] == pytest.approx(10.5 / 8.5, abs=1e-4) and not best["holds"]
    assert (
        claims["streams.rank"]["value"] == 2.0
        and claims["streams.rank"]["beside"]["rank of no-change"][0] == 1
    )
    made |= {ALL: made[OURS], BY_32: made[OURS], BATCHED: {stream: wrong(0) for stream in names}}
    again = {claim["id"]: claim for claim in figures.drift_claims(made, names[:6], ["outdoor"])}
    beside = again["streams.drift.over_arf"].pop("beside"), again["streams.real.over_arf"].pop("beside")
    assert again == claims, "of our own settings and of river's forest one alone takes part"
    assert beside[0]["both asked 32 rows at a time"][0] == beside[1].popitem()[1][0] == 21.0


def test_the_best_peer_is_another_one_on_each_stream():
    made = {
        OURS: {"a": wrong(4), "b": wrong(4)},
        "no-change": {"a": wrong(2), "b": wrong(50)},
        "majority": {"a": wrong(50), "b": wrong(8)},
    }
    found = np.exp(figures.best_ratios(made, ["a", "b"], ["no-change", "majority"]))
    np.testing.assert_allclose(found, [[4.5 / 2.5, 4.5 / 8.5]])


def test_accuracy_lost_is_counted_from_two_thousand_rows_after_the_change():
    moved, anew = np.zeros(9000), np.zeros(5000)
    moved[4000:6000] = 1  # forgiven
    moved[6000:6500] = 1
    moved[8000:] = 1  # beyond what is counted
    anew[2000:2100] = 1
    assert figures.accuracy_lost({"error": moved}, {"error": anew}, 4000) == pytest.approx(0.25 - 0.05)


def test_columns_that_appear_stand_beside_the_claim():
    def own(lost):
        late = np.zeros(6000)
        late[5000 : 5000 + int(1000 * lost)] = 1
        return {"error": late}

    made = {BY_32: {}}
    for kind, lost in (("words", 0.1), ("shift", 0.3), ("appears", 0.9)):
        made[BY_32] |= {
            moved_name("t", kind, 0): own(lost),
            moved_name("t", kind, 0, "after"): {"error": np.zeros(3000)},
        }
    changes = {moved_name("t", kind, 0): 3000 for kind in ("words", "shift", "appears")}
    claim = figures.moved_claim(made, {"t": ["words", "shift", "appears"]}, 1, changes)
    assert claim["value"] == pytest.approx(0.2) and claim["beside"]["appears"][0] == pytest.approx(0.9)


def test_time_and_stationary_errors_are_ratios_to_memory_of_all_rows():
    made, names = records()
    made |= {BY_32: made[OURS], ALL: {stream: wrong(5) for stream in names}}
    assert figures.time_claim(made, names)["value"] == pytest.approx(2.0)
    halved = figures.stationary({"t": [wrong(5)]}, {"t": [wrong(10)]})
    assert halved["value"] == pytest.approx(5.5 / 10.5, abs=1e-4)


def test_the_page_answers_in_three_sentences_and_names_every_claim(tmp_path):
    made, names = records()
    claims = [
        *figures.drift_claims(made, names[:6], ["outdoor"]),
        figures.time_claim(made | {BY_32: made[OURS], ALL: made[OURS]}, names),
        figures.unmeasured("stationary", "not built yet"),
        figures.unmeasured("moved_columns", "not built yet"),
    ]
    assert {claim["id"] for claim in claims} == set(PAGE.claims) == {f"streams.{name}" for name in BARS}
    chosen = {name: {} for name in made}
    result = {
        "benchmark": "streams",
        "smoke": False,
        "seeds": 1,
        "commit": "c",
        "torch": "t",
        "claims": claims,
    }
    result |= {
        "records": run_module.stream_records(
            {n: {s: v | {"commit": np.asarray("c")} for s, v in own.items()} for n, own in made.items()},
            names,
            chosen,
        ),
        "listings": [
            run_module.learners_listing(made, names[:6], ["outdoor"]),
            *run_module.stream_listings("test", made, names),
        ],
    }
    paths = write_result(tmp_path, "streams", json.loads(json.dumps(result)), PAGE)
    (question,), loaded = PAGE.questions, Result(json.loads(paths[0].read_text()))
    assert len(list(question.answer(loaded))) == 3
    text = paths[1].read_text()
    assert (
        "0.5122 times the errors of river's" in text and "| gradatim | 0.512 | 0.512 | 2.00 | 10.0 |" in text
    )
    assert loaded.records("sea-abrupt", ARF)[0]["mean"] == 0.2 and len(loaded.listing("test: errors")) == 3
    blank = write_result(
        tmp_path / "none", "streams", {**result, "smoke": True, "claims": [], "listings": []}, PAGE
    )
    assert [path.suffix for path in blank] == [".json", ".md"]


def test_a_full_study_says_what_it_lacks_and_a_smoke_run_does_without(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "missing", lambda: ["river"])
    with pytest.raises(ValueError, match=r"needs river: pip install gradatim\[studies\] lightgbm"):
        run_module.run(tmp_path, False, 1, 1, Console(quiet=True))
    assert run_module.smoke_streams() == ["turned-bundled-breast_cancer"]
    chosen = run_module.settings(Study(tmp_path, 1, Console(quiet=True)), "classification", True)
    assert set(chosen) - {ALL, BY_32} == {OURS, "no-change", "majority", "refit-logistic"}
