"""A language model that reads examples in its prompt: its cache, its labels, and prompts that cannot be read."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

from studies.frozen.models import tiny  # noqa: E402

from gradatim.language import InContextReader  # noqa: E402
from gradatim.language.reader import COMPACT, TEMPLATE  # noqa: E402
from gradatim.probing import boundaries, boundary  # noqa: E402

SHORT = {"template": "{a} {b} {label}\n", "system": "", "question": ""}


def rows(n=12, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, 2)) * [3.0, 0.1] + [10.0, 0.0]
    return X, np.where(np.arange(n) % 2, "yes", "no")


@pytest.mark.parametrize(
    "options",
    [
        SHORT,
        {"template": COMPACT},
        {"template": TEMPLATE, "system": "Name them.\n"},
        {**SHORT, "question": "Now:\n"},
    ],
    ids=["short", "compact", "published", "question"],
)
def test_the_cached_prefix_changes_no_answer(options):
    model, tokenizer = tiny()
    X, y = rows(8)
    reader = InContextReader(model, tokenizer, ("A", "B"), batch_size=3, **options).fit(X, y)
    points = rows(10, seed=1)[0]
    found = reader.predict_proba(points)
    np.testing.assert_allclose(found.sum(1), 1)
    for point, p in zip(points, found, strict=True):
        space = "" if options["template"] == COMPACT else " "
        tokens = torch.tensor([tokenizer(reader.prompt(point) + space)["input_ids"]])
        with torch.no_grad():
            logits = model(tokens).logits[0, -1].double()
        # behind a space, where the template has one
        scores = torch.stack([logits[tokenizer.convert_tokens_to_ids(label)] for label in ("A", "B")])
        np.testing.assert_allclose(scores.softmax(0), p, atol=1e-5)


def test_the_prompt_is_the_published_one_with_integers_of_the_examples_range():
    model, tokenizer = tiny()
    X, y = [[0.0, 5.0], [1.0, 15.0], [0.25, 10.0]], [1, 0, 1]
    reader = InContextReader(model, tokenizer, system="Name them.\n").fit(X, y)
    examples = "Input: 0 0\nLabel: Bar\nInput: 100 100\nLabel: Foo\nInput: 25 50\nLabel: Bar\n"
    asked = "What is the label for this input?\nInput: 50 -1\nLabel:"
    assert reader.prompt([0.5, 4.9]) == f"Name them.\n{examples}{asked}"
    assert reader.classes_.tolist() == [0, 1]
    digits = InContextReader(model, tokenizer, ("A", "B"), template="{a}{b}{label}", scale=9).fit(X, y)
    assert digits.prompt([0.5, 15.0]) == "00B99A24B49"


def test_points_that_round_alike_are_asked_once_and_answered_in_place():
    model, tokenizer = tiny()
    X, y = rows()
    reader = InContextReader(model, tokenizer, ("A", "B"), **SHORT).fit(X, y)
    points = np.repeat(X[:4], 3, axis=0)[::-1]
    once = reader.predict_proba(X[:4])
    np.testing.assert_allclose(reader.predict_proba(points), np.repeat(once, 3, axis=0)[::-1], atol=1e-6)
    assert set(reader.predict(points)) <= {"no", "yes"}
    assert reader.predict_proba(np.zeros((0, 2))).shape == (0, 2)


def test_labels_that_begin_alike_are_told_by_the_first_token_that_differs():
    model, tokenizer = tiny()
    X, y = rows(6)
    reader = InContextReader(model, tokenizer, ("label-A", "label-B"), **SHORT).fit(X, y)
    assert tokenizer.decode(reader._ending.shared) == " label-"
    tokens = tokenizer(reader.prompt(X[0]) + " label-", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(tokens).logits[0, -1].double()
    ids = [tokenizer.convert_tokens_to_ids(label) for label in "AB"]
    np.testing.assert_allclose(reader.predict_proba(X[:1])[0], logits[ids].softmax(0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ("A", "A")}, "two different words"),
        ({"labels": ("A",)}, "two different words"),
        ({"labels": ("A", " ")}, "two different words"),
        ({"template": "{a} {label}\n"}, "has the fields"),
        ({"template": "{label} {a} {b}\n"}, "as the last one"),
    ],
)
def test_readers_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        InContextReader(*tiny(), **options)


@pytest.mark.parametrize(
    ("X", "y", "options", "words"),
    [
        (rows(4)[0], [1, 1, 1, 1], SHORT, "y has 1 class and there are 2 labels"),
        (rows(4)[0], [1, 2, 3, 4], SHORT, "y has 4 classes"),
        (rows(4)[0], [1, 2], SHORT, "one label"),
        (np.zeros((4, 3)), [1, 2, 1, 2], SHORT, "two columns"),
        ([["a", "b"]] * 4, [1, 2, 1, 2], SHORT, "no numbers"),
        (np.full((4, 2), np.inf), [1, 2, 1, 2], SHORT, "finite"),
        (*rows(200), SHORT, "tokens, and the model has 512 positions: give at most about"),
        (*rows(4), {"template": COMPACT, "labels": ("A", "AB")}, "no single token"),
        (rows(6)[0], [1, 2, 3, 1, 2, 3], {**SHORT, "labels": ("AB", "AC", "D")}, "no single token"),
    ],
)
def test_examples_that_cannot_be_read_are_refused(X, y, options, words):
    reader = InContextReader(*tiny(), **{"labels": ("A", "B"), **options})
    with pytest.raises(ValueError, match=words):
        reader.fit(X, y)


def test_a_reader_that_has_read_nothing_and_a_tokenizer_without_padding_say_so():
    model, tokenizer = tiny()
    with pytest.raises(ValueError, match="call fit"):
        InContextReader(model, tokenizer).predict_proba([[0, 0]])
    with pytest.raises(ValueError, match="call fit"):
        InContextReader(model, tokenizer).prompt([0, 0])
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither a padding nor an end token"):
        InContextReader(model, tokenizer)


def test_a_boundary_is_drawn_of_a_reader_and_the_reader_stays_as_it_was():
    model, tokenizer = tiny()
    reader = InContextReader(model, tokenizer, ("A", "B"), **SHORT)
    X, y = rows()
    steps = boundaries(reader, X, y, 5, batch_size=6)
    assert not hasattr(reader, "classes_") and len(steps) == 2
    again = boundary(reader.fit(X, y), X, y, 5)
    np.testing.assert_allclose(again.probabilities, steps[-1].probabilities, atol=1e-6)


def test_tuning_teaches_a_model_its_labels():
    """A tiny random model begins at the log of all tokens, and learns at least that few of them are labels."""
    pytest.importorskip("peft")
    from studies.frozen.boundary_tuning import LABELS, Tuning, label_loss, linear_task, text, tuned

    model, tokenizer = tiny()
    generator = np.random.default_rng(0)
    texts = [text(*linear_task(16, generator)) for _ in range(8)]
    names = torch.tensor(tokenizer.convert_tokens_to_ids(list(LABELS)))
    with torch.no_grad():
        before = float(label_loss(model, tokenizer, texts, names))
    adapted, _ = tuned(model, tokenizer, Tuning(steps=30, rows=64, rank=8, rate=1e-2, longest=16), seed=0)
    with torch.no_grad():
        after = float(label_loss(adapted, tokenizer, texts, names))
    assert before == pytest.approx(np.log(len(tokenizer)), abs=0.3)
    assert after < before - 0.1
