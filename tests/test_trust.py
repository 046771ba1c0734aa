"""The study of trust: every measure notices what is broken, and finds nothing where nothing is."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import select
import time
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save_file
from studies.tables.data import Table
from studies.trust import (
    damage,
    early,
    kills,
    landmarks,
    mutants,
    order,
    outliers,
    processes,
    regression,
    streams,
    tried,
    updates,
)
from studies.trust.figure import BARS, Figure, counted
from studies.trust.page import PAGE

from gradatim.comparison.report import Result
from gradatim.files.checkpoint import write

run_module = import_module("studies.trust.run")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def fails(folder):
    raise AssertionError("2 is not 3")


def test_cases_that_fail_hang_or_crash_are_wrong():
    cases = {
        "D1": lambda folder: None,
        "D2": fails,
        "E1": lambda folder: time.sleep(60),
        "E2": lambda folder: os._exit(9),
        "E3": lambda folder: (folder / "a").write_text("x"),
    }
    assert tried.wrong_cases(cases, seconds=1.0) == {
        "D2": "AssertionError: 2 is not 3",
        "E1": "hang",
        "E2": "crash",
    }


def test_cases_of_what_was_rough_stand_beside_those_that_were_reported():
    wrong = {"D2": "x", "R1": "y"}
    claim = tried.FIGURES["cases"].claims([{"cases": ["D1", "D2", "R1"], "wrong": wrong}])[0]
    assert (
        claim["value"] == 1
        and claim["cases"] == 2
        and claim["wrong"] == {"D2": "x"}
        and claim["rough_wrong"] == ["R1"]
    )


def test_random_inputs_are_tried_until_there_are_enough_and_failures_are_counted():
    def fuzz(seed, cases):
        return min(cases, 4), ["a crash"] if seed == 7 else []

    assert tried.fuzzed(fuzz, 7, 10) == {"tried": 10, "failures": 1, "sentences": ["a crash"]}
    with pytest.raises(ValueError, match="tried 0 of 5"):
        tried.fuzzed(lambda seed, cases: (0, []), 0, 5)


def test_items_go_on_after_a_process_that_hangs_crashes_or_asks_for_too_much():
    def work(item):
        if item == "hang":
            time.sleep(60)
        if item == "crash":
            os.kill(os.getpid(), 9)
        if item == "memory":
            return len(bytearray(10 * processes.MEMORY))
        return item

    results = processes.isolated(work, ["a", "hang", "b", "crash", "memory", "c"], seconds=1.0)
    assert results == ["a", {"outcome": "hang"}, "b", *[{"outcome": "crash"}] * 2, "c"]


@pytest.fixture
def source(tmp_path):
    tensors = {"a": torch.arange(64.0), "b": torch.ones(4, 2)}
    about = {"kind": "state", "names": ["x", "y"], "rows": 64, "map": {"mean": 1.5}}
    path = write(tmp_path / "s.safetensors", tensors, about)
    content = path.read_bytes()

    def careless(path):
        text = path.read_bytes()
        end = 8 + int.from_bytes(text[:8], "little")
        header = json.loads(json.loads(text[8:end])["__metadata__"]["gradatim"])
        return lambda: [np.frombuffer(text[end:], np.uint8), [header["rows"]]]

    def careful(path):
        if hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(content).digest():
            raise ValueError(f"{path} is damaged: take a copy")
        return careless(path)

    return damage.Source("s", path, careful), damage.Source("s", path, careless)


def test_a_reader_that_trusts_a_file_is_noticed_and_one_that_does_not_is_clear(source, tmp_path):
    careful, careless = source
    folder = tmp_path / "damaged"
    folder.mkdir()
    foreign = careful.path.read_bytes()[:-40]
    result = damage.damaged(careful, foreign, 90, 0, folder)
    assert result["accepted"] == {} and result["tracebacks"] == 0 and result["files"] == 90
    assert result["outcomes"]["refused"] > 60
    result = damage.damaged(careless, foreign, 90, 0, folder)
    assert sum(result["accepted"].values()) > 5 and result["tracebacks"] > 10
    claims = damage.FIGURES["damage"].claims([result, result])
    assert [claim["value"] for claim in claims] == [
        2 * sum(result["accepted"].values()),
        2 * result["tracebacks"],
    ]


def test_an_edit_with_a_fresh_checksum_may_answer_otherwise_but_must_be_finite(source, tmp_path):
    _, careless = source
    expected = careless.read(careless.path)()
    layout = mutants.Layout.of(careless.path.read_bytes())
    layout.header["rows"] = 65
    content = layout.content()
    ends = [
        damage.judge(careless, mutants.Mutant("k", content, stamped), expected, tmp_path)
        for stamped in (False, True)
    ]
    assert ends == ["accepted", "edited"]
    infinite = damage.Source("s", careless.path, lambda path: lambda: [np.array([np.nan])])
    assert damage.judge(infinite, mutants.Mutant("k", content, True), expected, tmp_path) == "not finite"


def test_a_checksum_is_computed_anew_and_no_damage_leaves_a_file_as_it_was():
    table = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text, data = json.dumps({"kind": "state", "rows": 3}), np.ones(2, "<f4").tobytes()
    whole = mutants.Layout(table, json.loads(text), data, mutants.checksum(text, table, data))
    assert mutants.Layout.of(whole.content()) == whole
    with pytest.raises(ValueError, match="computed in another way"):
        mutants.Layout.of(mutants.Layout(table, whole.header, data, "0" * 64).content())
    copies = list(mutants.mutants(whole.content(), whole.content()[:-3], 180, np.random.default_rng(0)))
    assert {copy.kind for copy in copies} == set(mutants.DAMAGES)
    assert sum(copy.content == whole.content() for copy in copies) < 20
    stamped = [copy for copy in copies if copy.stamped]
    assert len(stamped) > 20
    for copy in stamped:
        mutants.Layout.of(copy.content)  # refuses a checksum that is wrong


def counting(lock):
    """What adds a file's number to a state, with or without a lock around reading and writing."""

    def update(state, file):
        def call():
            with (state.parent / "lock").open("w") as handle:
                if lock:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                number = int(state.read_text())
                if not lock:  # both have read before either writes
                    (state.parent / f"read-{os.getpid()}").touch()
                    until = time.monotonic() + 60
                    while len([*state.parent.glob("read-*")]) < 2 and time.monotonic() < until:
                        time.sleep(0.01)
                state.write_text(str(number + int(file.read_text())))

        return call

    return update


