"""Task families: their numbers against closed forms, their draws against their laws, their refusals."""

import dataclasses
import gzip
import math
import struct

import numpy as np
import pytest
import torch

from gradatim.families import (
    ImageClassification,
    LinearClassification,
    LinearRegression,
    RandomNetworkRegression,
)
from gradatim.families.datasets import _pools
from gradatim.families.images import load_images, read_idx
from gradatim.families.sampling import draw_disjoint, permutations

FAMILIES = [
    LinearRegression(5, 0.5),
    LinearRegression(5, 0.5, 30.0),
    LinearClassification(5, 3),
    RandomNetworkRegression(5, 7, 0.1),
    ImageClassification("digits", 9, 10, "test"),
    ImageClassification("digits", 9, 4, "train"),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
class TestEveryFamily:
    def test_shapes_and_dtypes(self, family):
        task = family.sample(3, seeded())
        width = 1 if family.likelihood.classes else family.likelihood.y_dim
        assert task.support.x.shape == (3, 160, family.x_dim)
        assert task.query.x.shape == (3, 64, family.x_dim)
        assert task.support.y.shape == (3, 160, width)
        assert task.support.x.dtype == torch.float32
        assert task.support.y.dtype == (torch.int64 if family.likelihood.classes else torch.float32)
        if family.likelihood.classes:
            assert int(task.support.y.max()) < family.likelihood.classes
        if task.truth is not None:
            assert task.truth.shape == (3, 64, family.likelihood.classes or 1)
            assert task.truth.dtype == torch.float32

    def test_same_generator_state_same_tasks_bit_for_bit(self, family):
        g = seeded(3)
        one, two, three = family.sample(4, g), family.sample(4, seeded(3)), family.sample(4, g)
        assert torch.equal(one.support.x, two.support.x)
        assert torch.equal(one.query.y, two.query.y)
        assert not torch.equal(one.support.x, three.support.x)

    def test_ragged_supports_keep_their_first_rows(self, family):
        ragged = dataclasses.replace(family, support_rows=12, min_support_rows=5)
        whole = dataclasses.replace(family, support_rows=12)
        task, full = ragged.sample(400, seeded()), whole.sample(400, seeded())
        mask = task.support.mask
        assert set(task.support.rows.tolist()) == set(range(5, 13))
        assert not (mask[:, 1:] & ~mask[:, :-1]).any(), "no present row after an absent one"
        assert torch.equal(task.support.x[mask], full.support.x[mask]), (
            "the rows are those of the full support"
        )
        assert task.support.x[~mask].eq(0).all()
        assert task.query.mask.all()

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"support_rows": 0}, "support_rows must be an integer of at least 1; got 0"),
            ({"query_rows": -1}, "query_rows must be"),
            ({"query_rows": 2.0}, "query_rows must be an integer.*got 2.0"),
            ({"min_support_rows": 0}, "min_support_rows must be"),
            ({"min_support_rows": 161}, "at most support_rows = 160; got 161"),
            ({"dim": 0}, "dim must be"),
            ({"dim": True}, "dim must be"),
        ],
    )
    def test_bad_fields(self, family, fields, said):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(family, **fields)

    def test_bad_arguments_of_sample(self, family):
        with pytest.raises(ValueError, match="n_tasks must be an integer of at least 1; got 0"):
            family.sample(0, seeded())
        with pytest.raises(ValueError, match=r"explicit torch.Generator; got int"):
            family.sample(2, 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LinearRegression(8, 0.0), "noise_std must be a finite number above 0; got 0.0"),
        (lambda: LinearRegression(8, math.nan), "noise_std must be"),
        (lambda: LinearRegression(8, "0.5"), "noise_std must be"),
        (lambda: LinearRegression(8, 0.5, 1.0), "condition must be a finite number above 1"),
        (lambda: LinearRegression(1, 0.5, 2.0), "dim of at least 2"),
        (lambda: LinearClassification(8, 1), "classes must be an integer of at least 2; got 1"),
        (lambda: RandomNetworkRegression(8, 0), "hidden must be"),
        (lambda: RandomNetworkRegression(8, 4, -0.1), "noise must be a finite number of at least 0"),
        (lambda: ImageClassification("digit"), "did you mean 'digits'"),
        (lambda: ImageClassification("FashionMNIST"), "did you mean 'fashion_mnist'"),
        (lambda: ImageClassification(ways=1), "ways must be"),
        (lambda: ImageClassification(split="dev"), "split must be one of train, validation, test; got 'dev'"),
        (
            lambda: ImageClassification(ways=11).sample(1, seeded()),
            "ways must be at most the 10 classes of digits",
        ),
        (lambda: ImageClassification(query_rows=5000).sample(1, seeded()), "query_rows must leave rows"),
        (lambda: LinearRegression(8).covariance_roots(2, seeded()), "give it a condition"),
        (lambda: LinearRegression(8).oracle(LinearRegression(4).sample(1, seeded())), "x of width 8.*got 4"),
        (lambda: LinearRegression(8).oracle(LinearRegression(8).sample(1, seeded()), -1), "rows must be"),
    ],
)
def test_refusals(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# Linear regression.


@pytest.mark.parametrize("rows", [0, 3, 20, None])
def test_oracle_is_the_closed_form(rows):
    family = LinearRegression(4, 0.7, support_rows=20, query_rows=6, min_support_rows=2)
    task = family.sample(5, seeded(1))
    answer, risk = family.oracle(task, rows), family.oracle_risk(task, rows)
    assert answer.dtype == risk.dtype == torch.float32
    for b in range(5):
        kept = task.support.mask[b].numpy().copy()
        kept[20 if rows is None else rows :] = False
        x, y = (part[b].double().numpy()[kept] for part in (task.support.x, task.support.y))
        xq = task.query.x[b].double().numpy()
        cov = np.linalg.inv(np.eye(4) + x.T @ x / 0.7**2)
        np.testing.assert_allclose(answer[b].numpy(), xq @ cov @ x.T @ y / 0.7**2, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(risk[b].item(), np.mean(np.sum(xq @ cov * xq, axis=1)), rtol=1e-5)


def test_oracle_reads_the_mask_of_prefixes():
    family = LinearRegression(4, 0.5, support_rows=10)
    task = family.sample(2, seeded())
    prefixed = dataclasses.replace(task, support=task.support.prefixes(torch.tensor([6])))
    torch.testing.assert_close(family.oracle(prefixed), family.oracle(task, 6))


@pytest.mark.parametrize("condition", [None, 50.0])
@pytest.mark.parametrize("rows", [4, 16, 64])
def test_oracle_risk_is_the_measured_risk(condition, rows):
    family = LinearRegression(6, 0.5, condition, support_rows=64, query_rows=32)
    task = family.sample(3000, seeded(2)).to(torch.float64)
    measured = (family.oracle(task, rows) - task.truth).square().mean(dim=(1, 2))
    gap = measured - family.oracle_risk(task, rows)
    error = gap.std() / math.sqrt(3000)
    assert abs(gap.mean()) < 3.5 * error, f"{gap.mean():.2e} against a standard error of {error:.2e}"
    assert error < 0.03 * measured.mean(), "the check must have the power to see three per cent"


def test_regression_noise_and_prior_have_their_sizes():
    task = LinearRegression(8, 0.5, support_rows=1, query_rows=100).sample(2000, seeded())
    assert (task.query.y - task.truth).std().item() == pytest.approx(0.5, rel=0.01)
    assert task.truth.square().mean().item() == pytest.approx(8.0, rel=0.05)


def test_condition_number_and_trace_are_exact():
    family = LinearRegression(6, 0.5, 100.0)
    roots = family.covariance_roots(50, seeded())
    values = torch.linalg.eigvalsh(roots @ roots.mT)
    torch.testing.assert_close(
        values[:, -1] / values[:, 0], torch.full((50,), 100.0).double(), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(values.sum(dim=1), torch.full((50,), 6.0).double())
    steps = values.log().diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, math.log(100) / 5))
    assert (roots[0] - roots[1]).abs().max() > 0.1, "each task has a basis of its own"


def test_rows_have_the_covariance_of_their_task():
    family = LinearRegression(4, 0.5, 20.0, support_rows=20000, query_rows=1)
    x = family.sample(3, seeded()).support.x.double()
    values = torch.linalg.eigvalsh(x.mT @ x / 20000)
    expected = torch.linspace(0, -math.log(20), 4).double().exp()
    expected = (expected * 4 / expected.sum()).flip(0)
    torch.testing.assert_close(values, expected.expand(3, 4), rtol=0.06, atol=0)


# Linear classification, random networks.


def test_class_probabilities_are_calibrated():
    task = LinearClassification(8, 4, support_rows=1, query_rows=200).sample(500, seeded())
    p = task.truth.softmax(dim=2).reshape(-1, 4)
    hit = torch.nn.functional.one_hot(task.query.y.flatten(), 4).float()
    for low in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        inside = (p >= low) & (p < low + 0.2)
        error = math.sqrt(0.25 / int(inside.sum()))
        assert abs(p[inside].mean() - hit[inside].mean()) < 4 * error
    assert task.truth.var().item() == pytest.approx(9.0, rel=0.05)


def test_positional_fields_are_those_of_the_documentation():
    family = LinearClassification(8, 4)
    assert (family.dim, family.likelihood.classes, family.x_dim) == (8, 4, 8)
    assert LinearRegression(8, 0.5).likelihood.classes is None
    with pytest.raises(TypeError):
        LinearRegression(8, 0.5, classes=3)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_network_noise_is_its_share_of_the_signal(noise):
    family = RandomNetworkRegression(6, 32, noise, support_rows=1, query_rows=2000)
    task = family.sample(200, seeded())
    share = (task.query.y - task.truth).std(dim=1) / task.truth.std(dim=1)
    assert share.mean().item() == pytest.approx(noise, rel=0.02)
    assert share.std() <= 0.08 * noise, "512 fresh rows fix the deviation to a few per cent in every task"


def test_network_signal_has_the_size_its_weights_give():
    """Var f = 2 E tanh(a)^2 with a ~ N(0, 2 |x|^2 / dim); by quadrature over |x|^2 and a in numpy."""
    rng = np.random.default_rng(0)
    scale = np.sqrt(2 * rng.chisquare(6, 400_000) / 6)
    expected = 2 * np.mean(np.tanh(scale * rng.standard_normal(400_000)) ** 2)
    task = RandomNetworkRegression(6, 32, 0.1, support_rows=1, query_rows=200).sample(2000, seeded())
    assert task.truth.square().mean().item() == pytest.approx(expected, rel=0.03)


# Images.


def hashes(pool):
    return [row.tobytes() for row in pool.images.numpy()]


def test_digits_pools_are_disjoint_stratified_and_complete():
    pools = _pools("digits", None)
    sizes = {split: len(pool.images) for split, pool in pools.items()}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] == pytest.approx(0.35 * 1797, abs=5)
    assert sizes["train"] == pytest.approx(0.4 * 1797, abs=5)
    for split, share in (("train", 0.4), ("validation", 0.25), ("test", 0.35)):
        total = sum(pool.counts for pool in pools.values())
        assert (pools[split].counts - share * total).abs().max() <= 1.0
    sets = {split: set(hashes(pool)) for split, pool in pools.items()}
    assert not sets["train"] & sets["test"]
    assert not sets["train"] & sets["validation"]
    assert not sets["validation"] & sets["test"]


