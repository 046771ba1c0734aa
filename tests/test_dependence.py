"""Support dependence: who reads the answers of a support, and who does not."""

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression as Line
from sklearn.neighbors import KNeighborsClassifier

from gradatim.batch import Batch, Task
from gradatim.families import LinearClassification, LinearRegression
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.predictor import Predictor
from gradatim.probing import Dependence, support_dependence
from gradatim.refiners import SGD
from gradatim.signal import GRADIENTS


def tasks(family=None, count=10, seed=0):
    family = family or LinearRegression(3, 0.1, support_rows=20, query_rows=8, min_support_rows=5)
    return family.sample(count, torch.Generator().manual_seed(seed))


class Deaf(Predictor):
    """A line through x that no state moves: as a learner that has memorised its tasks."""

    latent_shape, output_dim = (1,), 1

    def forward(self, x, latent):
        return x.sum(-1, keepdim=True) + 0 * latent[:, None]

    def row_loss(self, batch, latent, generator=None):
        return (self(batch.x, latent) - batch.y).square().sum(-1)


def test_a_learner_that_does_not_read_its_support_has_no_gap():
    deaf = Learner(Deaf(), SGD(torch.zeros(1), 0.1), GRADIENTS)
    found = support_dependence(deaf, tasks())
    assert found.gap == 0 and found.error == found.error_shuffled > 0


def test_the_errors_are_those_of_the_learner_by_hand():
    family = LinearRegression(3, 0.1, support_rows=20, query_rows=8)
    task, learner = tasks(family), build("ridge", family)
    found = support_dependence(learner, task, repeats=3, batch_size=4)
    with torch.no_grad():
        outputs = learner.predict(task.query.x, learner.adapt(task.support, 4))
    assert found.error == pytest.approx((outputs - task.query.y).square().mean().item(), rel=1e-6)
    # answers that say nothing of x: about the error of the mean
    assert 0.5 < found.error_shuffled / task.query.y.var().item() < 2
    assert found.gap == pytest.approx(found.error_shuffled - found.error)
    assert found == support_dependence(learner, task, repeats=3, batch_size=4)
    assert found != support_dependence(learner, task, repeats=3, batch_size=4, seed=1)


def test_estimators_learners_and_arrays_agree():
    """Least squares is ridge of no strength: on tasks with absent rows, one after the other and all at once."""
    family = LinearRegression(3, 0.1, support_rows=20, query_rows=8)
    task = tasks(family)
    ours = support_dependence(build("ridge", family, strength=1e-6), task)
    theirs = support_dependence(Line(fit_intercept=False), task)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    ragged = tasks()
    one = [support_dependence(Line(), ragged, repeats=2).error]
    each = []
    for b in range(ragged.n_tasks):
        rows = ragged.support.mask[b]
        parts = (ragged.support.x[b, rows], ragged.support.y[b, rows, 0])
        parts += (ragged.query.x[b], ragged.query.y[b, :, 0])
        each.append(support_dependence(Line(), tuple(part.numpy() for part in parts), repeats=2).error)
    assert one[0] == pytest.approx(np.mean(each), rel=1e-6)


def test_classes_of_estimators_may_be_words():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 2))
    y = np.where(x[:, 0] > 0, "right", "left")
    task = (x[:40], y[:40], x[40:], y[40:])
    near = KNeighborsClassifier(3)
    assert support_dependence(near, task).gap > 0.2
    assert not hasattr(near, "classes_")
    assert support_dependence(DummyClassifier(), task).gap == 0
    letters = LinearClassification(3, 3, support_rows=20, query_rows=8)
    assert support_dependence(near, tasks(letters)).gap > 0.1
    assert support_dependence(build("kernel", letters), tasks(letters)).gap > 0.1  # a per-query learner


def test_a_shuffle_changes_an_answer_even_of_two_rows():
    rows = Batch(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[1.0], [-1.0]]]))
    found = support_dependence(Line(fit_intercept=False), Task(rows, rows), repeats=4)
    assert found == Dependence(0.0, 4.0, 4.0)


def test_absent_rows_take_no_part():
    present = torch.tensor([[True, True, False]])
    x = torch.tensor([[[1.0], [-1.0], [5.0]]])
    rows = Batch(x, x.clone(), present)
    family = LinearRegression(1)
    found = support_dependence(build("ridge", family, strength=1e-6), Task(rows, rows.slice(0, 2)), repeats=4)
    np.testing.assert_allclose(found, (0, 4, 4), atol=1e-4)


def test_misuse_is_refused_with_a_sentence():
    one = Batch(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    flat = Batch(torch.randn(2, 3, 1), torch.ones(2, 3, 1))
    classes = Batch(torch.randn(1, 3, 1), torch.full((1, 3, 1), 2))
    line, learner = Line(), build("ridge", LinearRegression(1))
    for arguments, said in (
        ((line, Task(one, one)), "the support of task 0 has one row: shuffling it changes nothing"),
        ((learner, Task(one, one)), "the support of task 0 has one row"),
        ((line, Task(flat, flat)), r"task 0 has the same answer, 1.0, in all rows"),
        ((line, Task(classes, classes)), r"task 0 has the same answer, 2, in all rows"),
        ((line, (1, 2, 3)), r"tuple \(X, y, X_query, y_query\); got tuple of 3"),
        ((line, ([[1], [2]], [1], [[1]], [1])), "as many answers as rows"),
        ((learner, ([[1], [2]], [1, 2], [[1]], [1])), "a learner's tasks come as a Task; got tuple"),
        ((object(), Task(flat, flat)), r"anything with fit\(X, y\) and predict\(X\); got object"),
        ((line, Task(flat, flat), 0), "repeats must be a whole number of at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            support_dependence(*arguments)


def test_whole_numbers_are_numbers_to_an_estimator_that_answers_with_numbers():
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = np.rint(10 * x[:, 0]).astype(int)
    found = support_dependence(Line(), (x[:40], y[:40], x[40:], y[40:]))
    assert found.error < 1 < found.gap
