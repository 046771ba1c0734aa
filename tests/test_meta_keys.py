"""The study of learnt keys: its figures, its Gaussian process, and a run at its smallest size."""

import math

import pytest
import torch
from studies.meta.keys import figures, geometric, measure, process_mean

from gradatim.families import Sinusoids
from gradatim.methods import GaussianProcess


def test_figures_are_ratios_of_geometric_means():
    records = {
        "peers/0": {
            "a": {"test": [0.4, 0.4, 0.4, 0.4]},
            "b": {"test": [0.8, 0.2, 0.4, 0.4]},
        },
        "omniglot/0": {"plda": {"test": [0.2] * 4}, "prototypical": {"test": [0.4] * 4}},
        "omniglot/1": {"plda": {"test": [0.1] * 4}, "prototypical": {"test": [0.1] * 4}},
        "sinusoids/0": {
            "alpaca": {"test": [1e-3, 4e-3, 1, 3e-4]},
            "gaussian-process": {"test": [1, 1, 1, 1e-4]},
        },
        "noisy/0": {"alpaca": {"test": [2.0, 0.5, 1, 1]}, "oracle": {"test": [1.0] * 4}},
        "few-shot/0": {"plda": {"test-5-way-1-shot": 0.97}},
    }
    found = figures(records)
    best = geometric([0.4, 0.2, 0.4, 0.4])
    assert found["meta.omniglot.over_unlearned"] == pytest.approx([0.2 / best, 0.1 / best])
    assert found["meta.omniglot.over_proto"] == pytest.approx([0.5, 1])
    assert found["meta.omniglot.five_way"] == pytest.approx([97])
    assert found["meta.sinusoid.over_gp"] == pytest.approx([2e-3])
    assert found["meta.sinusoid.long"] == pytest.approx([3])
    assert found["meta.sinusoid.over_oracle"] == pytest.approx([1])


def test_the_process_of_the_study_is_that_of_the_library():
    family = Sinusoids(noise_std=0.2, support_rows=8, query_rows=5)
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    learner = GaussianProcess().build(family)
    state = learner.adapt(task.support, 8, task.query)
    chosen = learner.refiner.hyperparameters(state)
    for b in range(3):
        length, noise = float(chosen.length[b]), float(chosen.noise[b] / chosen.signal[b])
        wanted = learner.predict(task.query.x, state)[b]
        torch.testing.assert_close(process_mean(task, 8, length, noise)[b], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("part", ["sinusoids", "noisy", "hidden"])
def test_a_part_runs_at_its_smallest_size(part):
    record = measure(part, smoke=True, seed=0)
    assert ("oracle" in record) == (part == "noisy")
    for entry in record.values():
        assert len(entry["test"]) == 4 and all(0 < value < math.inf for value in entry["test"])
