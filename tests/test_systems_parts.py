"""The studies of path-aware MAML and memory imitation: their tasks, their figures, and a run at its smallest size."""

import math

import numpy as np
import pytest
import torch
from rich.console import Console
from studies.systems import memory, path

from gradatim.comparison.runs import Study


def vectors(tmp_path, monkeypatch):
    """Write embeddings of 40 intents with 12 sentences each, and letters of 4 alphabets, where the families look."""
    (tmp_path / "text").mkdir()
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "text" / "banking77_minilm_int8.npz",
        embeddings=generator.normal(size=(480, 6)).astype(np.float32),
        labels=np.repeat(range(40), 12),
    )
    np.savez(
        tmp_path / "images" / "omniglot_28.npz",
        images=generator.integers(0, 255, size=(40, 20, 28, 28), dtype=np.uint8),
        alphabet=np.repeat(range(4), 10),
        background=np.repeat([True, True, True, False], 10),
    )
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))


@pytest.mark.parametrize("part", [path.part, memory.part], ids=["path", "memory"])
def test_a_part_runs_at_its_smallest_size_and_goes_on_from_its_records(part, tmp_path, monkeypatch):
    vectors(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path / "study", 1, Console(quiet=True), isolated=False)
    found = part(study, smoke=True, seeds=2)
    assert {claim["id"].split(".")[1] for claim in found["claims"]} == {part.__module__.rsplit(".", 1)[1]}
    assert all(claim["holds"] in (True, False) for claim in found["claims"])
    for record in found["records"]:
        assert all(0 <= value < math.inf for value in record["errors"])
    assert all(len(row) == len(table["columns"]) for table in found["listings"] for row in table["rows"])
    monkeypatch.setattr(path, "train", None)
    monkeypatch.setattr(memory, "train", None)
    again = part(study, smoke=True, seeds=2)
    assert again["claims"] == found["claims"]


def test_fixed_labels_follow_from_the_intent_and_permuted_ones_do_not(tmp_path, monkeypatch):
    vectors(tmp_path, monkeypatch)
    for kind, one_label in (("fixed", True), ("permuted", False)):
        task = memory.FAMILIES[kind].sample(60, torch.Generator().manual_seed(0))
        assert [task.support.y[0].flatten().bincount().tolist()] == [[2] * 5]
        labels = {}
        for batch in (task.support, task.query):
            for x, y in zip(batch.x.flatten(0, 1), batch.y.flatten().tolist(), strict=True):
                labels.setdefault(tuple(x.tolist()), set()).add(y)
        seen = [len(found) for found in labels.values()]
        assert (max(seen) == 1) is one_label
        rows = torch.cat([task.support.x, task.query.x], 1)
        assert all(len(each.unique(dim=0)) == len(each) for each in rows)


def test_named_waves_are_few_in_training_and_others_in_tests():
    waves = memory.FAMILIES["named"]
    generator = torch.Generator().manual_seed(0)
    names = {split: waves.on(split).sample(300, generator).support.x[:, 0, 1:] for split in ("train", "test")}
    assert len(names["train"].unique(dim=0)) == 20
    assert torch.cdist(names["train"], names["test"]).min() > 0.1


def test_ratios_are_geometric_means():
    records = [{"test": np.array([9.0, value])} for value in (1.0, 4.0)]
    others = [{"test": np.array([9.0, 2.0])}] * 2
    assert path.geometric_ratio(records, others)[0] == pytest.approx(1)
    assert path.geometric_ratio(records[:1], others[:1]) == pytest.approx((0.5, 0.5, 0.5))
    assert memory.ratio([1.0, 4.0], [2.0, 2.0])[0] == pytest.approx(1)


def test_the_nearest_row_of_the_support_answers():
    task = memory.FAMILIES["named"].sample(2, torch.Generator().manual_seed(0))
    found = memory.neighbours(task)
    for b, q in ((0, 3), (1, 7)):
        near = (task.support.x[b] - task.query.x[b, q]).norm(dim=1).argmin()
        assert torch.equal(found[b, q], task.support.y[b, near])