def refusing(state, file):
    return lambda: 2


@pytest.mark.parametrize(
    ("update", "lost"), [(counting(False), True), (counting(True), False), (refusing, False)]
)
def test_rows_are_lost_where_updates_do_not_wait_for_one_another(update, lost, tmp_path):
    state, files = tmp_path / "s", [tmp_path / "a", tmp_path / "b"]
    state.write_text("10")
    for file in files:
        file.write_text("5")
    result = updates.lost_rows(update, state, files, (5, 5), lambda path: float(path.read_text()))
    assert (result["lost"] == 5) == lost and (result["refused"] == 2) == (update is refusing)


def test_reads_are_mixed_where_a_file_is_opened_twice(tmp_path):
    states = [tmp_path / "a", tmp_path / "b"]
    for path in states:
        path.write_text(path.name * 2)

    def once(path):
        return path.read_text()

    def twice(path):
        first = path.read_text()[0]
        time.sleep(0.001)
        return first + path.read_text()[1]

    expected = [once(path) for path in states]
    result = updates.mixed(once, states, tmp_path / "s", 300, expected)
    assert result["mixed"] == 0 and sum(result["of_state"]) == 300
    result = updates.mixed(twice, states, tmp_path / "t", 300, expected)
    assert result["mixed"] > 20 and set(result["faults"]) == {"ab", "ba"}


def writing(how):
    """What writes new bytes over a state slowly: in place, beside it, or beside it and swept by the next call."""

    def update(state, file):
        def call():
            if how == "swept":
                for path in state.parent.glob("*.tmp"):
                    path.unlink()
            target = state if how == "in place" else state.with_name(f"{os.getpid()}.tmp")
            content = state.read_bytes() + b"+" * 50
            with target.open("wb", buffering=0) as handle:
                for start in range(0, len(content), 20):
                    handle.write(content[start : start + 20])
                    time.sleep(0.03)
            if target != state:
                os.replace(target, state)

        return call

    return update


@pytest.mark.parametrize("how", ["in place", "beside", "swept"])
def test_kills_tear_what_is_written_in_place_and_leave_what_nobody_sweeps(how, tmp_path):
    result = kills.torn(writing(how), tmp_path, b"-" * 100, tmp_path / "unused", 8, 0)
    assert (result["torn"] > 0) == (how == "in place")
    assert (result["left"] > 0) == (how == "beside")
    assert result["kills"] == 8


