"""Reprogramming: laws of frozen models, exact cases, files that come back, controls that are always there."""

import copy
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from studies.frozen import reprogram as study_part
from torch import nn

from gradatim import LinearClassification, LinearRegression, build
from gradatim.comparison.runs import Study
from gradatim.files.checkpoint import read, write
from gradatim.prompting import (
    Reprogrammed,
    Reprogramming,
    cells,
    compare_reprogramming,
    in_context_learning,
    model_reprogramming,
    prefix_tuning,
    prompt_tuning,
    reprogram,
)
from gradatim.prompting.alignment import assign, count_outputs
from gradatim.prompting.cells import AXES
from gradatim.prompting.compare import best_rate, logistic, random_twin
from gradatim.prompting.modules import place

SIZES = {"steps": 4, "tokens": 6, "batch_size": 16}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(inputs=36, outputs=5, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(inputs, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, outputs)]
    return nn.Sequential(*layers)


def rows(n=40, width=4, classes=3, seed=0):
    x = torch.randn(n, width, generator=seeded(seed))
    return x, x[:, :classes].argmax(1)


def how_of(cell, framed=True, **sizes):
    frame = 1 if framed and cell[2] in ("concatenative", "replacement") else 0
    return Reprogramming(*cell, frame=frame, **(SIZES | sizes))


def learner(seed=0):
    torch.manual_seed(seed)
    return build("implicit-logits", LinearClassification(4, 3)).eval()


def case(kind, cell):
    """Return a model, rows, labels and options for a cell."""
    x, y = rows()
    if kind == "learner":
        return learner(), x, y, how_of(cell, framed=False), {}
    labels = [[0, 3], [1, 4], [2]] if cell[3] == "rule" else None
    return network(), x, y, how_of(cell), {"shape": (1, 6, 6), "labels": labels}


CASES = [(kind, cell) for kind in ("module", "learner") for cell in cells(kind)]


# --- laws of every cell


@pytest.mark.parametrize(("kind", "cell"), CASES, ids=lambda value: str(value))
def test_a_cell_changes_no_weight_and_comes_back_from_its_file_bit_for_bit(kind, cell, tmp_path):
    model, x, y, how, options = case(kind, cell)
    model.train()
    before, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    found = reprogram(model, x, y, how, **options)
    said = found.predict_proba(x)
    assert said.shape == (40, 3)
    np.testing.assert_allclose(said.sum(1), 1, atol=1e-12)  # float64
    for name, part in model.state_dict().items():
        assert torch.equal(part, before[name]), name
    assert flags == [p.requires_grad for p in model.parameters()]
    assert model.training
    assert all(part.grad is None for part in model.parameters())
    again = Reprogrammed.load(found.save(tmp_path / "delta.safetensors"), model)
    assert np.array_equal(again.predict_proba(x), said)
    assert again.n_trainable == found.n_trainable
    assert again.how == how


@pytest.mark.parametrize("cell", [cell for cell in cells("module") if cell[3] == "identity"], ids=str)
def test_a_delta_that_is_not_learnt_leaves_the_model_as_it_is(cell):
    if cell[2] in ("parametric", "replacement") and cell[1] == "input":
        pytest.skip("such an input is not x")
    model, (x, y) = network().eval(), rows()
    how = how_of(cell, steps=0)
    placed, _ = place(x, (1, 6, 6), how.frame)
    found = reprogram(model, x, y, how, shape=(1, 6, 6))
    with torch.no_grad():
        assert torch.equal(found.logits(x), model(placed)[:, :3])


def test_the_same_seed_learns_the_same_numbers():
    model, (x, y) = network(), rows()
    how = Reprogramming("learnable", "input", "additive", "iterative", steps=20)
    one, other = (reprogram(model, x, y, how, shape=(1, 6, 6), seed=3) for _ in range(2))
    assert np.array_equal(one.predict_proba(x), other.predict_proba(x))


def test_training_lowers_the_loss_of_the_task():
    model, (x, y) = network(), rows(200)
    for cell in (("additive", "identity"), ("concatenative", "identity"), ("parametric", "linear")):
        loss = []
        for steps in (0, 150):
            how = how_of(("learnable", "input", *cell), steps=steps, learning_rate=0.05)
            said = reprogram(model, x, y, how, shape=(1, 6, 6)).predict_proba(x)
            loss.append(-np.log(said[np.arange(200), y]).mean())
        assert loss[1] < loss[0] - 0.01, cell


