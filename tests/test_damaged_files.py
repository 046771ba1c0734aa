"""Files that are damaged or made up: refused in one line that names them, or loaded with the same answers."""

import json
import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from gradatim import (
    LinearClassification,
    LinearRegression,
    Recipe,
    RefinedClassifier,
    RefinedRegressor,
    TrainConfig,
    Unrolled,
    build,
    load_state,
    rebuild,
    save_state,
    train,
)
from gradatim.files.checkpoint import read, write
from gradatim.files.table import read_table
from mutants import joined, parts_of, signed, unsigned
from test_old_files import copied, rows

RAW = re.compile(r"linalg|numpy\.|object has|codec|has no attribute|allocat|literal|<class|NoneType")
"""Words of Python and of libraries."""

FAMILY = LinearRegression(3)
LEARNER = build("ridge", FAMILY)
TASK = FAMILY.sample(2, torch.Generator().manual_seed(0))


def table(n):
    frame = pd.concat([rows()] * (n // 12 + 1), ignore_index=True)[:n]
    return frame, np.where(frame["size"].fillna(0) > 1, "yes", "no")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with one small file of each kind."""
    folder = tmp_path_factory.mktemp("files")
    RefinedClassifier().partial_fit(*table(40)).save(folder / "early", {"note": {"a": [1, 2]}})
    RefinedClassifier().partial_fit(*table(300)).save(folder / "table")
    save_state(folder / "state", LEARNER.adapt(TASK.support, 16), LEARNER, {"note": [1]})
    write(folder / "checkpoint", *read(copied("checkpoint", folder)))
    return folder


def answers(kind, path):
    """Return what a file answers; what a table answers needs the columns of its rows."""
    if kind in ("early", "table"):
        return RefinedClassifier.load(path).predict_proba(rows())
    if kind == "state":
        return LEARNER.predict(TASK.query.x, load_state(path, LEARNER)).numpy()
    learner, _, _ = rebuild(path)
    return learner.predict(TASK.query.x, learner.adapt(TASK.support, 8)).numpy()


def loads(kind, path):
    if kind in ("early", "table"):
        RefinedClassifier.load(path)
    elif kind == "state":
        load_state(path, LEARNER)
    else:
        rebuild(path)


def refusal(call, *arguments):
    """Return the one line with which a call is refused, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(*arguments)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("kind", "count"), [("early", 200), ("table", 40), ("state", 200), ("checkpoint", 100)]
)
def test_no_flipped_bit_loads_with_other_answers(home, tmp_path, kind, count):
    whole = (home / kind).read_bytes()
    wanted, path = answers(kind, home / kind), tmp_path / "damaged"
    for content in unsigned(whole, count, seed=0):
        path.write_bytes(content)
        line = refusal(loads, kind, path)
        if line is None:
            np.testing.assert_array_equal(answers(kind, path), wanted)
        else:
            assert str(path) in line and "\n" not in line, line


@pytest.mark.parametrize(
    ("kind", "count"), [("early", 400), ("table", 60), ("state", 400), ("checkpoint", 200)]
)
def test_made_up_files_are_read_or_refused_in_one_line(home, tmp_path, kind, count):
    path = tmp_path / "odd"
    for content in signed((home / kind).read_bytes(), count, seed=0):
        path.write_bytes(content)
        line = refusal(loads, kind, path)
        assert line is None or (str(path) in line and "\n" not in line and len(line) < 1000), line
        assert line is None or not RAW.search(line), line


def edit(path, change, out):
    """Write a file whose header and layouts `change` has edited, with the right checksum."""
    header, layouts, body = parts_of(path.read_bytes())
    change(header, layouts)
    out.write_bytes(joined(header, layouts, body))
    return out


ODD_TABLES = {
    "a model that is a file": (
        lambda h: h["params"].update(model="PIPE"),
        "params.model must be one of experts",
    ),
    "a huge number of members": (
        lambda h: h["params"].update(n_estimators=10**9),
        "from 1 to 64; got 1000000000",
    ),
    "members without seeds": (lambda h: h["params"].update(n_estimators=2), "seeds must be one for each"),
    "an unknown setting": (lambda h: h["params"].update(path="x"), "params has the unknown entry 'path'"),
    "a batch of nothing": (
        lambda h: h["params"].update(batch_size=0),
        "batch_size must be a whole number from 1",
    ),
    "a truth for a number": (lambda h: h["params"].update(n_passes=True), "n_passes must be a whole number"),
    "negative rows": (lambda h: h.update(rows=-5), "rows must be a finite number of at least 0; got -5"),
    "scale 0": (lambda h: h.update(target=[0.0, 0]), "target must be a mean and a positive scale"),
    "labels unsorted": (lambda h: h["classes"].update(labels=["yes", "no"]), "must be different and sorted"),
    "a label twice": (lambda h: h["classes"].update(labels=["no", "no"]), "must be different and sorted"),
    "labels of two types": (lambda h: h["classes"].update(labels=[1, "no"]), "labels of one type"),
    "a million labels": (
        lambda h: h["classes"].update(labels=[f"{i:07}" for i in range(10**5)]),
        "longest label",
    ),
    "a type of a gigabyte": (lambda h: h["classes"].update(dtype="<U9999999"), "at most 67,108,864 bytes"),
    "a type of arrays": (lambda h: h["classes"].update(dtype="(9,9)f8"), "dtype must be a NumPy type"),
    "a type of objects": (lambda h: h["classes"].update(dtype="|V8"), "dtype must be a NumPy type"),
    "numbers as words": (lambda h: h["classes"].update(dtype="<i8"), "dtype must hold str"),
    "columns that do not count": (
        lambda h: h.update(n_features=3),
        "n_features is 3, but the map has 2 columns",
    ),
    "names that do not count": (lambda h: h.update(feature_names=["a"]), "n_features is 2"),
    "a device that is none": (lambda h: h["params"].update(device="meta"), "params.device must be a device"),
    "a learner that was not given": (
        lambda h: h.update(learners=["0" * 64]),
        "learners must be one for a learner",
    ),
    "a slot for a billion words": (
        lambda h: h["map"]["columns"][1].update(slots=10**9),
        "must have shape [K, 10000",
    ),
    "a spread of nothing": (lambda h: h["map"]["columns"][0].update(std=0), "std must be positive"),
    "words of numbers": (lambda h: h["map"]["columns"][1].update(levels=[1]), "levels must be tuple"),
    "a column twice": (lambda h: h["map"]["columns"][0].update(name="colour"), "names a column twice"),
}


@pytest.mark.parametrize(("change", "said"), ODD_TABLES.values(), ids=ODD_TABLES)
def test_headers_of_tables_have_types_ranges_and_counts(home, tmp_path, change, said):
    os.mkfifo(tmp_path / "pipe")
    path = edit(home / "table", lambda header, _: change(header), tmp_path / "odd")
    path.write_bytes(path.read_bytes().replace(b"PIPE", str(tmp_path / "pipe").encode()[-4:]))
    line = refusal(RefinedClassifier.load, path)
    assert line is not None and str(path) in line and said in line, line


def test_the_shapes_of_a_table_follow_from_its_header(home, tmp_path):
    tensors, header = read(home / "table")
    odd = {
        "0.rows": torch.zeros(2).double(),
        "0.noise": tensors["0.noise"][:, :, :1],
        "0.more": torch.zeros(1),
        "0.cross": tensors["0.cross"].half(),
        "1.rows": torch.zeros(1),
        "0.landmarks": tensors["0.landmarks"][:, :1],
        "0.scale": 0 * tensors["0.scale"],
        "0.squares": -tensors["0.squares"],
        "0.gram": -tensors["0.gram"],
    }
    for name, value in odd.items():
        write(tmp_path / "odd", {**tensors, name: value}, header)
        line = refusal(RefinedClassifier.load, tmp_path / "odd")
        assert line is not None and f"odd contradicts itself: tensor '{name}'" in line, line
    for name in tensors:
        write(tmp_path / "odd", {key: value for key, value in tensors.items() if key != name}, header)
        line = refusal(RefinedClassifier.load, tmp_path / "odd")
        assert line is not None and f"tensor '{name}' is missing" in line, line


def test_the_first_rows_of_a_table_fit_its_header(home, tmp_path):
    state = read_table(home / "early")
    header = {**state.header, "warm": {**state.header["warm"], "words": {"1": ["red"] * 39}}}
    for tensors, about in (
        ({**state.tensors, "warm.y": state.tensors["warm.y"] + 2}, state.header),
        ({**state.tensors, "warm.y": state.tensors["warm.y"] + 0.5}, state.header),
        ({**state.tensors, "warm.weight": 0 * state.tensors["warm.weight"]}, state.header),
        ({**state.tensors, "warm.y": state.tensors["warm.y"][1:]}, state.header),
        ({**state.tensors, "warm.0": state.tensors["warm.0"] / 0}, state.header),
        ({**state.tensors, "warm.7": state.tensors["warm.0"]}, state.header),
        ({key: value for key, value in state.tensors.items() if key != "warm.0"}, state.header),
        (state.tensors, header),
    ):
        path = tmp_path / "odd"
        copies = {name: part.clone() for name, part in tensors.items()}
        metadata = {"gradatim": json.dumps({**about, "gradatim_format": 1})}
        path.write_bytes(safetensors.torch.save(copies, metadata=metadata))
        line = refusal(RefinedClassifier.load, path)
        assert line is not None and "odd contradicts itself" in line, line


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_state_from_another_machine_goes_on_on_the_cpu(home, tmp_path, device):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has one of them")
    path = edit(home / "table", lambda header, _: header["params"].update(device=device), tmp_path / "far")
    with pytest.warns(UserWarning, match=rf"far was on {device}, which is not there: it goes on on the CPU"):
        model = RefinedClassifier.load(path)
    assert model.device == "cpu"
    with pytest.raises(
        ValueError, match=rf"device '{device}' is not there: leave it out, or give device='cpu'"
    ):
        RefinedClassifier.load(path, device=device)
    assert RefinedClassifier.load(path, device="cpu").device == "cpu"
    np.testing.assert_array_equal(model.predict_proba(rows()), answers("table", home / "table"))


def test_a_state_names_no_checkpoint_and_wants_it_given(home, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    family, config = LinearClassification(3, 2), TrainConfig(iterations=1, tasks=2, warmup=1)
    run = Recipe("maml", family, Unrolled(batch_size=8, horizon=1), config)
    train(
        run.learner(), family, run.scheme, config, tmp_path / "run", {"recipe": run.to_json()}, progress=False
    )
    file = tmp_path / "run" / "learner.safetensors"
    model = RefinedClassifier(model=str(file)).partial_fit(x, x[:, 0] > 0)
    path = model.save(tmp_path / "s")
    assert read(path)[1]["params"]["model"] == "checkpoint"
    assert str(tmp_path).encode() not in path.read_bytes()
    with pytest.raises(
        ValueError, match=r"s was written with a learner as model: give it, load\(path, model"
    ):
        RefinedClassifier.load(path)
    loaded = RefinedClassifier.load(path, model=file)
    np.testing.assert_allclose(loaded.predict_proba(x), model.predict_proba(x))


def test_a_checkpoint_cannot_ask_for_more_than_it_holds(home, tmp_path):
    for name, value in (("width", 10**6), ("layers", 10**9), ("hidden", [10**6, 10**6])):
        path = edit(
            home / "checkpoint",
            lambda header, _, name=name, value=value: header["recipe"]["recipe"]["method"].update(
                {name: value}
            ),
            tmp_path / "big",
        )
        line = refusal(rebuild, path)
        assert (
            line is not None and "big describes no learner: what the file describes is far larger" in line
        ), line


def test_numbers_that_are_not_finite_are_not_written(home, tmp_path):
    model = RefinedRegressor().partial_fit(table(300)[0], np.arange(300.0))
    path = model.save(tmp_path / "s")
    before = path.read_bytes()
    state = model.task_.states[0]
    cross = state.moments.cross.clone()
    cross[0, 0] = float("nan")
    model.task_.states = [state._replace(moments=state.moments._replace(cross=cross))]
    with pytest.raises(
        ValueError, match=r"s was not written, and what stood there stays: tensor .* not finite"
    ):
        model.save(path)
    broken = LEARNER.adapt(TASK.support, 16)._replace(rows=torch.tensor([float("inf"), 1.0]).double())
    with pytest.raises(
        ValueError, match=r"s was not written, and what stood there stays: tensor 'state.rows'"
    ):
        save_state(path, broken, LEARNER)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_a_header_has_an_end(tmp_path):
    with pytest.raises(ValueError, match=r"the header would take [56],\d+,\d+ bytes, of 5,000,000 at most"):
        write(tmp_path / "w", {}, {"kind": "state", "note": "x" * 5_000_000})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "w").write_bytes((2**40).to_bytes(8, "little") + b"{" * 100)
    with pytest.raises(ValueError, match="w is not a file of gradatim"):
        read(tmp_path / "w")


def test_long_texts_of_the_first_rows_need_no_long_header(tmp_path):
    frame = pd.DataFrame({"note": [f"{i:03}" * 20_000 for i in range(100)], "x": np.arange(100.0)})
    model = RefinedClassifier().partial_fit(frame.assign(note=frame.note.str[:3]), frame.x > 50)
    assert RefinedClassifier.load(model.save(tmp_path / "s")).predict(frame[:1]).shape == (1,)
    words = read_table(tmp_path / "s").header["warm"]["words"]
    assert words["0"][:2] == ["000", "001"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gram", lambda gram: gram * torch.tensor([[1.0, 50.0, 1.0], [50.0, 1.0, 1.0], [1.0, 1.0, 1.0]])),
        ("gram", lambda gram: gram.triu()),
        ("gram", lambda gram: -gram),
        ("cross", lambda cross: cross + 1e100),
        ("squares", lambda squares: -squares),
        ("rows", lambda rows: rows - 1000),
    ],
)
def test_sums_that_no_rows_have_are_refused(tmp_path, name, change):
    state = LEARNER.adapt(TASK.support, 16)
    path = save_state(tmp_path / "s", state, LEARNER)
    tensors, header = read(path)
    write(path, {**tensors, f"state.{name}": change(tensors[f"state.{name}"])}, header)
    with pytest.raises(ValueError, match=rf"s contradicts itself: 'state.({name}|cross)' must"):
        load_state(path, LEARNER)