@pytest.mark.parametrize("ways", [10, 4])
def test_no_query_image_stands_in_the_support(ways):
    task = ImageClassification("digits", 12, ways, "test", support_rows=900, query_rows=50).sample(
        6, seeded()
    )
    for b in range(6):
        support = {row.tobytes() for row in task.support.x[b].numpy()}
        query = {row.tobytes() for row in task.query.x[b].numpy()}
        assert len(query) == 50
        assert not support & query


def test_on_changes_the_pool_and_nothing_else():
    family = ImageClassification("digits", 12, 5, "train", support_rows=40)
    assert family.on("test") == ImageClassification("digits", 12, 5, "test", support_rows=40)
    with pytest.raises(ValueError, match="split must be one of"):
        family.on("evaluation")
    simulated = LinearRegression(8)
    assert simulated.on("test") is simulated


def test_support_is_drawn_without_replacement_then_in_passes():
    pool = len(_pools("digits", None)["validation"].images)
    left = pool - 30
    family = ImageClassification("digits", 12, 10, "validation", support_rows=2 * left, query_rows=30)
    x = family.sample(3, seeded()).support.x.numpy()
    for b in range(3):
        first, second = ([row.tobytes() for row in part] for part in (x[b, :left], x[b, left:]))
        assert len(set(first)) == left
        assert set(first) == set(second)
        assert first != second, "each pass has an order of its own"