# --- exact cases


def test_a_parametric_map_before_a_linear_model_finds_the_exact_solution():
    generator = seeded(1)
    model = nn.Linear(5, 2).double()
    x = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    y = (torch.rand(400, generator=generator) < (2 * x[:, 0] - x[:, 1] + 0.5).sigmoid()).long()
    how = Reprogramming(operator="parametric", steps=3000, batch_size=400, learning_rate=0.01)
    found = reprogram(model, x, y, how, shape=(5,))
    logits = found.logits(x)
    weight, bias = logistic(x, y, 2, strength=0.0)
    best = x @ weight.mT + bias
    ours, theirs = (part[:, 1] - part[:, 0] for part in (logits, best))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)  # Adam has almost come to rest


def test_added_outputs_of_a_constant_model_are_log_shares():
    model = nn.Linear(2, 3).double()
    nn.init.zeros_(model.weight)
    y = np.array([0, 0, 1, 2, 2, 2])
    how = Reprogramming("learnable", "output", "additive", steps=3000, batch_size=6, learning_rate=0.01)
    said = reprogram(model, torch.zeros(6, 2), y, how).predict_proba(torch.zeros(1, 2))
    np.testing.assert_allclose(said, [[2 / 6, 1 / 6, 3 / 6]], atol=1e-3)  # as above


def test_frequent_outputs_are_those_of_a_count_by_hand():
    best = [4, 4, 4, 2, 4, 4, 2, 0, 1, 1]
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    outputs = nn.functional.one_hot(torch.tensor(best), 5).float()
    counts = count_outputs(outputs, y, 3)
    assert counts.floor().tolist() == [[0, 0, 1, 0, 3], [1, 0, 1, 0, 2], [0, 2, 0, 0, 0]]
    # class 0 takes output 4, class 2 output 1; of outputs 0 and 2, one row each, the mean probability is the same
    assert assign(counts) == [4, 0, 1]
    model, how = nn.Identity(), Reprogramming("fixed", "input", "additive", "frequent")
    found = reprogram(model, outputs, y, how)
    assert found.alignment.groups == [[4], [0], [1]]
    assert found.n_trainable == 0


def test_equal_counts_are_decided_by_probability():
    outputs = torch.tensor([[9.0, 0.0, 1.0], [9.0, 0.0, 1.0]])
    assert assign(count_outputs(outputs, torch.tensor([0, 1]), 2)) in ([0, 2], [2, 0])


def test_iterative_outputs_follow_what_was_learnt():
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    y = np.array(["left", "right"] * 20)
    for alignment in ("frequent", "iterative"):
        how = Reprogramming(alignment=alignment, steps=30)
        found = reprogram(model, x, y[::-1].copy(), how)
        assert found.alignment.groups == [[1], [0]]
        assert (found.predict(x) == y[::-1]).all()


def test_a_rule_sums_the_probabilities_of_its_outputs():
    model, (x, y) = network().eval(), rows()
    how = Reprogramming("fixed", "input", "additive", "rule")
    said = reprogram(model, x, y, how, labels=[[0, 3], [1], [2, 4]], shape=(1, 6, 6)).predict_proba(x)
    with torch.no_grad():
        own = model(place(x, (1, 6, 6))[0]).double().softmax(1).numpy()
    wanted = np.stack([own[:, [0, 3]].sum(1), own[:, 1], own[:, [2, 4]].sum(1)], 1)
    np.testing.assert_allclose(said, wanted, atol=1e-6)  # float32


@pytest.mark.parametrize(
    ("dtype", "classes"), [("int64", [3, 7]), ("bool", [False, True]), ("U", ["a", "b"])]
)
def test_labels_come_back_as_they_were(dtype, classes, tmp_path):
    x, y = rows(classes=2)
    labels = np.array(classes)[y.numpy()]
    found = reprogram(network(), x, labels, Reprogramming(steps=1), shape=(1, 6, 6))
    again = Reprogrammed.load(found.save(tmp_path / "delta"), found.model)
    assert again.predict(x).dtype == labels.dtype
    assert set(again.predict(x).tolist()) <= set(classes)


