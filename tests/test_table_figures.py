"""The figures of `make study NAME=tables`, on records made by hand: refits, held-out rows, runs, the page."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from studies.tables import figures, listings, protocol, verdicts
from studies.tables import peers as tables_peers
from studies.tables.data import Table
from studies.tables.page import PAGE
from studies.tables.peers import ADAPTIVE, ASIDE, OURS, RIDGE, RefinedEstimator, peers
from studies.tables.refits import LIGHTGBM, REFITS
from studies.tables.scores import SIZE, macro_recall
from studies.tables.states import forgotten, merged
from studies.tables.verdicts import BARS

import gradatim
from gradatim.comparison.report import Result, write_result
from gradatim.comparison.runs import Study

run_module = import_module("studies.tables.run")


def quiet(folder):
    return Study(folder, 1, Console(quiet=True))


def wrong(*counts, rows=400):
    """The records of the orders of a table with so many errors before row 200 and beyond it."""
    return [
        {"error": np.concatenate([np.arange(200) < early, np.arange(rows - 200) < late]).astype(float)}
        for early, late in counts
    ]


def squares(early, late, rows=400):
    """The record of a table with numbers: squared errors from row 32 on, before row 200 and beyond it."""
    return [{"square": np.r_[np.full(200 - SIZE, float(early)), np.full(rows - 200, float(late))]}]


def table(classes=2, rows=700, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(rows, 2)), rng.integers(3, size=rows)])
    y = x[:, 0] + x[:, 1] * (x[:, 2] - 1) + 0.2 * rng.normal(size=rows)
    return Table("made", x, (y > 0).astype(int) if classes else y, (2,), classes)


# --- claims against their bars


def test_every_claim_has_a_bar_and_words_and_may_be_unmeasured():
    assert {f"tables.{name}" for name in BARS} == set(PAGE.claims)
    verdict = verdicts.unmeasured("merge32", "no table has so many rows")
    assert (verdict["value"], verdict["holds"], verdict["bar"]) == (None, False, 1.02)
    assert verdicts.constant("state_bytes", 4_000_000)["holds"]
    assert not verdicts.constant("state_bytes", 4_000_001)["holds"]
    assert (
        verdicts.constant("update_speed", 5)["holds"] and not verdicts.constant("update_speed", 4.9)["holds"]
    )


# --- refits


def refitted():
    classes = {
        OURS: [wrong((10, 4), (12, 6)), wrong((1, 9), (1, 9))],
        LIGHTGBM: [wrong((20, 9), (24, 11)), wrong((3, 0), (3, 0))],
        "refit-forest": [wrong((11, 5), (11, 5)), wrong((1, 9), (1, 9))],
    }
    numbers = {OURS: [squares(1, 4)], LIGHTGBM: [squares(4, 16)], "refit-ridge": [squares(4, 16)]}
    return classes, numbers


def test_refits_are_compared_beyond_a_row_and_up_to_it():
    late, rmse, early = figures.refit_claims(*refitted(), large=([0, 1], [0]), row=200)
    assert late["value"] == pytest.approx(
        np.sqrt(5.5 / 10.5 * 9.5 / 0.5), rel=1e-4
    )  # no error is no infinity
    assert rmse["value"] == pytest.approx(0.5)
    assert early["value"] == pytest.approx(np.sqrt(11.5 / 22.5 * 1.5 / 3.5), rel=1e-4)
    assert early["beside"]["RMSE of numbers"][0] == pytest.approx(0.5)
    assert early["beside"]["refit-forest over LightGBM"][0] == pytest.approx(
        np.sqrt(11.5 / 22.5 * 1.5 / 3.5), rel=1e-4
    )
    assert [claim["tables"] for claim in (late, rmse, early)] == [2, 1, 2]


def test_only_large_tables_take_part_beyond_the_row():
    late, rmse, early = figures.refit_claims(*refitted(), large=([0], []), row=200)
    assert late["value"] == pytest.approx(5.5 / 10.5, rel=1e-4) and late["tables"] == 1
    assert (rmse["value"], rmse["range"]) == (None, "no table has so many rows")
    assert early["tables"] == 2
    tables = ["bundled-wine", "bundled-breast_cancer"]
    assert run_module.large_ones(tables, 500) == [1] and run_module.large_ones(tables, 100) == [0, 1]


def test_without_lightgbm_nothing_is_measured():
    classes, numbers = refitted()
    classes.pop(LIGHTGBM)
    claims = figures.refit_claims(classes, numbers, ([0], [0]), 200)
    assert {claim["range"] for claim in claims} == {"LightGBM is not installed"}


def test_rmse_counts_rows_of_the_stream():
    """Records begin with row 32: row 200 is their entry 168."""
    passes = {OURS: [squares(1, 9)]}
    assert np.exp(figures.log_rmse(passes, OURS, slice(200, None))) == pytest.approx([3])
    assert np.exp(figures.log_rmse(passes, OURS, slice(200))) == pytest.approx([1])
    assert figures.log_rmse(passes, OURS) == pytest.approx(np.log([(168 + 9 * 200) / 368]) / 2)


def scored(count, rows=100):
    """The record of a pass with so many errors."""
    error = (np.arange(rows) < count).astype(float)
    final = {"final_error": 0.1, "final_recall": 0.9, "heldout": 40}
    kept = {"error": error, "log_loss": error + 0.1, "confidence": np.full(rows, 0.9)}
    return [kept | {key: np.asarray(value) for key, value in final.items()} | {"seconds": np.asarray(1.0)}]


def batch(valid, error, recall):
    about = {"cross_validated": valid, "final_error": error, "final_recall": recall}
    return [{key: np.asarray(value) for key, value in about.items()}]


def test_refits_and_our_other_setting_take_no_part_in_ranks():
    own = {OURS: [scored(20)], RIDGE: [scored(30)], "sgd": [scored(10)]}
    references = {"batch-forest": [batch(0.9, 0.1, 0.9)]}
    claims = {c["id"]: c for c in figures.classification_claims(own, references)}
    more = own | {name: [scored(0)] for name in ASIDE}
    again = {c["id"]: c for c in figures.classification_claims(more, references)}
    for name in ("rank", "wins"):
        assert again[f"tables.prequential.{name}"] == claims[f"tables.prequential.{name}"]
    assert claims["tables.prequential.rank"]["value"] == 2
    assert claims["tables.prequential.over_ridge"]["value"] == pytest.approx(20.5 / 30.5, rel=1e-4)
    beside = again["tables.prequential.over_ridge"]["beside"]
    assert beside["refit-lightgbm over the plain ridge"][0] == pytest.approx(0.5 / 30.5, rel=1e-3)
    assert {ADAPTIVE, LIGHTGBM, "refit-forest", "refit-logistic", "refit-ridge"} == set(ASIDE)


def test_learners_without_a_rank_are_listed_without_one():
    own = {name: [scored(count)] for name, count in ((OURS, 20), (RIDGE, 30), (LIGHTGBM, 1), (ADAPTIVE, 2))}
    rows = listings.classes_listings("test", ["bundled-wine"], own, {})[0]["rows"]
    assert {row[0]: row[5] for row in rows} == {OURS: "1.00", RIDGE: "2.00", LIGHTGBM: "", ADAPTIVE: ""}
    wins = listings.classes_listings("test", ["bundled-wine"], own, {})[1]["rows"]
    assert wins[0][-1] == "yes"


def test_all_refits_are_peers_of_both_studies():
    streams = import_module("studies.streams.peers")
    for kind, refits in REFITS.items():
        for name, peer in refits.items():
            assert peers(kind)[name] is streams.peers(kind)[name] is peer
    assert peers("classification")[ADAPTIVE].grid == ({"memory": "adaptive"},)


# --- held-out rows


def test_errors_after_the_pass_are_those_of_the_batch_model_that_is_chosen():
    ours = {OURS: [scored(20), scored(20)]}
    references = {
        "a": [batch(0.9, 0.05, 0.8), batch(0.7, 0.0, 1.0)],
        "b": [batch(0.8, 0.0, 1.0), batch(0.8, 0.2, 0.6)],
    }
    accuracy, over, recall = figures.final_claims(ours, references)
    assert accuracy["value"] == pytest.approx(1.8 / (0.95 + 0.8), rel=1e-4)
    assert over["value"] == pytest.approx(np.sqrt(4.5 / 2.5 * 4.5 / 8.5), rel=1e-4)  # of 40 rows
    assert recall["value"] == pytest.approx(1.8 / 1.4, rel=1e-4)
    assert over["beside"]["over the reference that is best on the held-out rows"][0] == pytest.approx(
        np.sqrt(4.5 / 0.5 * 4.5 / 0.5), rel=1e-4
    )


def test_macro_recall_is_that_of_scikit_learn():
    from sklearn.metrics import recall_score

    rng = np.random.default_rng(0)
    y, said = rng.integers(4, size=60), rng.integers(4, size=60)
    assert macro_recall((y != said).astype(float), y) == pytest.approx(recall_score(y, said, average="macro"))
    made = protocol.prequential_pass(RefinedEstimator(table(), 0), table(), 0)
    x, y, held_x, held_y = table().split(0)
    learner = RefinedEstimator(table(), 0)
    for start in range(0, len(x), SIZE):
        learner.learn(x[start : start + SIZE], y[start : start + SIZE])
    wanted = recall_score(held_y, learner.predict(held_x).argmax(1), average="macro")
    assert float(made["final_recall"]) == pytest.approx(wanted) and int(made["heldout"]) == len(held_y)


def test_coverage_is_judged_in_fifths_of_the_prediction():
    """Intervals that hold 80% of all rows, but all of the lower and 30% of the highest ones, are off."""
    inside = np.ones((500, 2), dtype=bool)
    inside[400:, 0] = np.arange(100) < 30
    rows = np.random.default_rng(0).permutation(500)
    made = {"predicted": np.arange(500.0)[rows], "inside": inside[rows]}
    parts = [{key: values[half] for key, values in made.items()} for half in (slice(300), slice(300, None))]
    assert figures.missed_by_fifths({OURS: [parts]}, OURS) == pytest.approx([(4 * 0.2 + 0.5) / 5])
    kept = protocol.prequential_pass(RefinedEstimator(table(0), 0), table(0), 0)
    assert len(kept["predicted"]) == len(kept["inside"]) == len(kept["square"])
    assert kept["square"] == pytest.approx((kept["predicted"] - table(0).split(0)[1][SIZE:]) ** 2)


# --- what a run takes, and what its records depend on


def test_a_full_study_says_what_it_lacks_and_a_smoke_run_does_without(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "missing", lambda: ["lightgbm"])
    with pytest.raises(ValueError, match=r"needs lightgbm: pip install gradatim\[studies\]"):
        run_module.settings(quiet(tmp_path), "regression", False)
    chosen = run_module.settings(quiet(tmp_path), "regression", True)
    assert set(chosen) == {OURS, RIDGE, "sgd", ADAPTIVE, "refit-ridge"}


SAYS_NOTHING = ("files/", "training/", "names.py", "recipes.py", "registry.py", "provenance.py")
"""Of answers: how states are written, and what learners and files are called."""


def traced(work):
    """Return the files of gradatim in which functions ran."""
    home, found = Path(gradatim.__file__).parent, set()

    def note(frame, event, argument):
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(home)):
            found.add(Path(name).relative_to(home).as_posix())

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


def everything():
    """Let our estimators do all that records are made of."""
    for classes in (2, 0):
        made = table(classes, rows=320)
        for memory in ("all", "adaptive"):
            learner = RefinedEstimator(made, 0, memory=memory)
            for start in range(0, 320, 64):
                rows = slice(start, start + 64)
                if start:
                    learner.predict(made.x[rows])
                learner.learn(made.x[rows], made.y[rows])
            named = dict(zip(["x0", "x1", "x2"], [*map(float, made.x[0, :2]), "level 1"], strict=True))
            learner.model.learn_one(named, made.y[0])
            learner.model.predict_one(named)
    forgotten(table(rows=320), 0)
    merged(table(rows=460), 0)


def test_the_fingerprint_covers_every_file_that_answers_come_from():
    """What a new file decides would otherwise stand in records for ever: add it to SOURCES."""
    sources = tables_peers.SOURCES
    found = {file for file in traced(everything) if not file.startswith(SAYS_NOTHING)}
    assert "refiners/experts.py" in found and "memory/bank.py" in found and "forgetting.py" in found
    assert sorted(f for f in found if not any(f == s or f.startswith(f"{s}/") for s in sources)) == []


def test_a_measure_is_recorded_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(protocol.MEASURES, protocol.EARLY, lambda *a: calls.append(a) or {"ours": np.ones(1)})
    for _ in range(2):
        found = run_module.passes(quiet(tmp_path), {protocol.EARLY: {}}, ["bundled-wine"], 1, "first rows")
        assert found[protocol.EARLY][0][0]["ours"].tolist() == [1]
    assert len(calls) == 1


# --- the page


LAST = {"stream-mnist": 1875, "stream-fashion": 1875, "drift-labels": 625, "drift-rotation": 625}


def whole_result():
    """A result in which everything was measured."""
    titles = {
        "final.over_batch": ["over the reference that is best on the held-out rows"],
        "forget": ["heads of both solved anew", "and experts of both weighed anew by the rows that remain"],
        "merge32": ["weighed by merged sums, without rows"],
        "ece_excess": ["of plain-ridge"],
    }
    claims = [
        verdicts.measured(name, (0.5, 0.4, 0.6), dict.fromkeys(titles.get(name, []), (0.25, 0.2, 0.3)))
        for name in BARS
    ]
    learners = peers("classification")
    head = ["learner", "a", "b", "c", "d", "rank", "seconds"]
    means = [
        [name, *["0.5"] * 6] for name in (*learners, "batch, chosen", "batch, best on the held-out rows")
    ]
    table = {
        "title": "test: prequential error (%)",
        "columns": ["table", *learners],
        "rows": [["t", *["9"] * 11]],
    }
    numbers = {
        "title": "test: prequential RMSE",
        "columns": ["table", *peers("regression")],
        "rows": [["t"], ["m"]],
    }
    records = [
        {
            "name": name,
            "method": name,
            "family": stream,
            "seed": None,
            "metric": "error so far",
            "steps": steps,
        }
        | {"rows": 32 * steps, "mean": 0.5, "low": 0.4, "high": 0.6}
        for name in learners
        if name not in run_module.SLOW
        for stream, last in (
            ("stream-mnist", 1875),
            ("stream-fashion", 1875),
            ("drift-labels", 625),
            ("drift-rotation", 625),
        )
        for steps in (10, last)
    ]
    about = {
        "benchmark": "tables",
        "smoke": False,
        "seeds": 1,
        "commit": "c",
        "torch": "t",
        "records": records,
    }
    listed = [{"title": "test: 1 tables", "columns": head, "rows": means}, table, numbers]
    return about | {"claims": claims, "listings": listed}


def test_the_page_says_all_that_was_measured(tmp_path):
    written = write_result(tmp_path, "tables", whole_result(), PAGE)
    assert [path.suffix for path in written] == [".json", ".md", ".png", ".png"]
    text = written[1].read_text()
    assert "nan" not in text and "not run" not in text and "unmeasured" not in text
    assert "Up to row 1,000 the estimator makes 0.5 times its errors" in text
    assert "among 7 one-pass learners" in text and "LightGBM, refitted at doublings | 0.5" in text
    result = Result(whole_result())
    for question in PAGE.questions:
        assert len(list(question.answer(result))) == 3
        rows = question.table(result)[1] if question.table else [[]]
        assert 0 < len(rows) <= 12


def test_the_page_says_what_was_not_measured(tmp_path):
    made = whole_result()
    made["claims"] = [verdicts.unmeasured(name, "not built yet") for name in BARS]
    text = write_result(tmp_path, "tables", made, PAGE)[1].read_text()
    assert text.count("not measured: not built yet") == len(BARS)
    assert "Up to row 1,000 the estimator makes an unmeasured number of times its errors" in text