@pytest.mark.parametrize("ways", [10, 4])
def test_relabelling_is_uniform(monkeypatch, ways):
    """Which number one true class gets (none, where it is left out) over 2000 tasks: a chi-square test."""

    def reveal(self, pool, index, generator):
        return index[..., None].double()

    monkeypatch.setattr(ImageClassification, "_features", reveal)
    task = ImageClassification("digits", 1, ways, support_rows=200, query_rows=20).sample(2000, seeded())
    images, labels = torch.cat((task.support.x, task.query.x), dim=1)[..., 0].long(), task.support.y[..., 0]
    assert all(len(set(row)) == 220 for row in images.tolist()), "no image twice, none in support and query"
    pool = _pools("digits", None)["train"]
    true = torch.searchsorted(pool.starts, images[:, :200].contiguous(), right=True) - 1
    table = torch.full((2000, 10), -1)
    table.scatter_(1, true, labels)
    assert torch.equal(table.gather(1, true), labels), "one true class, one number"
    assert ((table >= 0).sum(dim=1) == ways).all()
    for true_class in (0, 7):
        counts = torch.bincount(table[:, true_class] + 1, minlength=ways + 1)[1:].double()
        assert ((counts - 200).square() / 200).sum() < 27.9, "p = 0.001 at 9 degrees of freedom"


