"""The paper's benchmark: its list is the one that docs/paper.md fixed, and a cell without a record is counted."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gradatim.benchmarks import run
from gradatim.benchmarks.paper_claims import families_improved, missing, references
from gradatim.benchmarks.paper_settings import learner, recipes, settings
from gradatim.benchmarks.paper_tables import TABLES, cells, filled, listed, listings
from gradatim.refiners import CONSTANT, DECAYING

DOCS = Path(__file__).parents[1] / "docs" / "paper.md"


def test_the_list_is_the_one_that_was_fixed():
    fixed = DOCS.read_text(encoding="utf-8")
    assert listed() in fixed, "docs/paper.md holds the list: it changes before a run, never after"
    assert len(set(cells())) == len(cells()) == sum(len(cells([number])) for number in TABLES)


def test_the_three_ways_of_training_differ_in_what_they_say_and_nothing_else():
    made = recipes(settings(True)["linear-8"], "parametric", "both", smoke=True)
    assert made["greedy"].refiner.gain == CONSTANT and made["decaying"].refiner.gain == DECAYING
    assert made["greedy"].train == made["decaying"].train and made["greedy"].scheme == made["decaying"].scheme
    assert made["one-step"].scheme.horizon == 1 and made["greedy"].scheme.horizon == 10
    assert made["one-step"].train.tasks == 10 * made["greedy"].train.tasks


def record(family, regime, signal, variant, steps, mean):
    name = learner(family, regime, signal, variant)
    bounds = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "seconds": 3.0, "peak_memory": 2**20}
    return {"family": family, "name": name, "steps": steps, "metric": "error", "seed": "all", **bounds}


def test_cells_find_their_records_and_empty_ones_are_counted():
    wanted = [cell for cell in cells([2]) if cell.family == "linear-classes"]
    records = [record("linear-classes", "parametric", "both", "greedy", steps, 0.5) for steps in (1, 5)]
    chosen = {("linear-classes", "parametric"): "both"}
    kept = filled(wanted, records, chosen, {"linear-classes": "error"})
    assert len(wanted) == 7 and sum(found is not None for found in kept.values()) == 2
    assert missing(kept)["value"] == 5 and not missing(kept)["holds"]
    (table,) = listings(kept, chosen)
    assert table["rows"][0] == [
        "linear-classes", "both (chosen)", "constant gain", "0.5000 ± 0.1000", "0.5000 ± 0.1000", "", "3", "1"
    ]  # fmt: skip


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
    console = Console(quiet=True)
    with pytest.raises(ValueError, match="the paper's tables are 2, 3"):
        run("paper", tmp_path, True, 1, 1, console, table=99)
    with pytest.raises(ValueError, match="only 'paper' has numbered tables"):
        run("gain", tmp_path, True, 1, 1, console, table=2)
