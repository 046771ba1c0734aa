"""Writing: whatever fails, the old file or the new one is there and complete, and nothing else is left."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from gradatim import RefinedClassifier
from gradatim.files import container, replace
from gradatim.files.checkpoint import read, save_checkpoint, write
from gradatim.files.replace import Replacement, write_bytes

OLD, NEW = {"weights.a": torch.zeros(300)}, {"weights.a": torch.ones(300)}
HEADER = {"kind": "checkpoint"}
CALLS = ["open", "write", "flush", "fsync", "fchmod", "read", "replace"]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def fail(monkeypatch, call, kind):
    """Let one step of a write raise, once the file has been opened."""

    def broken(*_, **__):
        raise kind

    if call == "read":
        monkeypatch.setattr(container, "_read_head", broken)
    elif call in ("write", "flush"):
        create = replace._create

        def create_broken(target):
            path, file = create(target)
            wrapped = Broken(file, call, kind)
            return path, wrapped

        monkeypatch.setattr(replace, "_create", create_broken)
    else:
        monkeypatch.setattr(os, call, broken)


class Broken:
    """A file one of whose methods fails after half of the content."""

    def __init__(self, file, call, kind):
        self.file, self.call, self.kind = file, call, kind

    def __getattr__(self, name):
        if name != self.call:
            return getattr(self.file, name)

        def broken(*content):
            for part in content:
                self.file.write(bytes(part)[: len(part) // 2])
            raise self.kind

        return broken


@pytest.mark.parametrize(
    "kind", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_at_any_step_leaves_the_old_file(tmp_path, monkeypatch, call, kind):
    path = write(tmp_path / "w", OLD, HEADER)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        fail(patched, call, kind)
        refused = ValueError if isinstance(kind, OSError) else type(kind)
        with pytest.raises(refused):
            write(path, NEW, HEADER)
        if call != "fchmod":  # a new file has the permissions of the umask
            with pytest.raises(refused):
                write(tmp_path / "new" / "w", NEW, HEADER)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["w"]
    assert torch.equal(read(write(path, NEW, HEADER))[0]["weights.a"], NEW["weights.a"])


def test_what_cannot_be_read_back_does_not_replace_the_good_one(tmp_path, monkeypatch):
    path = write(tmp_path / "w", OLD, HEADER)

    def refuse(new):
        raise ValueError(f"{new} is not positive definite")

    with pytest.raises(
        ValueError, match=r"w was not written, .* stays: what was written is not positive definite"
    ):
        write(path, NEW, HEADER, verify=refuse)
    encode = container.encode
    monkeypatch.setattr(
        "gradatim.files.checkpoint.encode", lambda *parts: (encode(*parts)[0], b"\x01" * 1200)
    )
    with pytest.raises(ValueError, match=r"w was not written, .*what was written is damaged: its checksum"):
        write(path, NEW, HEADER)
    assert torch.equal(read(path)[0]["weights.a"], OLD["weights.a"])
    assert names(tmp_path) == ["w"]


def test_a_temporary_name_cannot_be_foreseen_and_no_link_is_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    seen = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(Path(a).name), real(a, b)))
    for _ in range(2):
        write_bytes(tmp_path / "w", b"content")
    assert len(set(seen)) == 2
    monkeypatch.setattr(replace.secrets, "token_hex", lambda _: "0123456789abcdef")
    (tmp_path / ".w.0123456789abcdef.tmp").symlink_to(victim)
    with pytest.raises(ValueError, match="w could not be written"):
        write_bytes(tmp_path / "w", b"other")
    assert (victim.read_text(), (tmp_path / "w").read_bytes()) == ("mine", b"content")


def test_permissions_are_those_of_the_file_or_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new", b"x")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
        for mode in (0o600, 0o664, 0o444):
            (tmp_path / "new").chmod(mode)
            write_bytes(tmp_path / "new", b"y")
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gradatim.files.replace import Replacement\n"
        "new = Replacement(Path(sys.argv[1]))\nnew.file.write(b'half')\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    for sign in (signal.SIGKILL, signal.SIGTERM):
        command = [sys.executable, "-c", code, str(tmp_path / "w")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        write_bytes(tmp_path / "w", b"other")  # what is being written is left alone
        assert len(names(tmp_path)) == 2
        process.send_signal(sign)
        process.wait()
    (tmp_path / ".w.4711.tmp").write_bytes(b"of gradatim 0.1")
    for name in (".w.mine.tmp", ".w.tmp", ".v.0123456789abcdef.tmp", "w.0123456789abcdef.tmp"):
        (tmp_path / name).touch()
    write_bytes(tmp_path / "w", b"new")
    kept = {".w.mine.tmp", ".w.tmp", ".v.0123456789abcdef.tmp", "w", "w.0123456789abcdef.tmp"}
    assert set(names(tmp_path)) == kept


def test_a_run_removes_what_was_left_of_its_files(tmp_path):
    new = Replacement(tmp_path / "step-00000001.safetensors")
    for name in ("step-00000002.safetensors", "log.jsonl", "run.json", "learner.safetensors"):
        (tmp_path / f".{name}.0123456789abcdef.tmp").touch()
    save_checkpoint(tmp_path, 3, OLD, HEADER)
    assert len(names(tmp_path)) == 2  # the checkpoint, and what is being written
    new.discard()
    assert names(tmp_path) == ["step-00000003.safetensors"]


def test_threads_that_save_one_path_all_succeed(tmp_path):
    errors = []

    def save():
        try:
            for _ in range(20):
                write(tmp_path / "w", NEW, HEADER)
        except ValueError as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(tmp_path) == ["w"]


def test_a_reader_sees_one_file_wholly_while_it_is_replaced(tmp_path):
    """The header of one state and the tensors of another were read in 4 of 100."""
    path, stop = tmp_path / "w", threading.Event()
    contents = [(torch.full((20_000,), float(k)), {"kind": "checkpoint", "k": k}) for k in range(2)]
    write(path, {"weights.a": contents[0][0]}, contents[0][1])

    def turn():
        while not stop.is_set():
            for tensor, header in contents:
                write(path, {"weights.a": tensor}, header)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        for _ in range(300):
            tensors, header = read(path)
            assert bool((tensors["weights.a"] == header["k"]).all())
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_pipe_a_device_and_a_loop_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path / "circle", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read .*check the path"):
            read(path)
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read .*check the path"):
            RefinedClassifier.load(path)


def test_a_file_that_declares_more_than_there_is_allocates_nothing(tmp_path):
    path = tmp_path / "w"
    with path.open("wb") as file:
        file.write((2**62).to_bytes(8, "little"))
        file.truncate(10**12)  # sparse
    with pytest.raises(ValueError, match="w is not a file of gradatim"):
        read(path)