def test_a_rate_that_leaves_the_numbers_is_named():
    x, y = rows()
    how = Reprogramming("learnable", "input", "parametric", "linear", steps=20, learning_rate=1e30)
    with pytest.raises(ValueError, match=r"no longer finite at a learning rate of 1e\+30"):
        reprogram(network(), x, y, how, shape=(1, 6, 6))


# --- where x stands


def test_images_are_resized_to_what_a_frame_leaves_and_columns_become_squares():
    placed, stands = place(torch.ones(2, 8, 8), (1, 12, 12), frame=3)
    assert placed.shape == (2, 1, 12, 12)
    assert stands.sum() == 36
    torch.testing.assert_close(placed[:, stands], torch.ones(2, 36))
    assert placed[:, ~stands].abs().max() == 0
    squares, _ = place(torch.arange(4.0)[None], (1, 4, 4))
    assert squares[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    vector, stands = place(torch.ones(1, 3), (6,), frame=1)
    assert vector.tolist() == [[0, 1, 1, 1, 0, 0]]
    assert place(torch.ones(2, 1, 4, 4), (3, 4, 4))[0].shape == (2, 3, 4, 4)


def test_what_stands_beside_x_leaves_x_as_it_is():
    model, (x, y) = network(), rows()
    found = reprogram(
        model, x, y, how_of(("learnable", "input", "concatenative", "identity")), shape=(1, 6, 6)
    )
    placed, stands = place(x, (1, 6, 6), 1)
    with torch.no_grad():
        given = found.adapter._input(x)
    assert torch.equal(given[:, stands], placed[:, stands])
    assert (given[:, ~stands] == given[:1, ~stands]).all()
    assert found.n_trainable == 20


# --- refused with a sentence


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"operator": "adding"}, "operator is one of"),
        ({"location": "output", "operator": "concatenative"}, "outputs are added to or mapped"),
        ({"location": "output", "alignment": "linear"}, "maps outputs already"),
        ({"location": "hidden", "operator": "replacement", "frame": 1}, "only numbers of the input"),
        ({"configuration": "fixed", "location": "embedding"}, "what is fixed stands in the input"),
        ({"configuration": "fixed", "operator": "parametric"}, "must be learnt"),
        ({"configuration": "fixed", "alignment": "iterative"}, "same counts"),
        ({"operator": "replacement"}, "frame=0"),
        ({"tokens": 0}, "tokens must be"),
        ({"frame": -1}, "frame is a whole number"),
        ({"learning_rate": math.nan}, "learning_rate"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(fields: Any, sentence):
    with pytest.raises(ValueError, match=sentence):
        Reprogramming(**fields)


def test_every_combination_is_a_value_or_a_sentence_and_all_that_is_built_is_a_value():
    made = set()
    for cell in product(*AXES.values()):
        try:
            axes: Any = cell
            made.add(Reprogramming(*axes, frame=1).cell)
        except ValueError as error:
            assert "got" in str(error)
    assert all(set(cells(kind)) <= made for kind in ("module", "language", "learner"))
    for preset, kind in (
        (in_context_learning, "language"),
        (in_context_learning, "learner"),
        (prompt_tuning, "language"),
        (prefix_tuning, "language"),
        (model_reprogramming, "module"),
    ):
        assert preset.cell in cells(kind)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(40, dtype=int)}, "two classes or more"),
        ({"y": np.linspace(0, 1, 40)}, "one label for each row"),
        ({"y": np.arange(39) % 2}, "as many rows"),
        ({"y": np.arange(40) % 6}, "at least 6 outputs; the model has 5"),
        ({"y": np.arange(40) % 6, "how": {"alignment": "identity"}}, "at least 6 outputs; the model has 5"),
        ({"x": torch.full((40, 4), torch.nan)}, "row 0 holds a missing or infinite"),
        ({"x": [["a"]] * 40}, "X must be numbers"),
        ({"x": torch.zeros(40)}, "X must have rows"),
        ({"x": torch.zeros(40, 49)}, "49 columns do not fit"),
        ({"x": torch.zeros(40, 2, 6, 6)}, r"got \[N, 2, 6, 6\]"),
        ({"shape": (1, 7, 7)}, "does not take input of shape"),
        ({"shape": (2, 2)}, "a vector .* or an image"),
        ({"how": {"operator": "concatenative"}}, "nothing stands beside"),
        ({"how": {"frame": 3}}, "leaves nothing"),
        ({"how": {"location": "hidden", "layer": "head"}}, "no layer 'head'"),
        ({"how": {"location": "embedding"}}, "not built for a module"),
        ({"how": {"alignment": "rule"}}, "give labels="),
        ({"how": {"alignment": "identity"}, "labels": [0, 1]}, "one entry for each of 3"),
        ({"how": {"alignment": "identity"}, "labels": [0, 1, 1]}, "two classes share"),
        ({"how": {"alignment": "identity"}, "labels": [0, 1, 9]}, "outputs from 0 to 4"),
        ({"model": 3}, "a model is a torch module"),
        ({"model": nn.Conv2d(1, 2, 3)}, "gives logits"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(change, sentence):
    x, y = rows()
    sizes: Any = {"alignment": "frequent", "steps": 1, **change.get("how", {})}
    how = Reprogramming(**sizes)
    with pytest.raises(ValueError, match=sentence):
        reprogram(
            change.get("model", network()),
            change.get("x", x),
            change.get("y", y),
            how,
            shape=change.get("shape", (1, 6, 6)),
            labels=change.get("labels"),
        )


def test_rows_of_another_shape_are_refused_later_as_well():
    x, y = rows()
    found = reprogram(network(), x, y, Reprogramming(steps=1), shape=(1, 6, 6))
    with pytest.raises(ValueError, match=r"rows have shape \[4\]"):
        found.predict(torch.zeros(2, 5))


def test_learners_of_numbers_and_tasks_with_too_many_classes_are_refused():
    x, y = rows()
    with pytest.raises(ValueError, match="the model has 3"):
        reprogram(learner(), x, np.arange(40) % 4)
    with pytest.raises(ValueError, match="a regression wants"):
        reprogram(build("implicit-logits", LinearRegression(4)), x, y)
    with pytest.raises(ValueError, match="5 columns, and the learner reads 4"):
        reprogram(learner(), torch.zeros(40, 5), y)


# --- files


def test_a_file_of_another_model_or_a_damaged_one_is_refused(tmp_path):
    x, y = rows()
    found = reprogram(network(), x, y, Reprogramming(steps=1), shape=(1, 6, 6))
    path = found.save(tmp_path / "delta")
    with pytest.raises(ValueError, match="other weights or shapes"):
        Reprogrammed.load(path, network(seed=1))
    with pytest.raises(ValueError, match="is of a module; got a learner"):
        Reprogrammed.load(path, learner())
    tensors, header = read(path)
    bad = [
        (tensors | {"delta.shift": torch.zeros(1, 5, 6)}, header, "does not fit this model"),
        (tensors | {"align.outputs": torch.tensor([[0], [1], [7]])}, header, "below 5"),
        (tensors | {"align.outputs": torch.tensor([[0], [1]])}, header, "alignment of 3 classes"),
        (tensors | {"other": torch.zeros(1)}, header, "none of a reprogrammed model"),
        (tensors | {"kept.x": torch.zeros(1)}, header, "must keep"),
        (tensors, header | {"how": header["how"] | {"operator": "adding"}}, "operator"),
        (
            tensors,
            header | {"how": header["how"] | {"configuration": "fixed", "location": "hidden"}},
            "fixed",
        ),
        (tensors, header | {"settings": header["settings"] | {"shape": []}}, "shapes"),
        (tensors, header | {"labels": ["0", "0", "1"]}, "labels"),
        (tensors, header | {"label_kind": "O"}, "label_kind"),
        (tensors, header | {"labels": ["0", "x", "1"]}, "contradicts itself"),
    ]
    for parts, head, sentence in bad:
        write(tmp_path / "bad", parts, head)
        with pytest.raises(ValueError, match=sentence):
            Reprogrammed.load(tmp_path / "bad", found.model)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="delta"):
        Reprogrammed.load(path, found.model)