def training(atomic, content):
    """What writes the checkpoint of a run, at once or in two halves, and goes on where it is resumed."""

    def train(folder, resume):
        def call():
            folder.mkdir(exist_ok=True)
            path = folder / "learner.safetensors"
            if atomic:
                time.sleep(0.2)
                path.with_suffix(".tmp").write_bytes(content)
                path.with_suffix(".tmp").replace(path)
            else:
                path.write_bytes(content[:50])
                time.sleep(1.0)  # long beside the start of a process, also on a busy machine
                path.write_bytes(content)

        return call

    return train


@pytest.mark.parametrize("atomic", [True, False])
def test_killed_trainings_are_torn_where_a_checkpoint_is_not_whole(atomic, tmp_path):
    content = write(tmp_path / "x", {"a": torch.ones(9)}, {"kind": "checkpoint"}).read_bytes()
    result = kills.trained_torn(training(atomic, content), tmp_path, 6, 0)
    assert (result["torn"] > 0) == (not atomic)


class Mean:
    """A model that answers the mean of y; `rounding` digits of it, and what a call makes of its rows, are options."""

    def __init__(self, calls=False):
        self.total, self.rows, self.calls = 0.0, 0.0, calls

    def partial_fit(self, x, y, sample_weight=None):
        self.total += float(np.sum(y)) if not self.calls else float(np.mean(y))
        self.rows += len(y) if not self.calls else 1
        return self

    fit = partial_fit

    def predict_proba(self, x):
        share = self.total / self.rows
        return np.full((len(x), 2), [1 - share, share])


def rounding(model):
    model.total = float(np.float16(model.total))
    return model


def failing(model):
    raise ValueError("it cannot be read")


@pytest.mark.parametrize(
    ("keep", "low", "high"), [(lambda m: m, 0, 0), (rounding, 1e-6, 0.1), (failing, 1, 1)]
)
def test_what_saving_changes_adds_up(keep, low, high):
    rng = np.random.default_rng(0)
    y = rng.normal(size=400)
    stream = streams.Stream(np.zeros((400, 1)), y, np.zeros((3, 1)))
    result = streams.change_by_cycles(Mean, keep, stream, 80, 40)
    assert low <= result["change"] <= high and (result["fault"] is None) == (keep is not failing)


@pytest.mark.parametrize("calls", [False, True])
def test_the_cut_of_rows_into_calls_is_noticed_where_it_matters(calls):
    y = np.arange(300) / 300
    stream = streams.Stream(np.zeros((300, 1)), y, np.zeros((2, 1)))
    changes = streams.change_by_cut(lambda: Mean(calls), stream, (1, 7, 0), np.random.default_rng(0))
    assert list(changes) == ["1", "7", "random"]
    assert max(changes.values()) < 1e-9 if not calls else changes["7"] > 1e-4


def test_late_rows_hold_new_words_a_new_class_and_a_column_that_begins_to_vary():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, 3, 800), rng.normal(size=(800, 2))]).astype(float)
    stream = streams.late(Table("t", x, rng.integers(0, 3, 800), categorical=(0,), classes=3))
    assert "late" not in set(stream.x["c0"][:300]) and "late" in set(stream.x["c0"])
    assert stream.x["c2"][:300].nunique() == 1 < stream.x["c2"].nunique()
    assert set(stream.y[:300]) == {0, 1} and set(stream.y) == {0, 1, 2}


def test_an_order_costs_where_only_the_last_rows_count(tmp_path):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"c0": rng.normal(size=400), "word": rng.choice(["a", "b"], 400)})
    rows["y"] = rows["c0"] + (rows["word"] == "a")

    def recent(learnt, new, classes, folder):
        return np.full(len(new), learnt["y"][-40:].mean())

    def all_rows(learnt, new, classes, folder):
        return np.full(len(new), learnt["y"].mean())

    table = order.Frame(rows, False)
    losses = order.losses(table, ("time", "target", "category"), recent, tmp_path)
    assert losses["target"] > 1.5 and losses["category"] > 1.01
    assert order.losses(table, ("target",), all_rows, tmp_path) == {"target": pytest.approx(1)}
    assert order.arranged(rows, "target")["y"].is_monotonic_increasing


def stored(path, tensors, header):
    save_file(tensors, path, metadata={"gradatim": json.dumps(header)})
    return path


