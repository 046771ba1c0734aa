"""The figures of `make study NAME=tables` that have records of their own: first rows, states, heads, speeds, Ray."""

from dataclasses import replace
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console
from studies.tables import checks, distributed, long
from studies.tables import data as tables_data
from studies.tables.data import Table, load
from studies.tables.early import base_rates, early_claim, early_losses
from studies.tables.peers import RefinedEstimator
from studies.tables.scores import errors
from studies.tables.states import SHARDS, forget_claim, forgotten, merge_claim, merged

from gradatim.comparison.runs import Study


def quiet(folder):
    return Study(folder, 1, Console(quiet=True))


def table(classes=2, rows=700, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(rows, 2)), rng.integers(3, size=rows)])
    y = x[:, 0] + x[:, 1] * (x[:, 2] - 1) + 0.2 * rng.normal(size=rows)
    return Table("made", x, (y > 0).astype(int) if classes else y, (2,), classes)


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
    for name in ("merged_log_loss", "sums_log_loss"):
        assert float(found[name]) == pytest.approx(float(found["one_log_loss"]), rel=0.3)


def test_merging_is_a_ratio_of_log_losses():
    def record(one, joined):
        about = {"one_log_loss": one, "merged_log_loss": joined, "one_error": 0.1, "merged_error": 0.2}
        about["sums_log_loss"] = 3 * one
        return {key: np.asarray(value) for key, value in about.items()}

    claim = merge_claim([[record(0.2, 0.1), record(0.2, 0.3)], [record(0.1, 0.4)] * 2])
    assert claim["value"] == pytest.approx(2.0) and claim["beside"]["share of wrong rows more"][0] == 0.1
    assert claim["beside"]["weighed by merged sums, without rows"] == pytest.approx([3.0] * 3)
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
    experts = part.refiner
    strengths = [strength for view in experts.strengths for strength in view]
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
        spared = experts.seen(expert).numpy() != experts.blocks[0] - 1  # the feature that is 1
        ridge = strengths[expert] * spared + 3e-6 * np.diag(known.T @ known)
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


def test_a_measure_is_recorded_anew_where_its_text_has_changed(tmp_path, monkeypatch):
    protocol = import_module("studies.tables.protocol")
    calls = []
    monkeypatch.setitem(protocol.MEASURES, "mine", lambda *a: calls.append(a) or {"ours": np.ones(1)})
    for text in ("first", "first", "second"):
        monkeypatch.setattr(protocol, "text_of", lambda measure, text=text: text)
        protocol.record(quiet(tmp_path), protocol.job("mine", "bundled-wine", 0))
    assert len(calls) == 2