# --- controls


def test_controls_are_always_there_and_learn_as_many_numbers():
    x, y = rows(60)
    hows = [
        how_of(cell)
        for cell in (("learnable", "input", "additive", "identity"), ("fixed", "input", "additive", "linear"))
    ]
    table = compare_reprogramming(network(), x, y, hows, shape=(1, 6, 6))
    names = [(row["cell"], row["network"]) for row in table.rows]
    assert names == [
        *[(how.name, network) for how in hows for network in ("pretrained", "random")],
        ("linear probe", "pretrained"),
        ("linear probe", "random"),
        ("majority class", ""),
    ]
    assert [row["trainable"] for row in table.rows] == [36, 36, 18, 18, 39, 39, 0]
    assert set(table.gains()) == {how.name for how in hows} | {"linear probe"}
    assert len(str(table).splitlines()) == 8


def test_the_random_network_is_its_own_and_seeded():
    model = network()
    one, same, other = (random_twin(model, seed).state_dict() for seed in (0, 0, 1))
    for name, part in model.state_dict().items():
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], part)
        assert not torch.equal(one[name], other[name])


def test_a_network_that_cannot_be_drawn_anew_asks_for_one():
    x, y = rows()
    with pytest.raises(ValueError, match="give random="):
        compare_reprogramming(learner(), x, y, [in_context_learning])
    table = compare_reprogramming(learner(), x, y, [in_context_learning], random=learner)
    assert [row["trainable"] for row in table.rows] == [0, 0, 15, 15, 0]
    with pytest.raises(ValueError, match="as many numbers"):
        compare_reprogramming(
            nn.Linear(4, 3),
            x,
            y,
            [Reprogramming("learnable", "output", "additive", steps=1)],
            random=lambda seed: nn.Linear(4, 5),
        )