def test_rows_are_recovered_wherever_they_stand_and_centroids_are_nobodys(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) * [1, 10, 100, 1000]
    z = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    path = tmp_path / "s"
    assert landmarks.recovered(stored(path, {"a": z[:20]}, {}), x) == 20
    assert landmarks.recovered(stored(path, {"a": np.ascontiguousarray(z[:20].T)}, {}), x) == 20
    assert landmarks.recovered(stored(path, {"a": x[:7].ravel()}, {}), x) == 7
    assert landmarks.recovered(stored(path, {"a": (2 * z[:7]).ravel()}, {}), x, 2 * z) == 7
    columns = {str(place): np.ascontiguousarray(z[:9, place]) for place in range(4)}
    assert landmarks.recovered(stored(path, columns, {}), x) == 9
    codes = rng.integers(0, 9, (60, 4)).astype(float)
    columns = {str(place): np.ascontiguousarray(codes[:40, place]) for place in range(4)}
    assert landmarks.recovered(stored(path, columns, {}), codes) >= 40
    chance = {str(place): rng.normal(size=200) for place in range(20)}
    assert landmarks.recovered(stored(path, chance, {}), rng.normal(size=(1200, 4))) == 0
    assert landmarks.recovered(stored(path, {}, {"deep": {"er": z[:3].tolist()}}), x) == 3
    assert landmarks.recovered(stored(path, {}, {"text": json.dumps(z[:3].tolist())}), x) == 3
    centroids = z.reshape(12, 5, 4).mean(1)
    assert landmarks.recovered(stored(path, {"a": centroids, "gram": z.T @ z}, {"mean": [0.0] * 4}), x) == 0
    doubled = np.concatenate([x, x[:5]])
    assert landmarks.alone(doubled).sum() == 55


class Line:
    """A regressor on one column: its slope by means, or by medians."""

    def __init__(self, robust=False):
        self.robust = robust

    def partial_fit(self, x, y):
        slopes = y / np.where(np.abs(x[:, 0]) < 0.1, np.inf, x[:, 0])
        slopes = slopes[slopes != 0]
        self.slope = np.median(slopes) if self.robust else (x[:, 0] @ y) / (x[:, 0] @ x[:, 0])
        return self

    fit = partial_fit

    def predict(self, x):
        return self.slope * x[:, 0] + 0.1


@pytest.mark.parametrize("robust", [True, False])
def test_an_absurd_cell_costs_what_means_trust(robust):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    table = Table("t", x, 3 * x[:, 0])
    ratios = outliers.losses(lambda: Line(robust), table, list(outliers.SPOILS), 2)
    assert all((ratio < 1.1) == robust for ratio in ratios.values())


def test_a_target_that_is_refused_is_no_answer():
    class Refusing(Line):
        def partial_fit(self, x, y):
            if np.abs(y).max() > 1e6:
                raise ValueError("too large")
            return super().partial_fit(x, y)

        fit = partial_fit

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    losses = outliers.losses(Refusing, Table("t", x, 3 * x[:, 0]), ["1e9 in the target"], 1)
    assert losses == {"1e9 in the target": pytest.approx(1e9)}


class Interval:
    """A regressor whose intervals are a constant, or the quantiles of what it has seen, or nothing from one row."""

    def __init__(self, sure):
        self.sure, self.seen = sure, []

    def partial_fit(self, x, y):
        self.seen += y.tolist()

    def predict(self, x, quantiles):
        if self.sure:
            return np.tile([np.mean(self.seen)] * 2, (len(x), 1))
        if len(self.seen) < 3:
            return np.tile([-np.inf, np.inf], (len(x), 1))
        spread = 4 * np.std(self.seen)
        return np.tile([np.mean(self.seen) - spread, np.mean(self.seen) + spread], (len(x), 1))


@pytest.mark.parametrize("unit", early.UNITS)
@pytest.mark.parametrize("sure", [True, False])
def test_intervals_that_are_too_sure_are_noticed_in_every_unit(sure, unit):
    rng = np.random.default_rng(0)
    table = Table("t", rng.normal(size=(200, 2)), rng.normal(size=200))
    shares, one_row = early.coverage(lambda: Interval(sure), table, 0, unit, (3, 5, 20))
    assert one_row == float(sure) and len(shares) == 3
    assert max(shares) < 0.1 if sure else min(shares) > 0.7


def test_the_unit_in_which_intervals_cover_least_is_claimed():
    result = {
        "table": "t",
        "counts": [3, 4],
        "shares": {"1": [0.9, 0.9], "1e+06": [0.5, 0.7]},
        "one_row": 0.25,
    }
    coverage, one_row = early.FIGURES["early"].claims([result])
    assert coverage["value"] == 0.6 and not coverage["holds"] and coverage["rows"] == {"3": 0.5, "4": 0.7}
    assert one_row["value"] == 0.25 and not one_row["holds"]


