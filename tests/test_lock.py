"""Locks of files: one holder at a time among threads and processes, no stale lock, no file left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gradatim.files.lock import hidden_name, locked


def count_up(path, times):
    for _ in range(times):
        with locked(path):
            value = int(path.read_text() or 0)
            time.sleep(0.0005)
            path.write_text(str(value + 1))


def hold(path):
    """Start a process that holds the lock until it is killed, and wait until it does."""
    code = (
        "import sys, time\nfrom gradatim.files.lock import locked\n"
        "with locked(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_threads_and_processes_count_every_turn(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count_up, args=(path, 40)) for _ in range(3)]
    workers += [threading.Thread(target=count_up, args=(path, 40)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert path.read_text() == "240"
    assert [file.name for file in tmp_path.iterdir()] == ["count"]


def test_a_held_lock_is_waited_for_and_then_refused(tmp_path):
    process, sentences = hold(tmp_path / "s"), []
    try:
        with (
            pytest.raises(ValueError, match=r"s is in use by another process, for 1\.2 s .* try again"),
            locked(tmp_path / "s", wait=1.2, notify=sentences.append),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    assert len(sentences) == 1
    assert "waiting for it" in sentences[0]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_leaves_no_stale_lock(tmp_path, sign):
    process = hold(tmp_path / "s")
    process.send_signal(sign)
    process.wait()
    with locked(tmp_path / "s", wait=0.5):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_and_its_target_share_one_lock(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/s").write_text("")
    (tmp_path / "link").symlink_to("far/s")
    with (
        locked(tmp_path / "link"),
        pytest.raises(ValueError, match="in use by another process"),
        locked(tmp_path / "far/s", wait=0.0),
    ):
        pass
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["far", "link", "s"]


def test_what_was_raised_inside_passes_and_frees_the_lock(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "s", wait=0.0):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_made_go_again_unless_they_are_used(tmp_path):
    with locked(tmp_path / "a/b/s"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a/b/s"):
        (tmp_path / "a/b/s").write_text("x")
    assert (tmp_path / "a/b/s").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "file above"])
def test_what_cannot_be_locked_is_refused(tmp_path, kind):
    place = tmp_path / ".s.lock"
    path = tmp_path / "s"
    if kind == "link":
        place.symlink_to(tmp_path / "victim")
    elif kind == "folder":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        path.write_text("x")
        path = path / "s"
    with (
        pytest.raises(ValueError, match=r"s cannot be locked .*use a folder that can be written to"),
        locked(path),
    ):
        pass
    assert not (tmp_path / "victim").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be locked"), locked(tmp_path / "s"):
        pass
    tmp_path.chmod(0o700)


def test_long_names_get_short_locks(tmp_path):
    name = "ä" * 127
    with locked(tmp_path / name):
        (tmp_path / name).write_text("x")
    assert len(os.fsencode(hidden_name(name, "lock"))) < 60
    assert [file.name for file in tmp_path.iterdir()] == [name]
