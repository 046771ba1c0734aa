"""The figures of `make study NAME=tables`, on records made by hand: refits, first rows, states, speeds, Ray."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console
from studies.tables import checks, distributed, figures, listings, long, protocol, verdicts
from studies.tables import data as tables_data
from studies.tables import peers as tables_peers
from studies.tables.data import Table, load
from studies.tables.early import base_rates, early_claim, early_losses
from studies.tables.page import PAGE
from studies.tables.peers import ADAPTIVE, ASIDE, OURS, RIDGE, RefinedEstimator, peers
from studies.tables.refits import LIGHTGBM, REFITS
from studies.tables.scores import SIZE, errors, macro_recall
from studies.tables.states import SHARDS, forget_claim, forgotten, merge_claim, merged
from studies.tables.verdicts import BARS

import gradatim
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


# --- the first rows


def test_base_rates_count_half_a_row_of_each_class():
    assert base_rates(np.array([0, 0, 1]), 3) == pytest.approx(np.array([2.5, 1.5, 0.5]) / 4.5)


def test_first_rows_are_predicted_after_so_many_known_ones():
    made = replace(table(), heldout=0.0)
    found = early_losses(made, 0)
    assert np.bincount(found["known"])[[1, 2, 4, 8, 16]].tolist() == [1, 2, 4, 8, 16]
    _, y, *_ = made.split(0)
    rates = base_rates(y[:8], 2)
    assert found["plain"][found["known"] == 8] == pytest.approx(-np.log(rates[y[8:16]]))
    numbers = replace(table(0), heldout=0.0)
    _, y, *_ = numbers.split(0)
    plain = (y[4:8] - y[:4].mean()) ** 2
    found = early_losses(numbers, 0)
    assert found["plain"][found["known"] == 4] == pytest.approx(plain) and np.isfinite(found["ours"]).all()
    assert float(found["scale"]) == numbers.y.var() and float(early_losses(made, 0)["scale"]) == 1
    few = replace(numbers, x=numbers.x[:22], y=numbers.y[:22])
    assert len(early_losses(few, 0)["ours"]) == 21


def early(ours, plain, scale=1.0):
    about = {"ours": [ours, 0.1], "plain": [plain, 0.1], "known": [1, 2], "scale": scale}
    return [{key: np.asarray(value) for key, value in about.items()}]


def test_the_worst_collection_is_the_claim_and_tables_of_one_unit_are_summed_in_it():
    collections = {"own": [early(8.9, 4.9, 2.0), early(0.9, 1.9)], "school": [early(0.9, 1.9, 4.0)] * 2}
    claim = early_claim(collections, ("school",))
    assert (claim["value"], claim["worst"]) == (pytest.approx(5.5 / 4.5, rel=1e-4), "own")
    assert claim["beside"]["school"][0] == 0.5 and claim["beside"]["own, 2 rows known"][0] == 1
    claim = early_claim(collections, ("own", "school"))
    assert claim["value"] == pytest.approx(10 / 7, rel=1e-4)
    assert early_claim({}, ())["value"] is None


def test_small_tables_of_a_collection_are_loaded_each_alone(tmp_path, monkeypatch):
    (tmp_path / "multitask").mkdir()
    x, y, task = np.arange(12.0).reshape(6, 2), np.array([0, 0, 1, 0, 0, 0]), np.array([0, 0, 2, 2, 2, 0])
    np.savez(tmp_path / "multitask" / "landmine.npz", X=x, y=y, task=task)
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    tables_data._collection.cache_clear()
    assert tables_data.tasks("landmine") == ["landmine-task-0", "landmine-task-2"]
    found = load("landmine-task-2")
    assert found.x.tolist() == x[2:5].tolist() and found.y.tolist() == [1, 0, 0]
    assert (found.classes, found.kind, len(found.split(0)[0])) == (2, "classification", 3)
    with pytest.raises(ValueError, match=r"school.npz is not there"):
        tables_data.tasks("school")
    tables_data._collection.cache_clear()
    load.cache_clear()


# --- states, and long streams


def test_shards_are_merged_to_all_rows_and_cost_little():
    found = merged(table(), 0)
    assert SHARDS == 32 and 0 < float(found["one_log_loss"]) < 0.4
    assert float(found["merged_log_loss"]) == pytest.approx(float(found["one_log_loss"]), rel=0.3)


def test_merging_is_a_ratio_of_log_losses():
    def record(one, joined):
        about = {"one_log_loss": one, "merged_log_loss": joined, "one_error": 0.1, "merged_error": 0.2}
        return {key: np.asarray(value) for key, value in about.items()}

    claim = merge_claim([[record(0.2, 0.1), record(0.2, 0.3)], [record(0.1, 0.4)] * 2])
    assert claim["value"] == pytest.approx(2.0) and claim["beside"]["share of wrong rows more"][0] == 0.1
    assert merge_claim([])["range"] == "no table has so many rows"


def test_rows_forgotten_are_compared_with_rows_never_learnt():
    found = forgotten(table(rows=500), 0)
    assert set(found) == {"difference", "solved", "reweighed"}
    assert float(found["reweighed"]) < 1e-9  # sums are exact, and so is what is made of them alone
    one, two = ({key: np.asarray(v) for key in found} for v in (1e-8, 3e-8))
    claim = forget_claim({"a": [one, two], "b": [one]})
    assert (claim["value"], claim["low"], claim["worst"], claim["holds"]) == (3e-8, 1e-8, "a", True)
    assert claim["beside"]["heads of both solved anew"][0] == 3e-8


def test_a_single_head_is_the_ridge_on_all_rows():
    made = table(rows=600)
    learner = RefinedEstimator(made, 0)
    learner.learn(made.x[:500], made.y[:500])
    found = long.head_errors(learner.model, learner.frame(made.x[500:]), made.y[500:])
    [[part, _], *_] = learner.model.task_.members.settle()
    experts, strengths = part.refiner, import_module("gradatim.refiners.experts").STRENGTHS
    assert found.shape == (experts.count, 100)
    codes = np.eye(2)[made.y[:500]]
    rows = [
        import_module("torch").from_numpy(
            learner.model.task_.encode(learner.model._columns(learner.frame(x), reset=False))
        )[None]
        for x in (made.x[:500], made.x[500:])
    ]
    for expert in (0, experts.count - 1):
        known, asked = (experts.features(x)[0, :, experts.seen(expert)].double().numpy() for x in rows)
        ridge = strengths[expert % len(strengths)] + 3e-6 * np.diag(known.T @ known)
        theta = np.linalg.solve(known.T @ known + np.diag(ridge), known.T @ codes)
        assert errors(asked @ theta, made.y[500:]).tolist() == found[expert].tolist()


def test_the_worse_stream_is_the_claim():
    heads = np.zeros((2, 100))
    heads[0, :30], heads[1, :19] = 1, 1
    streams = {name: {"error": (np.arange(100) < count).astype(float), "heads": heads} for name, count in
               (("stream-mnist", 20), ("stream-fashion", 38))}  # fmt: skip
    claim = long.long_claim(streams)
    assert claim["value"] == pytest.approx(38.5 / 19.5, rel=1e-4) and claim["worse"] == "stream-fashion"
    assert claim["errors"]["stream-mnist"] == {"error": 0.2, "best head": 0.19}
    assert long.long_claim({})["value"] is None
    made = long.over_heads(load("bundled-breast_cancer"), 0)
    assert len(made["error"]) == made["heads"].shape[1] == 569 - 5 * 569 // 6


# --- speeds, and Ray


def test_speeds_are_ratios_of_seconds(tmp_path, monkeypatch):
    pytest.importorskip("river")
    seconds = {"predict": (1.0, 2.0), "learn": (1.0, 30.0), "update": (2.0, 20.0), "row": (3.0, 4.0)}
    made = {
        f"{key}_{who}": np.full(3, value)
        for key, both in seconds.items()
        for who, value in zip(("ours", "other"), both, strict=True)
    }
    monkeypatch.setattr(checks, "_speeds", lambda *sizes: made)
    claims = {claim["id"]: claim for claim in checks.speeds(quiet(tmp_path), False)}
    assert claims["tables.predict_speed"]["value"] == 2
    assert claims["tables.update_speed"]["value"] == 10
    assert claims["tables.update_speed"]["beside"]["learning alone, without a prediction"][0] == 30
    assert claims["tables.update_speed"]["rows_per_second"] == {"ours": 2048, "other": 205}
    assert claims["tables.row_by_row"]["value"] == 0.75
    assert claims["tables.row_by_row"]["microseconds"] == {"ours": 1500, "other": 2000}


def test_without_river_speeds_are_unmeasured(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    monkeypatch.setattr(
        checks, "_speeds", lambda *sizes: {f"predict_{w}": np.ones(1) for w in ("ours", "other")}
    )
    values = {claim["id"]: claim["value"] for claim in checks.speeds(quiet(tmp_path), True)}
    assert values == {"tables.predict_speed": 1, "tables.update_speed": None, "tables.row_by_row": None}


def test_each_row_is_predicted_before_it_is_learnt():
    class Model:
        def __init__(self):
            self.log = []

        def predict_proba_one(self, row):
            self.log.append(("predict", row))

        def learn_one(self, row, answer):
            self.log.append(("learn", row, answer))

    model = Model()
    checks.one_by_one(model, ["a", "b"], [0, 1, 1])
    assert model.log == [("predict", "a"), ("learn", "a", 0), ("predict", "b"), ("learn", "b", 1)]


def test_ray_is_measured_where_it_is_there(tmp_path, monkeypatch):
    file = tmp_path / "ray_measure.py"
    file.write_text("")
    module = ModuleType("studies.tables.ray")
    module.__file__, calls = str(file), []

    def measure(folder):
        calls.append(folder)
        assert folder.is_dir() and not any(folder.iterdir())
        return {"tables.ray": 0, "tables.ray_difference": 1e-12, "tables.ray_killed": 5}

    module.measure = measure  # type: ignore[attr-defined]
    study = quiet(tmp_path)
    monkeypatch.setattr(distributed, "import_module", lambda name: module)
    monkeypatch.setattr(distributed, "version", lambda name: "1")
    monkeypatch.setattr(distributed, "fingerprint", lambda *more: "f")
    monkeypatch.setattr(distributed, "find_spec", lambda name: None)
    assert {c["range"] for c in distributed.ray_claims(study, False)} == {"not built yet"}
    monkeypatch.setattr(distributed, "find_spec", lambda name: name if "studies" in name else None)
    assert {c["range"] for c in distributed.ray_claims(study, False)} == {"ray is not installed"}
    monkeypatch.setattr(distributed, "find_spec", lambda name: name)
    assert {c["range"] for c in distributed.ray_claims(study, True)} == {"a smoke run starts no cluster"}
    for _ in range(2):  # the second time from the record
        lost, difference = distributed.ray_claims(study, False)
        assert lost["holds"] and difference["holds"] and difference["value"] == 1e-12
        assert lost["measured"]["killed"] == 5
    assert len(calls) == 1


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