def test_errors_over_the_ridge_are_compared_with_those_of_before():
    def tables(error, square):
        return {
            "a": {
                "gradatim": {"error": error, "final_error": 0.1},
                "plain-ridge": {"error": 0.2, "final_error": 0.1},
            },
            "b": {
                "gradatim": {"square": square, "final_square": 1.0},
                "plain-ridge": {"square": 4.0, "final_square": 1.0},
            },
        }

    assert regression.claims(tables(0.1, 1.0), tables(0.1, 1.0))[0]["value"] == 1
    worse = regression.claims(tables(0.1, 1.0), tables(0.1, 1.21))[0]
    assert worse["tables"] == {"a": 1.0, "b": 1.1} and not worse["holds"] and worse["heldout"] == 1.0


def test_what_was_before_is_recorded_for_every_table_and_every_bar():
    before = regression.before()
    assert len(before["validation"]) == 31 and before["commit"]
    assert set(before["figures"]) <= {f"trust.{name}" for name in BARS}


def test_parts_are_measured_once_and_a_part_that_fails_has_no_value(tmp_path, monkeypatch):
    calls = tmp_path / "calls"

    def measure(folder, number):
        with calls.open("a") as handle:
            handle.write(f"{number} ")
        if number == 2 and calls.read_text().count("2") == 1:
            raise RuntimeError("no luck")
        return {"number": number}

    def claims(results):
        return [counted("torn", sum(result["number"] for result in results))]

    figure = Figure(lambda smoke: [{"number": 1}, {"number": 2}], measure, claims, ("torn",))
    monkeypatch.setattr(run_module, "FIGURES", {"toy": figure})
    for place in (0, 1):
        run_module.work_on(tmp_path, True, "toy", place)
    claim = run_module.claims_of("toy", tmp_path, True)[0]
    assert claim["value"] is None and not claim["holds"] and claim["failed"] == "RuntimeError: no luck"
    missing = [place for place in (0, 1) if not run_module.stored(tmp_path, "toy", place).exists()]
    assert missing == [1]
    run_module.work_on(tmp_path, True, "toy", 1)
    assert run_module.claims_of("toy", tmp_path, True)[0]["value"] == 3


def test_a_part_whose_process_dies_fails_and_the_others_are_measured(tmp_path, monkeypatch):
    def measure(folder, number):
        if number == 1:
            os._exit(1)
        return {"number": number}

    figure = Figure(lambda smoke: [{"number": n} for n in range(4)], measure, lambda results: [], ("torn",))
    monkeypatch.setattr(run_module, "FIGURES", {"toy": figure})
    # a forked process knows this test's figure
    monkeypatch.setattr(run_module, "get_context", lambda _: multiprocessing.get_context("fork"))
    run_module.measure(tmp_path, True, 2, Console(quiet=True), {"toy": figure})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"toy-000.json", "toy-001.failed", "toy-002.json", "toy-003.json"}
    assert run_module.claims_of("toy", tmp_path, True)[0]["failed"] == "the process died"


def test_a_part_that_hangs_is_ended_with_all_its_processes(tmp_path, monkeypatch, capfd):
    read, held = os.pipe()

    def measure(folder, number):
        if number == 1:
            processes.start(lambda: time.sleep(600))
            time.sleep(600)
        return {"number": number}

    figure = Figure(lambda smoke: [{"number": n} for n in range(3)], measure, lambda results: [], ("torn",))
    monkeypatch.setattr(run_module, "FIGURES", {"toy": figure})
    monkeypatch.setattr(run_module, "LONGEST_SMOKE", 5.0)
    monkeypatch.setattr(run_module, "get_context", lambda _: multiprocessing.get_context("fork"))
    run_module.measure(tmp_path, True, 2, Console(quiet=True), {"toy": figure})
    assert run_module.claims_of("toy", tmp_path, True)[0]["failed"] == "no end after 5 s"
    assert (tmp_path / "toy-002.json").exists()
    assert "in measure" in capfd.readouterr().err  # it says where
    os.close(held)
    assert select.select([read], [], [], 10)[0] and not os.read(
        read, 1
    )  # nobody holds the other end any more
    os.close(read)


def test_every_bar_has_a_figure_and_words_on_the_page():
    names = [name for figure in run_module.FIGURES.values() for name in figure.names]
    assert [*names, "regression"] == list(BARS)
    assert set(PAGE.claims) == {f"trust.{name}" for name in BARS}
    for question in PAGE.questions:
        text = " ".join(question.answer(Result({"claims": [counted("torn", float("nan"))]})))
        assert "nan" not in text


def test_all_figures_have_parts_in_a_smoke_run_without_data(monkeypatch):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    for figure in run_module.FIGURES.values():
        assert figure.parts(True)
