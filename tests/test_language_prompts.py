"""Reprogramming of language models: laws of every cell, files, examples in the prompt, sentences about bad input."""

import copy

import numpy as np
import pytest
import torch
from rich.console import Console

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from studies.frozen import reprogram as study_part  # noqa: E402
from studies.frozen.models import tiny  # noqa: E402

from gradatim.comparison.runs import Study  # noqa: E402
from gradatim.files.checkpoint import read, write  # noqa: E402
from gradatim.language.prompts import answer_token, ordinary  # noqa: E402
from gradatim.prompting import (  # noqa: E402
    Reprogrammed,
    Reprogramming,
    cells,
    compare_reprogramming,
    in_context_learning,
    prefix_tuning,
    prompt_tuning,
    reprogram,
)

TEXTS = [f"{word} day {n}" for n in range(5) for word in ("good", "poor", "odd")]
LABELS = np.array(["yes", "no", "so"] * 5)
SIZES = {"steps": 3, "tokens": 4, "batch_size": 5}


def how_of(cell, **sizes):
    return Reprogramming(*cell, **(SIZES | sizes))


def labels_of(cell):
    return [["g", "h"], ["p"], ["o", "q"]] if cell[3] == "rule" else None


@pytest.mark.parametrize("cell", cells("language"), ids=str)
def test_a_cell_changes_no_weight_and_comes_back_from_its_file_bit_for_bit(cell, tmp_path):
    model = tiny()
    before = copy.deepcopy(model[0].state_dict())
    flags = [part.requires_grad for part in model[0].parameters()]
    found = reprogram(model, TEXTS, LABELS, how_of(cell), labels=labels_of(cell))
    said = found.predict_proba(TEXTS)
    np.testing.assert_allclose(said.sum(1), 1, atol=1e-12)  # float64
    assert list(model[0].state_dict()) == list(before)
    assert all(torch.equal(part, before[name]) for name, part in model[0].state_dict().items())
    assert flags == [part.requires_grad for part in model[0].parameters()]
    again = Reprogrammed.load(found.save(tmp_path / "delta"), tiny())
    assert np.array_equal(again.predict_proba(TEXTS), said)
    assert again.n_trainable == found.n_trainable
    assert again.predict(TEXTS[:2]).dtype == LABELS.dtype


@pytest.mark.parametrize(("location", "operator"), [("embedding", "additive"), ("hidden", "parametric")])
def test_a_delta_that_is_not_learnt_leaves_the_model_as_it_is(location, operator):
    model, tokenizer = tiny()
    how = how_of(("learnable", location, operator, "identity"), steps=0)
    found = reprogram((model, tokenizer), TEXTS, LABELS, how, labels=("g", "p", "o"))
    with torch.no_grad():
        alone = [model(**tokenizer(text, return_tensors="pt")).logits[0, -1] for text in TEXTS]
    places = [answer_token(tokenizer, word) for word in ("o", "g", "p")]
    wanted = torch.stack(alone)[:, [places[1], places[2], places[0]]]
    torch.testing.assert_close(found.logits(TEXTS), wanted, atol=1e-5, rtol=1e-5)  # padding, float32


def test_an_answer_does_not_depend_on_the_texts_beside():
    for how in (prompt_tuning, prefix_tuning, in_context_learning):
        found = reprogram(tiny(), TEXTS, LABELS, how_of(how.cell), labels=("g", "p", "o"))
        alone = found.predict_proba(["good"])
        beside = found.predict_proba(["good", "a much longer text than that"])
        np.testing.assert_allclose(beside[:1], alone, atol=1e-5)  # float32, sums in another order


def test_soft_tokens_and_prefixes_count_what_is_learnt():
    model = tiny()
    width, layers, kept = 16, 2, 8  # keys and values of one head of two
    assert reprogram(model, TEXTS, LABELS, how_of(prompt_tuning.cell)).n_trainable == 4 * width
    assert reprogram(model, TEXTS, LABELS, how_of(prefix_tuning.cell)).n_trainable == 4 * layers * 2 * kept
    added = how_of(("learnable", "embedding", "additive", "linear"))
    assert reprogram(model, TEXTS, LABELS, added).n_trainable == width + 3 * (width + 1)


def test_examples_in_the_prompt_are_those_of_the_task_one_of_each_class_in_turn():
    model, tokenizer = tiny()
    how = how_of(in_context_learning.cell, tokens=3)
    found = reprogram((model, tokenizer), TEXTS, LABELS, how, labels=("n", "s", "y"), ask=" is ")
    prompt = tokenizer.decode(found.adapter.kept["prompt"])
    lines = prompt.replace("<s>", "").strip("\n").split("\n")
    assert sorted(line[-1] for line in lines) == ["n", "s", "y"]
    for line in lines:
        text, answer = line[:-5], line[-1]
        assert LABELS[TEXTS.index(text)][0] == answer
        assert line[-5:-1] == " is "
    assert found.n_trainable == 0


