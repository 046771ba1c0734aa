"""The paper's study: its list is the one that docs/paper-details.md fixed, and an empty cell is counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from studies import run
from studies.__main__ import show_claims
from studies.paper import run as paper
from studies.paper.causal_peers import peers, shape_orders
from studies.paper.claims import families_improved, missing, references
from studies.paper.continual import in_turn, rehearsed
from studies.paper.costs import paced
from studies.paper.findings import Compared, _gains, _kernels, _shapes, _turns, crossings, verdict
from studies.paper.recipes import recipes
from studies.paper.run import _part, _rows
from studies.paper.settings import origin, settings
from studies.paper.tables import (
    TABLES,
    Cell,
    alternatives,
    cells,
    columns,
    filled,
    learner,
    listed,
    listings,
    unlearnt,
)

from gradatim import Batch, Task
from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study
from gradatim.families import LinearClassification, StructuralCausalModel
from gradatim.methods import build
from gradatim.metrics import bootstrap, error_rate, mean_interval, reversed_by, reversed_edges
from gradatim.refiners import CONSTANT, DECAYING

DOCS = Path(__file__).parents[1] / "docs" / "paper-details.md"
QUIET = Console(quiet=True)


def test_the_list_is_the_one_that_was_fixed():
    fixed = DOCS.read_text(encoding="utf-8")
    assert listed() in fixed, "docs/paper-details.md holds the list: it changes before a run, never after"
    assert len(set(cells())) == len(cells()) == sum(len(cells([number])) for number in TABLES)


def test_every_panel_is_read_after_the_same_steps_in_every_table():
    for number, table in TABLES.items():
        for panel, rows in table.rows.items():
            assert all(set(table.of(panel, row)) <= set(columns(panel)) for row in rows), (number, panel)


def test_every_row_has_a_recipe(tmp_path):
    wanted = _rows(TABLES)
    made = settings(True, wanted, tmp_path, QUIET)
    assert {"mnist-long", "order-linear", "lengths-8"} < set(made)
    for panel in set(wanted) & set(made):
        own = [row for row in wanted[panel] if (row.partition("@")[2] or origin(panel)) in made]
        rows = [one for row in own for one in alternatives(panel, row)]
        part = _part(made, panel, rows, smoke=True)
        learnt = {learner(panel, row) for row in rows if not unlearnt(row)}
        assert learnt <= {*part.recipes, *part.derived}


def test_the_three_ways_of_training_differ_in_what_they_say_and_nothing_else(tmp_path):
    made = recipes("linear-8", settings(True, ["linear-8"], tmp_path, QUIET)["linear-8"], smoke=True)
    greedy, decaying, single = (made[f"parametric-both{how}"] for how in ("", "-decaying", "-one-step"))
    assert greedy.method.gain == CONSTANT and decaying.method.gain == DECAYING
    assert greedy.train == decaying.train and greedy.scheme == decaying.scheme
    assert single.scheme.horizon == 1 and greedy.scheme.horizon == 10
    assert single.train.tasks == 10 * greedy.train.tasks
    assert single.family.support_rows == single.scheme.batch_size


def test_a_learner_in_one_pass_sees_the_rows_of_ten_mini_batches(tmp_path):
    made = recipes("linear-8", settings(True, ["linear-8"], tmp_path, QUIET)["linear-8"], smoke=True)
    plain, whole = made["parametric-both"], made["parametric-both-one-step-whole"]
    assert whole.scheme.horizon == 1 and whole.scheme.batch_size == 10 * plain.scheme.batch_size
    assert (whole.train, whole.family, whole.method) == (plain.train, plain.family, plain.method)


def test_no_recipe_only_warms_up(tmp_path):
    made = settings(True, _rows(TABLES), tmp_path, QUIET)
    for name in ("linear-8", "mnist"):
        setting = replace(made[name], iterations=150)
        for recipe in recipes(name, setting, smoke=False).values():
            assert recipe.train.warmup <= recipe.train.iterations / 3
    assert recipes("mnist", setting, smoke=False)["parametric-both"].train.warmup == 50


def test_learners_for_one_step_are_chosen_after_one_step(tmp_path, monkeypatch):
    asked = {}

    def choose(study, part, names, step, seeds):
        asked[names[0]] = step
        return names[0]

    monkeypatch.setattr(paper, "choose", choose)
    rows = ["parametric-chosen", "parametric-chosen-decaying", "parametric-chosen-one-step", "meta-sgd"]
    made = settings(True, ["linear-classes"], tmp_path, QUIET)
    chosen = paper._choices(Study(tmp_path, 1, QUIET), made, "linear-classes", rows, True)
    assert chosen["linear-classes", "parametric-chosen-one-step"] == "parametric-observations-one-step"
    assert asked == {
        "linear-classes-parametric-observations": 10,
        "linear-classes-parametric-observations-one-step": 1,
        "linear-classes-meta-sgd-0.1": 10,
    }


def test_sizes_cost_as_many_multiplications(tmp_path):
    setting = replace(settings(True, ["linear-8"], tmp_path, QUIET)["linear-8"], iterations=800)
    made = recipes("linear-8", setting, smoke=False)
    base = made["parametric-both-decaying"]
    work = base.train.iterations * base.method.layers * base.method.width**2
    for name, recipe in made.items():
        if name.startswith("width-"):
            assert recipe.train.iterations * recipe.method.layers * recipe.method.width**2 == work


def record(row, steps, mean):
    bounds = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "seconds": 3.0, "peak_memory": 2**20}
    name = learner("linear-classes", row)
    return {
        "family": "linear-classes",
        "name": name,
        "steps": steps,
        "metric": "error",
        "seed": "all",
        **bounds,
    }


def test_cells_find_their_records_and_empty_ones_are_counted():
    wanted = [cell for cell in cells([2]) if cell.panel == "linear-classes"]
    records = [record("parametric-both", steps, 0.5) for steps in (1, 5)]
    chosen = {("linear-classes", "parametric-chosen"): "parametric-both"}
    kept = filled(wanted, records, chosen, {"linear-classes": "error"})
    assert len(wanted) == 7 and sum(found is not None for found in kept.values()) == 2
    assert missing(kept)["value"] == 5 and not missing(kept)["holds"]
    (table,) = listings(kept, chosen)
    said = "parametric-both (chosen)"
    assert table["rows"][0] == ["linear-classes", said, "0.5 ± 0.1", "0.5 ± 0.1", "", "3", "1"]


def test_a_learner_that_diverged_is_said_to_and_is_null_in_json(tmp_path):
    cell = Cell(2, "linear-classes", "parametric-both", 5)
    lost = record("parametric-both", 5, float("nan"))
    (table,) = listings({cell: lost}, {})
    assert table["rows"][0][3] == "diverged"
    assert paper._told({"cells": [lost], "gap": (0.5, float("inf"))}) == {
        "cells": [{**lost, "mean": None, "low": None, "high": None}],
        "gap": [0.5, None],
    }
    nothing = {"value": None, "low": None, "high": 1.0, "bar": 1, "direction": "<=", "holds": False}
    result = {"benchmark": "paper", "smoke": False, "seeds": 1, "commit": "c", "torch": "t", "records": []}
    result["claims"] = [{"id": "paper.x", **nothing, "beside": {"other": [None, 1.0, None]}}]
    written = write_result(tmp_path, "paper", result)
    page = written[1].read_text()
    assert "| `paper.x` |  | diverged [diverged, 1] | <= 1 | **no** |" in page
    console = Console(record=True, width=100)
    show_claims(console, written)
    assert "diverged [diverged, 1]" in console.export_text()


def test_verdicts_need_every_interval_or_none():
    better, worse, unsure = (-0.3, -0.4, -0.2), (0.3, 0.2, 0.4), (-0.1, -0.3, 0.1)
    assert verdict([better, better]) == "reproduced"
    assert verdict([worse, unsure]) == "not reproduced"
    assert verdict([better, unsure]) == "depends"


def test_what_was_asked_is_compared_on_the_same_tasks_at_the_same_step():
    levels = {
        "linear-8": {
            "parametric-both": 2,
            "parametric-both-decaying": 1,
            "parametric-both-one-step-whole": 4,
        },
        "mixture": {"implicit-logits": 3, "implicit-logits-decaying": 2, "kernel": 1},
        "order": {
            "explicit-order": 1,
            "explicit-order-decaying": 1,
            "implicit-order": 3,
            "implicit-order-decaying": 3,
            "shape-order": 2,
        },
    }
    tasks = np.linspace(1, 2, 8) * np.array([3.0, 2.0, 1.0])[:, None]  # [steps, T]
    found = {
        panel: {learner(panel, row): {"error": level * tasks[None]} for row, level in rows.items()}
        for panel, rows in levels.items()
    }
    own = Compared(found, {})

    def values(gaps):
        return {key: value for key, (value, _, _) in gaps.items()}

    turns = values(_turns(own))
    assert turns["linear-8: parametric-both less parametric-both-one-step-whole"] == pytest.approx(-0.5)
    assert turns["linear-8: parametric-both-decaying less parametric-both-one-step-whole"] == pytest.approx(
        -0.75
    )
    gains = values(_gains(own))
    assert gains["linear-8: parametric-both-decaying less constant"] == pytest.approx(-0.5)
    assert gains["mixture: implicit-logits-decaying less constant"] == pytest.approx(-1 / 3)
    kernels = values(_kernels(own))
    assert len(kernels) == 6 and kernels["mixture: implicit-logits less kernel, step 1"] == pytest.approx(2)
    shapes = values(_shapes(own))
    assert sorted(shapes.values()) == pytest.approx([-0.5, 0.5])


def test_the_page_says_where_learners_cross():
    rows = ("parametric-both-decaying", "sgd")
    means = {"parametric-both-decaying": (3.0, 2.0, 1.0, 0.5), "sgd": (2.0, 3.0, 0.5, 0.4)}
    kept = {
        Cell(11, "linear-8-long", row, column): {"mean": mean}
        for row in rows
        for column, mean in zip((1, 2, 5, 10), means[row], strict=True)
    }
    (table,) = crossings(kept, {})
    assert table["rows"] == [["linear-8-long", "sgd", "1, 5 to 10", "10"]]


def test_peers_answer_with_their_order():
    task = StructuralCausalModel(4, 2.0, support_rows=20).sample(3, torch.Generator().manual_seed(0))
    odds = peers()["shape-order"](task.support)
    order = shape_orders(task.support)
    assert torch.equal(reversed_edges(odds, task), reversed_by(order, task.query.y))


def test_a_pace_is_the_time_of_the_iterations(tmp_path):
    made = recipes("linear-8", settings(True, ["linear-8"], tmp_path, QUIET)["linear-8"], smoke=True)
    few = made["parametric-both"]
    many = replace(few, train=replace(few.train, iterations=1000))
    study = Study(tmp_path, 1, QUIET)
    assert paced(study, {"a": many})["a"] > 0
    assert len(list((tmp_path / "records").iterdir())) == 1


def stream(rows, classes=4):
    """Rows whose x says their class, in random order; the query has as many of each class."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat(rows // classes)[torch.randperm(rows, generator=rng)][None, :, None]
    asked = torch.arange(classes).repeat(3)[None, :, None]
    eye = torch.eye(classes) + 1  # what they have in common is what a newer class takes over
    return Task(Batch(eye[y[..., 0]], y), Batch(eye[asked[..., 0]], asked))


