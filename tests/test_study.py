"""Studies: records that know what they depend on, one-step twins of one budget, tuning that finds the minimum."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from gradatim.benchmarks.study import Study, fresh, once, sample, tune
from gradatim.families import LinearRegression
from gradatim.methods import METHODS, build
from gradatim.metrics import curve, squared_error
from gradatim.provenance import forget_peak, peak_memory
from gradatim.recipes import recipe


def test_a_record_is_kept_until_what_it_depends_on_changes(tmp_path):
    study = Study(tmp_path, 1, Console(quiet=True))
    first = study.arrays("k", {"rows": 1}, lambda: {"v": np.asarray(1)})
    again = study.arrays("k", {"rows": 1}, lambda: {"v": np.asarray(2)})
    other = study.arrays("k", {"rows": 2}, lambda: {"v": np.asarray(3)})
    assert [int(values["v"]) for values in (first, again, other)] == [1, 1, 3]
    assert "commit" in first


def test_a_one_step_twin_makes_as_many_refinements_with_the_same_settings():
    long = recipe("digits")
    short = once(long, "parametric-one-step")
    assert short.scheme.horizon == 1
    assert short.train.tasks == long.train.tasks * long.scheme.horizon
    assert replace(short.train, tasks=long.train.tasks) == long.train
    assert short.refiner == long.refiner


def test_the_run_of_another_recipe_is_removed_and_an_own_one_kept(tmp_path):
    fresh(tmp_path, recipe("digits"))
    (tmp_path / "mark").touch()
    fresh(tmp_path, recipe("digits"))
    assert (tmp_path / "mark").exists()
    fresh(tmp_path, recipe("linear"))
    assert not (tmp_path / "mark").exists()


def test_tuning_takes_the_best_of_the_grid():
    family = LinearRegression(3, 0.5, support_rows=40)
    task = sample(family, 16, seed=2)
    grid = METHODS["sgd"].grid
    setting = tune(lambda lr: build("sgd", family, lr=lr), grid, task, 8, 5, squared_error)
    scores = {
        lr: curve(build("sgd", family, lr=lr), task, 8, [5], {"e": squared_error})["e"].mean()
        for lr in grid["lr"]
    }
    assert setting["lr"] == min(scores, key=lambda lr: np.nan_to_num(scores[lr], nan=np.inf))


def test_evaluation_tasks_are_a_function_of_their_seed():
    family = LinearRegression(3, 0.5)
    one, same, other = (sample(family, 2, seed=s).support.x for s in (1, 1, 2))
    assert (one == same).all()
    assert not (one == other).all()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak can't be forgotten")
def test_peak_memory_counts_what_is_held_and_can_start_anew():
    forget_peak()
    before = peak_memory()
    np.ones(2**25)  # 256 MiB
    assert 250 * 2**20 < peak_memory() - before < 300 * 2**20
    forget_peak()
    assert peak_memory() - before < 50 * 2**20
