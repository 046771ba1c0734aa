"""Batch and Task: what they refuse, and the laws of cutting them up."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.batch import Batch, Task


def rows(b=3, n=7, dx=2, dy=1, mask=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(b, n, dx, generator=g), torch.randn(b, n, dy, generator=g), mask)


def ragged(lengths, n):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


X, Y = torch.zeros(2, 3, 4), torch.zeros(2, 3, 1)
FULL = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("x", "y", "mask", "said"),
    [
        ([[1.0]], Y, None, "x must be a tensor"),
        (X[0], Y, None, r"x must have at least three dimensions.*\(3, 4\)"),
        (X, Y[..., 0], None, r"y must have at least three dimensions.*\(2, 3\)"),
        (X, Y[:, :2], None, r"agree in \[tasks, rows\]"),
        (X[:, :0], Y[:, :0], None, "needs tasks, rows and columns"),
        (X[:0], Y[:0], None, "needs tasks, rows and columns"),
        (X[..., :0], Y, None, "needs tasks, rows and columns"),
        (X.int(), Y, None, "x must be floating point, or int64 for tokens; got torch.int32"),
        (X, Y.int(), None, "y must be floating point, or int64.*int32"),
        (X, Y.bool(), None, "y must be floating point, or int64"),
        (X, torch.zeros(2, 3, 2, dtype=torch.int64), None, "class indices must have width 1"),
        (X, Y, FULL.int(), "weight must be floating point or bool"),
        (X, Y, -FULL.float(), r"weights must be finite and at least 0; got -1.0 at task 0, row 0"),
        (X, Y, FULL / 0.0, "weights must be finite and at least 0; got inf"),
        (X, Y, FULL.double() * 1e39, "got 1e.39 at task 0, row 0, too large for torch.float32"),
        (X, Y, [1.0], r"weight must be a tensor \[tasks, rows\]; got list"),
        (X, Y, FULL[:, :2], r"weight must be floating point or bool, \(2, 3\)"),
        (X, Y, ~FULL, r"weight is 0 in all rows of tasks \[0, 1\]"),
        (X, Y, ragged([2, 0], 3), r"weight is 0 in all rows of tasks \[1\]"),
        (X.to("meta"), Y, None, "on one device"),
    ],
)
def test_batch_refuses(x, y, mask, said):
    with pytest.raises(ValueError, match=said):
        Batch(x, y, mask)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["x", "y"])
def test_not_finite_is_refused_where_the_row_is_there(bad, name):
    parts = {"x": X.clone(), "y": Y.clone()}
    parts[name][1, 2, 0] = bad
    with pytest.raises(ValueError, match=f"{name} must be finite.*task 1, row 2, column 0"):
        Batch(**parts)
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        Batch(**parts, weight=ragged([1, 3], 3))
    batch = Batch(**parts, weight=ragged([3, 2], 3))
    assert getattr(batch, name)[1, 2].eq(0).all(), "what stands in a masked row is zeroed"


def test_masked_rows_of_classes_are_zeroed_and_present_rows_kept():
    labels = torch.tensor([[[3], [2], [7]]])
    batch = Batch(torch.full((1, 3, 2), 5.0), labels, ragged([2], 3))
    assert batch.y.flatten().tolist() == [3, 2, 0]
    assert batch.x[0, :, 0].tolist() == [5.0, 5.0, 0.0]
    assert batch.rows.tolist() == [2]


def test_batch_is_frozen():
    with pytest.raises(AttributeError):
        rows().x = X


@given(n=st.integers(1, 12), size=st.integers(1, 14))
@settings(max_examples=40, deadline=None)
def test_split_is_a_partition_in_order(n, size):
    batch = rows(n=n, mask=ragged([n, 1, max(1, n // 2)], n))
    parts = list(batch.split(size))
    assert [p.n_rows for p in parts[:-1]] == [size] * (len(parts) - 1)
    assert 1 <= parts[-1].n_rows <= size
    for name in ("x", "y", "weight"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts], dim=1), getattr(batch, name))
    assert torch.equal(sum(p.rows for p in parts), batch.rows)


def test_split_refuses_size_zero():
    with pytest.raises(ValueError, match="at least one row; got size 0"):
        next(rows().split(0))
    with pytest.raises(ValueError, match="at least one row; got size -1"):
        rows().starts(-1)


@given(start=st.integers(0, 7), stop=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_slice_is_python_slicing(start, stop):
    batch = rows(mask=ragged([7, 3, 1], 7))
    part = batch.slice(start, stop)
    assert torch.equal(part.x, batch.x[:, start:stop])
    assert torch.equal(part.mask, batch.mask[:, start:stop])


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_prefixes_are_the_slices(lengths):
    batch = rows(mask=ragged([7, 3, 1], 7))
    many = batch.prefixes(torch.tensor(lengths))
    assert many.n_tasks == 3 * len(lengths)
    for b in range(3):
        for p, length in enumerate(lengths):
            i = b * len(lengths) + p
            kept = many.mask[i]
            assert torch.equal(kept[:length], batch.mask[b, :length])
            assert not kept[length:].any()
            assert torch.equal(many.x[i][kept], batch.x[b][:length][batch.mask[b, :length]])


def test_repeat_puts_copies_side_by_side():
    batch = rows()
    twice = batch.repeat(2)
    assert torch.equal(twice.x[0::2], batch.x)
    assert torch.equal(twice.x[1::2], batch.x)
    assert torch.equal(twice.tasks(torch.tensor([0, 2, 4])).y, batch.y)
    assert batch.repeat(1) is batch


def test_to_keeps_class_indices():
    batch = Batch(X, torch.ones(2, 3, 1, dtype=torch.int64)).to(torch.float64)
    assert batch.x.dtype == torch.float64
    assert batch.y.dtype == torch.int64


@pytest.mark.parametrize("query", [rows(b=2), rows(dx=3), rows(dy=2)])
def test_task_refuses_parts_that_do_not_fit(query):
    with pytest.raises(ValueError, match="same tasks with rows of the same widths"):
        Task(rows(), query)


def test_an_integer_target_stays_one_in_another_dtype():
    rows = Batch(torch.randn(2, 3, 1), torch.randn(2, 3, 1))
    task = Task(rows, rows, target=torch.arange(4).view(2, 2), truth=torch.randn(2, 3, 1)).to(torch.float64)
    assert task.target.dtype == torch.int64
    assert task.truth.dtype == torch.float64


# --- weights, tokens, ragged tasks


def test_a_weight_counts_rows_and_zero_is_an_absent_row():
    x, y = torch.ones(1, 3, 2), torch.ones(1, 3, 1)
    batch = Batch(x, y, torch.tensor([[0.5, 0.0, 2.0]]))
    assert batch.rows.tolist() == [2.5] and batch.mask.tolist() == [[True, False, True]]
    assert batch.is_weighted and batch.slice(0, 2).is_weighted
    assert batch.x[0, 1].eq(0).all()
    assert not Batch(x, y).is_weighted and not Batch(x, y, batch.mask).is_weighted
    assert not Batch(x, y, batch.mask.float()).is_weighted


@pytest.mark.parametrize("x", [torch.rand(2, 3, 1, 4, 4), torch.randint(9, (2, 3, 7))])
def test_rows_may_be_images_or_tokens(x):
    batch = Batch(x, torch.zeros(2, 3, 1), ragged([3, 1], 3))
    assert batch.x.shape == x.shape and batch.x[1, 1:].eq(0).all() and batch.x.dtype == x.dtype
    assert batch.prefixes(torch.tensor([1, 3])).x.shape == (4, *x.shape[1:])
    assert batch.to(torch.float64).x.dtype == (torch.float64 if x.is_floating_point() else torch.int64)


def test_ragged_tasks_become_one_batch():
    parts = [(torch.randn(n, 2), torch.randn(n, 1), torch.rand(n) + 0.5) for n in (3, 1, 5)]
    batch = Batch.from_rows(parts)
    assert batch.x.shape == (3, 5, 2) and batch.mask.sum(1).tolist() == [3, 1, 5]
    for b, (x, y, weight) in enumerate(parts):
        assert torch.equal(batch.x[b, : len(x)], x) and torch.equal(batch.y[b, : len(x)], y)
        assert torch.equal(batch.weight[b, : len(x)], weight)
    again = Batch.from_rows([batch.tasks(torch.tensor([b])) for b in range(3)])
    assert torch.equal(again.x, batch.x) and torch.equal(again.weight, batch.weight)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([], "at least one task"),
        ([torch.ones(2, 1)], r"task 0 must be a Batch or a tuple \(x, y\)"),
        ([([1.0], torch.ones(1, 1))], "x of task 0 must be a tensor; got list"),
        ([(torch.ones(2, 1), torch.ones(2, 1)), (torch.ones(2, 3), torch.ones(2, 1))], "x of task 1"),
    ],
)
def test_ragged_tasks_that_do_not_fit_are_refused(tasks, said):
    with pytest.raises(ValueError, match=said):
        Batch.from_rows(tasks)
