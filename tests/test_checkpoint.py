import errno
import json
import os
import re
from copy import deepcopy

import pytest
import safetensors.torch
import torch

from gradatim import Learner, build
from gradatim.files import checkpoint
from gradatim.files.checkpoint import latest, load_weights, read, save_checkpoint, step_files, write
from gradatim.training.states import load_state, save_state
from tiny_run import FAMILY, make_learner

TENSORS = {"weights.a": torch.arange(6.0).view(2, 3), "weights.b": torch.tensor([7], dtype=torch.int64)}
HEADER = {"kind": "checkpoint", "recipe": {"name": "tiny"}}


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def with_header(**header):
    return safetensors.torch.save(TENSORS, metadata={"gradatim": json.dumps(header)})


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path / "new" / "w.safetensors", TENSORS, HEADER)
    tensors, header = read(path, kind="checkpoint")
    assert header == {"gradatim_format": 2, **HEADER}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert names(path.parent) == ["w.safetensors"]


def test_views_and_shared_memory_are_written_whole(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    written = {"t": base.T, "row": base[1].expand(5, 4), "same": base}
    tensors, _ = read(write(tmp_path / "w", written, HEADER))
    assert all(torch.equal(tensors[name], written[name]) for name in written)


def test_any_truncation_is_refused(tmp_path):
    path = write(tmp_path / "w", TENSORS, HEADER)
    whole = path.read_bytes()
    for size in {*range(0, 12), *range(12, len(whole), 7), len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"w is truncated: it has {size} bytes.*take an earlier"):
            read(path)


FOREIGN = {
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a pickle": b"\x80\x04\x95" + bytes(200),
    "text": b"hello, this is no checkpoint at all\n" * 5,
    "JSON of another kind": (9).to_bytes(8, "little") + b'{"a": 17}',
    "no JSON": (9).to_bytes(8, "little") + b"!" * 9,
    "plain safetensors": safetensors.torch.save(TENSORS),
    "safetensors of others": safetensors.torch.save(TENSORS, metadata={"format": "pt"}),
    "a header without kind": with_header(gradatim_format=1),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "w"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a file of gradatim: .*give a file that gradatim wrote"):
        read(path)


def test_other_versions_are_refused(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(with_header(gradatim_format=3, kind="checkpoint"))
    with pytest.raises(ValueError, match="format version 3; this gradatim reads 1, 2: upgrade gradatim"):
        read(path)
    for version in (0, -1, True, "2", 1.0, None, [2]):
        path.write_bytes(with_header(gradatim_format=version, kind="checkpoint"))
        with pytest.raises(ValueError, match=r"format version .*; .*an older gradatim"):
            read(path)


def test_a_file_of_the_first_version_is_read_and_written_in_the_present_one(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(with_header(gradatim_format=1, **HEADER))
    tensors, header = read(path)
    assert header["gradatim_format"] == 1
    again, header = read(write(path, tensors, header))
    assert header["gradatim_format"] == 2
    assert all(torch.equal(again[name], TENSORS[name]) for name in TENSORS)
    path.write_bytes(with_header(gradatim_format=2, **HEADER))
    with pytest.raises(ValueError, match="w is damaged: it must have a checksum from format version 2 on"):
        read(path)


def test_missing_files_folders_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"nowhere cannot be read \(No such file or directory\): check the path"
    ):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path)
    write(tmp_path / "w", TENSORS, HEADER)
    with pytest.raises(ValueError, match="holds a checkpoint, expected a state"):
        read(tmp_path / "w", kind="state")


@pytest.mark.parametrize("header", [{"kind": "other"}, {}, {"kind": "state", "x": object()}])
def test_headers_that_cannot_be_stored_are_refused(tmp_path, header):
    with pytest.raises(ValueError, match=r"kind must be one of|must be JSON"):
        write(tmp_path / "w", TENSORS, header)
    assert names(tmp_path) == []


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, call):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, TENSORS, HEADER)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(
        ValueError, match=r"could not be written \(No space left on device; .* make room or choose"
    ):
        save_checkpoint(tmp_path, 3, TENSORS, HEADER)
    with pytest.raises(ValueError, match="could not be written"):
        write(tmp_path / "step-00000002.safetensors", {"a": torch.zeros(1)}, HEADER)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_cut_off_by_the_system_leaves_what_was_there(tmp_path):
    resource = pytest.importorskip("resource")
    save_checkpoint(tmp_path, 1, TENSORS, HEADER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(
            ValueError, match=r"could not be written \(File too large; 400,\d+ bytes needed\)"
        ):
            save_checkpoint(tmp_path, 2, {"big": torch.zeros(100_000)}, HEADER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step-00000001.safetensors"]
    assert torch.equal(read(latest(tmp_path))[0]["weights.a"], TENSORS["weights.a"])


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "far").mkdir()
    for name, target in (("old", "far/there"), ("new", "far/not-yet")):
        (tmp_path / name).symlink_to(tmp_path / target)
    (tmp_path / "far/there").write_bytes(b"before")
    for name, target in (("old", "far/there"), ("new", "far/not-yet")):
        checkpoint.write_bytes(tmp_path / name, b"after")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes() == b"after"
    assert names(tmp_path / "far") == ["not-yet", "there"]
    assert names(tmp_path) == ["far", "new", "old"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    before = {name: (tmp_path / name).lstat().st_mode for name in names(tmp_path)}
    for name in before:
        with pytest.raises(ValueError, match=rf"{name} .*is not a regular file.*: give another path"):
            checkpoint.write_bytes(tmp_path / name, b"content")
    assert {name: (tmp_path / name).lstat().st_mode for name in names(tmp_path)} == before


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"could not be written \(Not a directory"):
        checkpoint.write_bytes(tmp_path / "file" / "below", b"content")
    assert (tmp_path / "file").read_text() == "mine"


def test_hidden_files_of_others_are_left_alone(tmp_path):
    ours = ("step-00000004.safetensors", "step-123456789.safetensors", "learner.safetensors", "log.jsonl")
    for name in ours:
        (tmp_path / f".{name}.123.tmp").write_bytes(b"half")
    others = {".tmp", ".notes.tmp", ".step-4.safetensors.1.tmp", ".step-00000004.safetensors.tmp"}
    others |= {".mine.step-00000004.safetensors.12.tmp", ".step-00000004.safetensors.x.tmp", ".log.jsonl.tmp"}
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".step-00000005.safetensors.7.tmp").mkdir()
    save_checkpoint(tmp_path, 5, TENSORS, HEADER)
    wanted = {*others, ".step-00000005.safetensors.7.tmp", "step-00000005.safetensors"}
    assert set(names(tmp_path)) == wanted


