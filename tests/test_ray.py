"""Many files at once on Ray: the sums of one process bit for bit, no row lost or twice where a worker is killed."""

import builtins
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradatim import RefinedClassifier, RefinedRegressor, cli
from gradatim.distributed import fit
from gradatim.distributed.shards import find_shards
from gradatim.files.options import ReadOptions
from gradatim.files.reading import open_table

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.filterwarnings("ignore:.*columns have left the range")

ROWS = 400
FEATURES = ["size", "width", "colour"]
SUMS = ("gram", "cross", "squares", "rows")


def frame(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size, width = rng.normal(size=rows), rng.normal(size=rows)
    colour = rng.choice(["red", "green", *(["blue"] if seed else [])], rows)
    y = np.where(size + width**2 + (colour == "red") > 1, "yes", "no")
    return pd.DataFrame({"size": size, "width": width, "colour": colour, "y": y})


def moments(model):
    return model.task_.members.settle().states[0].moments


def same(one, other) -> bool:
    return all(torch.equal(getattr(moments(one), name), getattr(moments(other), name)) for name in SUMS)


def here(files, target="y", **more):
    return fit(files, target, **{"workers": 0, "progress": False, **more})


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> Path:
    """A folder with four days, the first three as CSV too."""
    days = tmp_path_factory.mktemp("days")
    for number in range(3):
        frame(ROWS, number).to_csv(days / f"{number}.csv", index=False)
    for number in range(4):
        frame(ROWS, number).to_parquet(days / f"{number}.parquet", row_group_size=100)
    return days


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, with two workers."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_the_sums_are_those_of_one_pass_and_of_the_commands(days, tmp_path):
    whole = here(str(days / "*.csv"), out=tmp_path / "whole")
    assert whole.task_.count == whole.task_.rows == 3 * ROWS
    assert whole.classes_.tolist() == ["no", "yes"]
    words = ["--quiet", "--state"]
    base = str(tmp_path / "base")
    assert cli.main(["fit", str(days / "0.csv"), "--target", "y", "--map-only", *words, base]) == 0
    parts = [str(tmp_path / f"part{number}") for number in range(3)]
    for number, part in enumerate(parts):
        assert cli.main(["fit", str(days / f"{number}.csv"), "--map", base, *words, part]) == 0
    assert cli.main(["merge", *parts, "--out", str(tmp_path / "merged")]) == 0
    assert same(whole, RefinedClassifier.load(tmp_path / "merged"))
    one = RefinedClassifier.load(base)
    for number in range(3):
        rows = frame(ROWS, number)
        one.partial_fit(rows[FEATURES], rows["y"].to_numpy(dtype=object))
    scale = moments(one).gram.abs().max()
    assert (moments(whole).gram - moments(one).gram).abs().max() <= 1e-12 * scale  # another order of sums
    loaded, rows = RefinedClassifier.load(tmp_path / "whole"), frame(500, 9)
    assert np.array_equal(loaded.predict_proba(rows[FEATURES]), whole.predict_proba(rows[FEATURES]))
    assert (whole.predict(rows[FEATURES]) == rows["y"]).mean() > 0.9


def test_shards_follow_from_the_files(days):
    groups = lambda rows: [shard.row_groups for shard in find_shards([str(days / "0.parquet")], rows)[1]]  # noqa: E731
    assert groups(1) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert groups(150) == [(0, 2), (2, 4)]
    assert groups(300) == groups(10**6) == [None]
    files, shards = find_shards([days], 1)
    assert len(files) == 7 and len(shards) == 3 + 4 * 4
    assert here(days / "0.parquet", shard_rows=1).task_.count == ROWS


def test_row_groups_are_read_alone_and_their_rows_named_as_in_the_file(tmp_path):
    table = frame(300, 0).assign(weight=1.0)
    table.loc[250, "weight"] = -1
    table.to_parquet(tmp_path / "a.parquet", row_group_size=100)
    opened = open_table(tmp_path / "a.parquet", ReadOptions(row_groups=(1, 3)))
    chosen = {"size": opened.cells["size"]}
    read = np.concatenate([part["size"].to_numpy() for part, _ in opened.stream(chosen)])
    assert np.array_equal(read, table["size"][100:])
    assert sorted(opened.sample["size"].to_pylist()) == sorted(table["size"][100:])
    assert opened.place(0) == "row 101"
    frame(300, 1).assign(weight=1.0).to_parquet(tmp_path / "0.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 251.*weight.*\(in row groups 2 to 2\)"):
        here([tmp_path / "0.parquet", tmp_path / "a.parquet"], weight="weight", shard_rows=1)


def test_the_models_are_weighed_by_rows_of_every_shard_or_by_files(days):
    files, rows = str(days / "*.csv"), frame(500, 9)[FEATURES]
    sampled, given = here(files), here(files, weigh=[days / "0.csv", days / "1.csv", days / "2.csv"])
    assert same(sampled, given)
    # the same rows, as long as all of them are taken
    np.testing.assert_allclose(sampled.predict_proba(rows), given.predict_proba(rows), atol=1e-9)
    assert not np.allclose(sampled.predict_proba(rows), here(files, weigh=days / "0.csv").predict_proba(rows))


def test_settings_roles_and_classes_are_those_that_are_given(days):
    model = RefinedClassifier(batch_size=16, random_state=3)
    whole = here(days / "0.csv", model=model, classes=["no", "yes", "never"], drop="width")
    assert (whole.batch_size, whole.random_state) == (16, 3) and whole is not model
    assert whole.classes_.tolist() == ["never", "no", "yes"]
    assert whole.feature_names_in_.tolist() == ["size", "colour"]
    numbers = here([days / "0.csv", days / "1.csv"], "size")
    assert isinstance(numbers, RefinedRegressor) and numbers.task_.count == 2 * ROWS


def test_shards_without_rows_to_learn_count_nothing_and_are_said(days, tmp_path):
    empty = frame(40, 5).assign(y=None)
    empty.to_csv(tmp_path / "0.csv", index=False)
    (tmp_path / "1.csv").write_text("size,width,colour,y\n")
    with pytest.warns(
        UserWarning, match=r"1\.csv holds column names and no rows|0\.csv: .*nothing was learned"
    ) as said:
        whole = here([days / "0.csv", tmp_path / "0.csv", tmp_path / "1.csv"])
    assert whole.task_.count == ROWS and len(said) == 2
    assert said[0].filename == __file__


def test_how_columns_were_read_is_said(tmp_path):
    frame(60, 0).assign(key=[2**60 + row for row in range(60)], gap=None).to_csv(
        tmp_path / "0.csv", index=False
    )
    with pytest.warns(UserWarning) as said:
        here(tmp_path / "0.csv")
    notes = " ".join(str(warning.message) for warning in said)
    assert "'key' is read as text" in notes and "column 'gap' is empty" in notes


@pytest.mark.parametrize(
    ("files", "more", "said"),
    [
        ([], {}, "files names no file"),
        ("none-*.csv", {}, "no file fits"),
        (["0.csv", "0.csv"], {}, "0.csv is given twice"),
        (["0.csv", "odd.csv"], {}, "odd.csv: column 'width', which the state knows, is missing"),
        (["0.csv", "bad.csv"], {"weight": "w"}, "0.csv has no column 'w'"),
        (["bad.csv", "worse.csv"], {"weight": "w"}, "worse.csv, line 3"),
        ("0.csv", {"colour": 1}, "fit has no option 'colour'"),
        ("0.csv", {"workers": -1}, "workers must be a whole number of at least 0; got -1"),
        ("0.csv", {"task": "sorting"}, "task must be one of"),
        ("0.csv", {"model": RefinedRegressor(), "task": "classification"}, "learns a regression"),
        ("0.csv", {"model": "experts"}, "model must be a RefinedClassifier"),
        ("0.csv", {"model": RefinedClassifier(model="a.safetensors")}, "the shipped learner"),
        (
            "0.csv",
            {"model": RefinedClassifier(class_weight="balanced")},
            "give a dict with a weight for each label",
        ),
        ("0.csv", {"out": "0.csv"}, "is an input file"),
        ("0.csv", {"out": "old"}, "already exists: choose another file, or overwrite=True"),
        ("years", {}, "named COLUMN=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, monkeypatch, files, more, said):
    monkeypatch.chdir(tmp_path)
    rows = frame(40, 0)
    (tmp_path / "old").write_text("")
    (tmp_path / "years" / "year=2024").mkdir(parents=True)
    for name, table in {
        "0.csv": rows,
        "odd.csv": rows.drop(columns="width"),
        "bad.csv": rows.assign(w=1),
        "worse.csv": rows.assign(w=[1, -5, *[1] * 38]),
        "years/year=2024/a.csv": rows,
    }.items():
        table.to_csv(tmp_path / name, index=False)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=said):
        here(files, **{"out": "new", **more})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stream_that_is_read_once_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("x,y\n1,2\n",))
    writer.start()
    with pytest.raises(ValueError, match="is read once, so it cannot be sent to workers"):
        here(tmp_path / "pipe")
    writer.join()


def test_gradatim_does_without_ray(days, monkeypatch):
    code = "import sys, gradatim.distributed, gradatim.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    find = builtins.__import__

    def without_ray(name, *args, **more):
        if name == "ray":
            raise ImportError(name)
        return find(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ImportError, match=r"pip install gradatim\[distributed\]"):
        fit(days / "0.csv", "y")
    assert here(days / "0.csv").task_.count == ROWS


# --- on Ray


def test_ray_is_started_and_ended_where_it_does_not_run(days):
    ray = pytest.importorskip("ray")
    assert not ray.is_initialized()
    whole = fit(days / "0.parquet", "y", workers=1, progress=False)
    assert not ray.is_initialized() and same(whole, here(days / "0.parquet"))


def test_two_workers_learn_what_one_process_does(ray, days, tmp_path):
    files = str(days / "*.parquet")
    alone = here(files, shard_rows=200)
    whole = fit(files, "y", tmp_path / "whole", workers=2, shard_rows=200, progress=False)
    assert ray.is_initialized()  # one that runs is left running
    assert whole.task_.count == 4 * ROWS and same(whole, alone)
    rows = frame(500, 9)[FEATURES]
    assert np.array_equal(whole.predict_proba(rows), alone.predict_proba(rows))
    assert np.array_equal(
        RefinedClassifier.load(tmp_path / "whole").predict_proba(rows), alone.predict_proba(rows)
    )


def test_a_shard_that_cannot_be_learnt_names_its_file_and_line(ray, tmp_path):
    for number in range(3):
        frame(40, number).assign(w=[1, -5 * (number == 2), *[1] * 38]).to_csv(
            tmp_path / f"{number}.csv", index=False
        )
    with pytest.raises(ValueError, match=r"2\.csv, line 3"):
        fit(tmp_path, "y", tmp_path / "out", weight="w", progress=False)
    assert not (tmp_path / "out").exists()
    assert fit(tmp_path / "0.csv", "y", progress=False).task_.count == 40  # and Ray goes on


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_worker_that_is_killed_is_replaced_and_no_row_is_lost(ray, tmp_path):
    from studies.tables.ray import Killer

    for number in range(4):
        frame(6000, number).to_csv(tmp_path / f"{number}.csv", index=False)
    alone = here(tmp_path)
    with Killer() as killer:
        whole = fit(tmp_path, "y", workers=2, progress=False)
    assert killer.killed == 1
    assert whole.task_.count == whole.task_.rows == 4 * 6000 and same(whole, alone)
    rows = frame(500, 9)[FEATURES]
    assert np.abs(whole.predict_proba(rows) - alone.predict_proba(rows)).max() <= 1e-9
    with Killer(limit=100), pytest.raises(RuntimeError, match=r"was not learned: its worker died 1 times"):
        fit(tmp_path, "y", workers=2, retries=0, progress=False)