def test_a_stream_of_classes_is_judged_on_the_classes_seen_so_far():
    task, exact = stream(40), build("ridge", LinearClassification(4, 4), strength=0.1)
    for judge in (in_turn, rehearsed):
        found = judge(exact, task, 10, [1, 2, 4], {"error": error_rate})["error"]
        assert found.shape == (3, 1) and (found == 0).all()


def test_a_class_counts_once_all_of_its_rows_are_seen():
    """A learner of nothing says class 0: right while that class alone is whole, though rows of the next are seen."""
    task, still = stream(40), build("sgd", LinearClassification(4, 4), rate=1e-60)
    found = in_turn(still, task, 8, [1, 2, 3, 5], {"error": error_rate})["error"][:, 0]
    np.testing.assert_allclose(found, [0, 0, 0.5, 0.75])


def test_rehearsal_shows_old_classes_again():
    """A learner of the newest class alone forgets; half of old rows in every mini-batch are what it needs."""
    task, forgetful = stream(160), build("sgd", LinearClassification(4, 4), rate=1.0)
    once = in_turn(forgetful, task, 20, [8], {"error": error_rate})["error"]
    again = rehearsed(forgetful, task, 20, [8], {"error": error_rate})["error"]
    assert again < once


def test_a_family_counts_where_the_whole_interval_is_below():
    rng = np.random.default_rng(0)

    def steps(last):
        first = 1 + 0.01 * rng.normal(size=(3, 50))
        return {"error": np.stack([first, first, np.full((3, 50), last)], 1)}

    found = {
        name: {"ours": steps(last), "one": steps(1.0)} for name, last in (("a", 0.5), ("b", 1.5), ("c", 0.98))
    }
    best = {name: {"any": ("ours", "one")} for name in found}
    made = families_improved(found, best, dict.fromkeys(found, "error"))
    assert made["value"] == 2 and not made["holds"]


def test_references_hold_at_small_size():
    parity, cosine = references(smoke=True)
    assert parity["id"] == "paper.maml_parity" and parity["holds"]
    assert cosine["id"] == "paper.es_cosine" and cosine["low"] <= 0.1


def test_tables_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the paper's tables are 2, 3"):
        run("paper", tmp_path, True, 1, 1, QUIET, table=99)
    with pytest.raises(ValueError, match="only 'paper' has numbered tables"):
        run("core", tmp_path, True, 1, 1, QUIET, table=2)


def test_means_of_the_page_have_the_interval_of_the_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=(3, 100))
    quick, slow = mean_interval(values), bootstrap(lambda a: float(a.mean()), values)
    assert quick[0] == pytest.approx(slow[0], rel=1e-12)
    assert np.allclose(quick[1:], slow[1:], rtol=0.02)