def test_the_last_two_are_kept_and_leftovers_removed(tmp_path):
    (tmp_path / ".step-00000004.safetensors.123.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert latest(tmp_path) is None
    assert latest(tmp_path / "nowhere") is None
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, TENSORS, HEADER)
    assert names(tmp_path) == ["notes.txt", "step-00000010.safetensors", "step-00000015.safetensors"]
    assert latest(tmp_path).name == "step-00000015.safetensors"


def test_damaged_files_are_passed_over(tmp_path):
    for step in (5, 10):
        save_checkpoint(tmp_path, step, TENSORS, HEADER)
    newest = latest(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert latest(tmp_path).name == "step-00000005.safetensors"
    save_checkpoint(tmp_path, 7, TENSORS, HEADER)  # a run that went on from 5: the damaged 10 is not its own
    assert list(step_files(tmp_path)) == [5, 7]


def test_weights_of_another_architecture_are_refused(tmp_path):
    def save(learner):
        weights = {f"weights.{name}": value for name, value in learner.state_dict().items()}
        return write(tmp_path / "w", weights, HEADER)

    path = save(make_learner(width=8))
    with pytest.raises(
        ValueError, match=r"does not fit this learner: refiner\S+ has shape \(\d+.* and \(.* in the file"
    ):
        load_weights(make_learner(width=4), path)
    learner = make_learner()
    with torch.no_grad():
        learner.refiner.start.fill_(9)
    assert load_weights(learner, path)["recipe"] == {"name": "tiny"}
    assert all(
        torch.equal(a, b) for a, b in zip(learner.parameters(), make_learner().parameters(), strict=True)
    )


@pytest.mark.parametrize("tail", [None, 0.5])
def test_a_saved_state_resumes_exactly(tmp_path, tail):
    learner = make_learner(tail=tail).double()
    task = FAMILY.sample(3, torch.Generator().manual_seed(1)).to(torch.float64)
    batches = list(task.support.split(4))
    states = list(learner.states(batches))
    path = save_state(tmp_path / "s", states[2], learner, {"note": "two steps"})
    state = load_state(path, learner)
    assert read(path, "state")[1]["note"] == "two steps"
    assert type(state) is type(states[2])
    end = learner.step(state, batches[2])
    for part, wanted in zip(end, states[3], strict=True):
        assert part is wanted is None or torch.equal(part, wanted)
    assert torch.equal(learner.predict(task.query.x, end), learner.predict(task.query.x, states[3]))


def test_states_that_do_not_fit_are_refused(tmp_path):
    learner = make_learner(tail=0.5)
    path = save_state(tmp_path / "s", learner.refiner.init(2), learner)
    with pytest.raises(
        ValueError, match=re.escape("holds 'state.average', which this learner's state lacks")
    ):
        load_state(path, make_learner())
    with pytest.raises(ValueError, match=r"is torch.float32, this learner's state is torch.float64"):
        load_state(path, make_learner(tail=0.5).double())
    with pytest.raises(ValueError, match=r"belongs to the queries .* cannot be saved"):
        save_state(tmp_path / "q", torch.zeros(2, 1), build("implicit-logits", FAMILY))
    assert names(tmp_path) == ["s"]


def test_what_is_no_state_of_the_learner_is_not_written(tmp_path):
    learner, stranger = build("ridge", FAMILY), build("sgd", FAMILY)
    state = learner.init(2)
    pair = learner.learn(state, FAMILY.sample(2, torch.Generator().manual_seed(1)).support)
    for value in (None, pair, state._asdict(), tuple(state), [state], stranger.init(2), state[0]):
        with pytest.raises(
            ValueError, match=r"the state of this learner is a \w+; got \w+: give what learner"
        ):
            save_state(tmp_path / "s", value, learner)
    with pytest.raises(ValueError, match=r"the state\.rows of this learner is a Tensor; got NoneType"):
        save_state(tmp_path / "s", state._replace(rows=None), learner)
    assert names(tmp_path) == []


def test_a_state_is_its_own_learners(tmp_path):
    with torch.random.fork_rng():
        one, other = (build("bayesian", FAMILY, features=8) for _ in range(2))
    task = FAMILY.sample(2, torch.Generator().manual_seed(1))
    path = save_state(tmp_path / "s", one.adapt(task.support, 4), one)
    assert torch.equal(load_state(path, one).gram, one.adapt(task.support, 4).gram)
    tanh = Learner(deepcopy(one.predictor), one.refiner, one.signal)
    tanh.predictor.activation = torch.tanh
    for stranger in (other, tanh):
        with pytest.raises(ValueError, match="other settings or weights"):
            load_state(path, stranger)