def test_a_comparison_needs_cells_and_labels():
    x, y = rows()
    with pytest.raises(ValueError, match="at least one cell"):
        compare_reprogramming(network(), x, y, [], shape=(1, 6, 6))
    with pytest.raises(ValueError, match="both X_test and y_test"):
        compare_reprogramming(network(), x, y, [model_reprogramming], X_test=x, shape=(1, 6, 6))
    pair = (model_reprogramming, in_context_learning)
    with pytest.raises(ValueError, match="the same cell"):
        compare_reprogramming(network(), x, y, [pair], shape=(1, 6, 6))


def test_rates_are_chosen_on_held_out_rows():
    x, y = rows(80)
    how = Reprogramming(operator="parametric", steps=30)
    best = best_rate(network(), x, y, how, (1e-9, 0.1), shape=(1, 6, 6))
    assert best.learning_rate == 0.1
    assert best_rate(network(), x, y, Reprogramming("fixed"), (1e-9, 0.1)).learning_rate == 0.01


# --- learners


def test_frames_and_series_go_by_place():
    pandas = pytest.importorskip("pandas")
    x, y = rows()
    hows = [Reprogramming(operator="parametric", steps=3)]
    order = np.random.default_rng(0).permutation(len(x))
    frame = pandas.DataFrame(np.asarray(x), index=order)
    found = compare_reprogramming(network(4), frame, pandas.Series(np.asarray(y), index=order[::-1]), hows)
    assert found.rows == compare_reprogramming(network(4), x, y, hows).rows


def test_in_context_learning_is_the_learner_itself():
    model, (x, y) = learner(), rows(60)
    how = Reprogramming("fixed", "input", "concatenative", "identity", batch_size=20)
    from gradatim import Batch

    query = Batch(x[None, 40:], torch.zeros(1, 20, 1, dtype=torch.int64))
    state = model.adapt(Batch(x[None, :40], y[None, :40, None]), 20, query)
    wanted = model.predict(query.x, state)[0]
    assert torch.equal(reprogram(model, x[:40], y[:40], how).logits(x[40:]), wanted.detach())


def test_the_study_runs_at_its_smallest_size_and_goes_on_from_its_records(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    monkeypatch.setattr(study_part, "find_spec", lambda name: None)
    study = Study(tmp_path, 1, Console(quiet=True), isolated=False)
    found = study_part.part(study, smoke=True, seeds=1)
    assert [claim["id"] for claim in found["claims"]] == [
        "frozen.reprogram.control",
        "frozen.reprogram.cells_missing",
    ]
    assert found["claims"][1]["value"] == len(cells("language"))
    assert all(0 <= record["errors"][0] <= 1 for record in found["records"])
    assert all(len(row) == len(table["columns"]) for table in found["listings"] for row in table["rows"])
    monkeypatch.setattr(study_part, "compare_reprogramming", None)
    assert study_part.part(study, smoke=True, seeds=1)["claims"] == found["claims"]
