"""Tasks in a frozen embedding space: disjoint classes, honest standardisation, files that cannot be right."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gradatim.families import EmbeddingClassification
from gradatim.families.embeddings import _pools, embedding_path, read_embeddings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rows():
    """Ten classes of twenty rows in eight dimensions, each around a place of its own."""
    rng = np.random.default_rng(0)
    labels = np.repeat([f"class {k}" for k in range(10)], 20)
    centres = 3 * rng.normal(size=(10, 8))
    return {"embeddings": (np.repeat(centres, 20, 0) + rng.normal(size=(200, 8))), "labels": labels}


@pytest.fixture
def path(rows, tmp_path):
    np.savez(tmp_path / "rows.npz", **rows)
    return tmp_path / "rows.npz"


def family(path, **fields):
    return EmbeddingClassification(
        str(path), **{"dim": None, "ways": 2, "support_rows": 20, "query_rows": 10, **fields}
    )


def test_a_task_is_rows_of_the_file_and_support_and_query_share_none(rows, path):
    task = family(path).sample(50, seeded())
    pool = _pools(path, 0)["train"]
    train = pool.rows * pool.spread
    for b in range(50):
        x = torch.cat([task.support.x[b], task.query.x[b]])
        assert len(torch.unique(x, dim=0)) == 30
        place = (x[:, None] == train).all(-1).int().argmax(1)
        assert torch.equal(train[place], x)
        classes = place // 20
        y = torch.cat([task.support.y[b], task.query.y[b]])[:, 0]
        assert len({(int(c), int(label)) for c, label in zip(classes, y, strict=True)}) == 2


def test_pools_share_no_class_and_only_that_of_training_decides_the_scale(rows, path):
    pools = _pools(path, 0)
    assert [len(pools[split].counts) for split in ("train", "validation", "test")] == [6, 2, 2]
    sizes = [set(map(tuple, pools[split].rows.tolist())) for split in pools]
    assert sum(map(len, sizes)) == len(set.union(*sizes)) == 200
    train = pools["train"].rows
    torch.testing.assert_close(train.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(8), atol=1e-5, rtol=0)
    assert float(pools["test"].rows.mean(0).abs().max()) > 0.1


def test_without_a_projection_embeddings_are_scaled_by_one_number(rows, path):
    pool = _pools(path, 0)["train"]
    raw = torch.from_numpy(rows["embeddings"]).float()
    own = torch.pdist(pool.rows * pool.spread)
    data = read_embeddings(path)
    places = np.flatnonzero(np.isin(data.labels, _train_classes()))
    scaled = torch.pdist(raw[places])
    torch.testing.assert_close(own / own[0], scaled / scaled[0], rtol=1e-4, atol=1e-4)
    assert float((pool.rows * pool.spread).square().mean()) == pytest.approx(1, rel=1e-4)


def _train_classes():
    """The classes of ten that a file without splits trains on."""
    return np.split(np.random.RandomState(0).permutation(10), [6, 8])[0]


def test_a_projection_is_drawn_for_each_task_and_keeps_the_scale(path):
    made = family(path, dim=512, support_rows=100, query_rows=20).sample(2, seeded())
    assert made.support.x.shape == (2, 100, 512)
    assert not torch.equal(made.support.x[0, :, :8], made.support.x[1, :, :8])
    projected = dataclasses.replace(family(path), dim=4)
    assert projected.x_dim == 4 and family(path).x_dim == 8 and family(path).likelihood.classes == 2


def test_a_file_may_say_which_class_is_for_what(rows, tmp_path):
    split = np.array(["train", "validation", "test", "test", "train"] * 2)[np.repeat(np.arange(10), 20)]
    np.savez(tmp_path / "said.npz", **rows, split=split)
    table = pa.table({"embeddings": rows["embeddings"].tolist(), "labels": rows["labels"], "split": split})
    pq.write_table(table, tmp_path / "said.parquet")
    for name in ("said.npz", "said.parquet"):
        data = read_embeddings(tmp_path / name)
        assert data.split.tolist() == [0, 1, 2, 2, 0, 0, 1, 2, 2, 0]
        assert len(_pools(tmp_path / name, 0)["test"].counts) == 4


def test_a_file_for_transfer_has_no_class_for_training_and_is_scaled_by_all_its_rows(rows, tmp_path):
    np.savez(tmp_path / "target.npz", **rows, split=np.full(200, "test"))
    pools = _pools(tmp_path / "target.npz", 0)
    torch.testing.assert_close(pools["test"].rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at most the 0 classes"):
        family(tmp_path / "target.npz").sample(1, seeded())


def test_codes_in_bytes_are_read(tmp_path):
    z = {
        "emb_q": np.array([[1, 2], [3, -4]], np.int8),
        "scale": np.array([0.5, 2.0]),
        "label": np.array([0, 1]),
    }
    np.savez(tmp_path / "q.npz", **z)
    np.testing.assert_array_equal(read_embeddings(tmp_path / "q.npz").embeddings, [[0.5, 4], [1.5, -8]])


BAD = [
    ({"labels": ["one"] * 200}, "the one class 'one'"),
    ({"labels": ["a"] * 199}, r"\(200, 8\) and \(199,\)"),
    ({"embeddings": np.full((200, 8), np.nan)}, "not finite"),
    ({"embeddings": np.full((200, 8), "a")}, "embeddings that are real numbers; got <U1"),
    ({"embeddings": np.full((200, 8), 1j)}, "embeddings that are real numbers; got complex128"),
    ({"embeddings": np.zeros(200)}, "embeddings \\[rows, width\\]"),
    ({"split": ["train"] * 199 + ["tset"]}, "tset"),
    ({"labels": [*range(10)] * 19 + [float("nan")] * 10}, "10 rows without a label"),
    ({"split": ["train"] * 199 + ["test"]}, "belong to one split"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said for _, said in BAD])
def test_files_that_cannot_be_right_are_refused(rows, tmp_path, change, said):
    np.savez(tmp_path / "bad.npz", **{**rows, **{name: np.array(value) for name, value in change.items()}})
    with pytest.raises(ValueError, match=said):
        read_embeddings(tmp_path / "bad.npz")


def test_other_refusals(rows, path, tmp_path, monkeypatch):
    np.savez(tmp_path / "half.npz", embeddings=rows["embeddings"])
    with pytest.raises(ValueError, match="must hold embeddings and labels; it holds embeddings"):
        read_embeddings(tmp_path / "half.npz")
    for name in ("cut.npz", "cut.parquet"):
        (tmp_path / name).write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match="cannot be read"):
            read_embeddings(tmp_path / name)
    np.save(tmp_path / "single.npy", rows["embeddings"])
    with pytest.raises(
        ValueError, match=r"single.npy cannot be read as npz .*a single array of shape \(200, 8\)"
    ):
        read_embeddings(tmp_path / "single.npy")
    for column, said in (("labels", "1 rows without a label"), ("embeddings", "not finite")):
        columns = {"embeddings": [[1.0, 2.0]] * 4, "labels": ["a", "b", "a", "b"]}
        columns[column][3] = None if column == "labels" else [1.0, None]
        pq.write_table(pa.table(columns), tmp_path / "gaps.parquet")
        with pytest.raises(ValueError, match=said):
            read_embeddings(tmp_path / "gaps.parquet")
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    with pytest.raises(ValueError, match="GRADATIM_DATA"):
        embedding_path("banking77")
    with pytest.raises(ValueError, match="at most the 2 classes of rows"):
        family(path, ways=3).on("test").sample(1, seeded())
    with pytest.raises(ValueError, match="must leave rows"):
        family(path, query_rows=40).sample(1, seeded())
    with pytest.raises(ValueError, match="split"):
        family(path).on("held out")
    with pytest.raises(ValueError, match="dim"):
        family(path, dim=0)