def test_labels_follow_the_images():
    """Equal labels are equal classes: a nearest-mean rule on many features does far better than chance."""
    task = ImageClassification("digits", 64, 10, "test", support_rows=500, query_rows=64).sample(8, seeded())
    one_hot = torch.nn.functional.one_hot(task.support.y[..., 0], 10).float()
    means = (one_hot.mT @ task.support.x) / one_hot.sum(dim=1)[..., None]
    guess = torch.cdist(task.query.x, means).argmin(dim=2)
    assert (guess == task.query.y[..., 0]).float().mean() > 0.75


def test_features_are_standardised_over_the_training_pool():
    n = len(_pools("digits", None)["train"].images)
    family = ImageClassification("digits", 16, support_rows=n - 1, query_rows=1)
    task = family.sample(4, seeded())
    x = torch.cat((task.support.x, task.query.x), dim=1).double()
    torch.testing.assert_close(x.mean(dim=1), torch.zeros(4, 16).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(x.var(dim=1, correction=0), torch.ones(4, 16).double(), rtol=1e-4, atol=0)
    other = ImageClassification("digits", 16, split="test", support_rows=600).sample(20, seeded()).support.x
    assert abs(other.mean()) < 0.05
    assert other.std().item() == pytest.approx(1.0, abs=0.05)


# Drawing without replacement.


@pytest.mark.parametrize(("size", "length"), [(7, 3), (400, 30)], ids=["keys", "rejection"])
def test_permutations_are_uniform(size, length):
    drawn = permutations(torch.full((20000,), size), length, seeded())
    assert all(len(set(row)) == length for row in drawn[:500].tolist())
    for place in (0, length - 1):
        counts = torch.bincount(drawn[:, place], minlength=size).double()
        expected = 20000 / size
        statistic = ((counts - expected).square() / expected).sum()
        assert abs(statistic - (size - 1)) < 4.5 * math.sqrt(2 * (size - 1))


@pytest.mark.parametrize("sizes", [[5, 9, 7], [300, 500, 20], [60000, 1000, 999]])
@pytest.mark.parametrize("n_support", [3, 15, 2500])
def test_draws_are_disjoint_and_balanced(sizes, n_support):
    query, support = draw_disjoint(torch.tensor(sizes), 4, n_support, seeded())
    for b, size in enumerate(sizes):
        assert len(set(query[b].tolist())) == 4
        assert not set(query[b].tolist()) & set(support[b].tolist())
        assert 0 <= int(torch.cat((query[b], support[b])).min())
        assert int(torch.cat((query[b], support[b])).max()) < size
        repeats = torch.bincount(support[b], minlength=size)
        assert repeats.max() - repeats[repeats > 0].min() <= 1
        assert repeats.max() == math.ceil(n_support / (size - 4))


# Files.


def write_idx(path, array):
    raw = (
        b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    parts = {}
    for part, n in (("train", 120), ("test", 60)):
        parts[part] = (rng.integers(0, 256, (n, 5, 4), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 3 + 1)
    return parts


def fill(folder, drawn, ending):
    folder.mkdir(parents=True)
    for part, stem in (("train", "train"), ("test", "t10k")):
        write_idx(folder / f"{stem}-images-idx3-ubyte{ending}", drawn[part][0])
        write_idx(folder / f"{stem}-labels-idx1-ubyte{ending}", drawn[part][1])


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read(tmp_path, monkeypatch, drawn, ending):
    fill(tmp_path / "images" / "kmnist", drawn, ending)
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    family = ImageClassification("kmnist", 6, 3, "test", support_rows=40, query_rows=10)
    assert family.sample(2, seeded()).support.x.shape == (2, 40, 6)
    pools = _pools("kmnist", tmp_path / "images" / "kmnist")
    assert {split: len(pool.images) for split, pool in pools.items()} == {
        "train": 108,
        "validation": 12,
        "test": 60,
    }
    with pytest.raises(ValueError, match="at most the 3 classes of kmnist; got 10"):
        ImageClassification("kmnist", 6).sample(1, seeded())


@pytest.mark.parametrize("form", ["one", "kmnist", "floats"])
def test_npz_files_are_read(tmp_path, drawn, form):
    (train_x, train_y), (test_x, test_y) = drawn["train"], drawn["test"]
    if form == "one":
        np.savez(tmp_path / "a.npz", x_train=train_x, y_train=train_y, x_test=test_x, y_test=test_y)
    elif form == "kmnist":
        for file, array in (
            ("train-imgs", train_x),
            ("train-labels", train_y),
            ("test-imgs", test_x),
            ("test-labels", test_y),
        ):
            np.savez_compressed(tmp_path / f"kmnist-{file}.npz", array)
    else:
        np.savez(
            tmp_path / "a.npz", X=train_x / 255.0, y=train_y[:, None], X_test=test_x / 255.0, y_test=test_y
        )
    train, test = load_images("notmnist", tmp_path)
    np.testing.assert_array_equal(train.images, train_x.reshape(120, 20))
    np.testing.assert_array_equal(train.labels, train_y - 1)
    np.testing.assert_array_equal(test.labels, test_y - 1)
    assert test.images.dtype == np.uint8


def test_missing_data_says_what_where_and_whence(tmp_path, monkeypatch, drawn):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    family = ImageClassification("kmnist", 6, 3)
    with pytest.raises(ValueError, match=r"set the environment variable GRADATIM_DATA.*codh.rois.ac.jp"):
        family.sample(1, seeded())
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"needs the folder .*kmnist.*train-images-idx3-ubyte.*codh.rois.ac.jp"
    ):
        family.sample(1, seeded())
    folder = tmp_path / "images" / "kmnist"
    fill(folder, drawn, ".gz")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"missing t10k-labels-idx1-ubyte.gz .*kmnist.*published at https"):
        family.sample(1, seeded())


def test_damaged_files_are_named(tmp_path, drawn):
    fill(tmp_path / "a", drawn, ".gz")
    whole = tmp_path / "a" / "train-images-idx3-ubyte.gz"
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        read_idx(whole)
    short = tmp_path / "short-ubyte"
    short.write_bytes(b"\x00\x00\x08\x01" + struct.pack(">I", 9) + b"abc")
    with pytest.raises(ValueError, match=r"must hold 9 bytes for shape \(9,\); got 3"):
        read_idx(short)
    short.write_bytes(b"\x00\x00\x0d\x01")
    with pytest.raises(ValueError, match="must be an IDX file of unsigned bytes; it begins with 00000d01"):
        read_idx(short)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match=r"bad.npz cannot be read as npz"):
        load_images("kmnist", tmp_path)


def test_arrays_that_do_not_fit_are_refused(tmp_path, drawn):
    (train_x, train_y), (test_x, test_y) = drawn["train"], drawn["test"]
    cases = [
        (
            {"x": train_x, "y": train_y[:-1], "x_test": test_x, "y_test": test_y},
            "must pair up; got 120 and 119",
        ),
        (
            {"x": train_x, "y": train_y, "x_test": test_x, "y_test": test_y + 9},
            "labels that the training part lacks",
        ),
        ({"x": train_x, "y": train_y, "x_test": test_x[:, 1:], "y_test": test_y}, "must be of one size"),
        (
            {"x": train_x * 3.0, "y": train_y, "x_test": test_x, "y_test": test_y},
            r"pixels of .* must lie in 0..255",
        ),
        (
            {"x": train_x, "x2": train_x, "y": train_y, "x_test": test_x, "y_test": test_y},
            "must be one array",
        ),
    ]
    for arrays, said in cases:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=said):
            load_images("emnist", tmp_path)