def test_training_lowers_the_loss():
    loss = []
    for steps in (0, 60):
        cell = ("learnable", "hidden", "parametric", "identity")
        how = how_of(cell, steps=steps, learning_rate=0.03, batch_size=15)
        said = reprogram(tiny(), TEXTS, LABELS, how).predict_proba(TEXTS)
        _, codes = np.unique(LABELS, return_inverse=True)
        loss.append(-np.log(said[np.arange(15), codes]).mean())
    assert loss[1] < loss[0] - 0.1


def test_controls_are_always_there_and_learn_as_many_numbers():
    hows = [how_of(prompt_tuning.cell), how_of(in_context_learning.cell)]
    table = compare_reprogramming(tiny(), TEXTS, LABELS, hows, seed=3)
    assert [row["network"] for row in table.rows] == ["pretrained", "random"] * 3 + [""]
    assert [row["trainable"] for row in table.rows] == [64, 64, 0, 0, 51, 51, 0]


def test_labels_are_one_token():
    _, tokenizer = tiny()
    assert tokenizer.convert_ids_to_tokens(ordinary(tokenizer, 103)[:3]) == ["a", "b", "c"]
    assert answer_token(tokenizer, 7) == 7
    for label, sentence in (("good", "is 5 or an unknown"), (200, "tokens below"), (1.5, "labels are words")):
        with pytest.raises(ValueError, match=sentence):
            answer_token(tokenizer, label)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"X": [*TEXTS[:-1], "a" * 600]}, "text 14 .* take 60[0-9] tokens, and the model reads 512"),
        ({"X": [*TEXTS[:-1], "a" * 480], "how": in_context_learning}, "give max_tokens="),
        ({"X": [*TEXTS[:-1], " "]}, "row 14"),
        ({"X": [*TEXTS[:-1], None]}, "row 14"),
        ({"X": []}, "at least one text"),
        ({"y": ["yes"] * 15}, "two classes or more"),
        ({"labels": ("good", "p", "o")}, "a label is one token"),
        ({"labels": ("g", "p")}, "one entry for each of 3"),
        ({"labels": ("g", "g", "p")}, "two classes share"),
        ({"how": Reprogramming()}, "not built for a language"),
        ({"y": list(range(15)), "labels": None, "X": TEXTS[:14]}, "as many rows"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(change, sentence):
    how = change.get("how", prompt_tuning)
    how = how if how.location == "input" and how.configuration == "learnable" else how_of(how.cell)
    with pytest.raises(ValueError, match=sentence):
        reprogram(tiny(), change.get("X", TEXTS), change.get("y", LABELS), how, labels=change.get("labels"))


def test_long_texts_are_cut_where_that_is_asked_for():
    texts = [*TEXTS[:-1], TEXTS[-1] + "a" * 600]
    found = reprogram(tiny(), texts, LABELS, how_of(prompt_tuning.cell), max_tokens=20)
    assert len(found.adapter.encode(texts)[-1]) == 20


def test_a_model_without_a_padding_token_is_refused_only_where_nothing_can_pad():
    model, tokenizer = tiny()
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither a padding nor an end token"):
        reprogram((model, tokenizer), TEXTS, LABELS, how_of(prompt_tuning.cell))


def test_a_file_of_another_model_is_refused(tmp_path):
    found = reprogram(tiny(), TEXTS, LABELS, how_of(in_context_learning.cell))
    path = found.save(tmp_path / "delta")
    with pytest.raises(ValueError, match="other weights or shapes"):
        Reprogrammed.load(path, tiny(seed=1))
    tensors, header = read(path)
    write(tmp_path / "bad", {"align.outputs": tensors["align.outputs"]}, header)
    with pytest.raises(ValueError, match="must keep"):
        Reprogrammed.load(tmp_path / "bad", tiny())
    write(tmp_path / "bad", tensors | {"kept.prompt": torch.tensor([5, 103])}, header)
    with pytest.raises(ValueError, match="tokens of the prompt must be below 103"):
        Reprogrammed.load(tmp_path / "bad", tiny())


def test_the_study_runs_at_its_smallest_size(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    found = study_part.part(Study(tmp_path, 1, Console(quiet=True), isolated=False), smoke=True, seeds=1)
    assert found["claims"][1]["value"] == 0
    assert all(len(row) == len(table["columns"]) for table in found["listings"] for row in table["rows"])
