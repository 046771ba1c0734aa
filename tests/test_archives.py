"""Archives of arrays: sizes are checked before anything is unpacked, and whatever is wrong is one sentence."""

import gzip
import io
import os
import random
import struct
import warnings
import zipfile

import numpy as np
import pytest

from gradatim.families import archives, images
from gradatim.families.archives import list_npz, read_npz
from gradatim.families.images import list_idx, load_images, read_idx


def npy(shape, dtype="<f8", content=b""):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that stands twice
                file.writestr(name, content)
    return path


def test_what_is_written_is_read(tmp_path):
    wanted = {
        "plain": np.arange(12.0).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
        "words": np.array([["a", "bcd"]]),
        "big-endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 5)),
        "single": np.array(7),
        "truths": np.array([True, False]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **wanted)
        found = read_npz(tmp_path / "a.npz")
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            np.testing.assert_array_equal(found[key], array)
            assert found[key].dtype == array.dtype
            assert found[key].flags.writeable
        assert read_npz(tmp_path / "a.npz", ["words", "none"]).keys() == {"words"}


def test_only_what_is_wanted_is_unpacked(tmp_path, monkeypatch):
    sizes = []
    whole = archives.read_exactly
    monkeypatch.setattr(
        archives, "read_exactly", lambda file, count: sizes.append(count) or whole(file, count)
    )
    np.savez(tmp_path / "a.npz", first=np.zeros(100), second=np.zeros(7))
    assert {key: member.shape for key, member in list_npz(tmp_path / "a.npz").items()} == {
        "first": (100,),
        "second": (7,),
    }
    assert sizes == []
    read_npz(tmp_path / "a.npz", ["second"])
    assert sizes == [56]


ODD_NPZ = {
    "more rows than bytes": [("a.npy", npy((10**9,), content=bytes(80)))],
    "a product beyond 64 bits": [("a.npy", npy((2**33, 2**31), content=bytes(80)))],
    "a negative axis": [("a.npy", npy((-1, -10), content=bytes(80)))],
    "objects": [("a.npy", npy((1,), "|O", bytes(8)))],
    "records": [("a.npy", npy((1,), "|V8", bytes(8)))],
    "a type of arrays": [("a.npy", npy((1,), "(1000000,1000000)f8", bytes(8)))],
    "texts of nothing": [("a.npy", npy((10**12,), "<U0"))],
    "a bomb": [("a.npy", npy((2**24,), "|u1", bytes(2**24)) + bytes(2**24))],
    "the same name twice": [("a.npy", npy((0,))), ("a.npy", npy((0,)))],
    "no header": [("a.npy", b"\x93NUMPY\x01\x00\xff\xff{")],
    "a header that is code": [("a.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')")],
    "a header without end": [("a.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': '''abc")],
    "a nest": [("a.npy", b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 8192)],
    "another format": [("a.npy", b"\x93NUMPY\x09\x00" + bytes(80))],
    "no array": [("a.txt", b"hello")],
}


@pytest.mark.parametrize("members", ODD_NPZ.values(), ids=ODD_NPZ)
def test_odd_archives_are_refused(tmp_path, members):
    path = archive(tmp_path / "odd.npz", members)
    for read in (read_npz, list_npz):
        with pytest.raises(
            ValueError, match=r"odd.npz cannot be read as npz without pickles \(.+\): write"
        ) as said:
            read(path)
        assert "\n" not in str(said.value)


def test_other_ways_of_packing_are_refused(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = archive(tmp_path / "odd.npz", [("a.npy", npy((1,), content=bytes(8)))], method)
        with pytest.raises(ValueError, match="packed in another way"):
            read_npz(path)


def test_damaged_archives_are_read_or_refused(tmp_path):
    stream = random.Random(0)
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((30, 4), dtype=np.uint8), labels=np.arange(3))
    idx = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + bytes(24)
    for name, content, read in (
        ("a.npz", file.getvalue(), read_npz),
        ("a.idx", idx, read_idx),
        ("a.idx.gz", gzip.compress(idx), read_idx),
    ):
        path = tmp_path / name
        for turn in range(300):
            changed = bytearray(content)
            place = stream.randrange(len(content))
            if turn % 3:
                changed[place] ^= 1 << stream.randrange(8)
            else:
                changed = changed[:place]
            path.write_bytes(changed)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    read(path)
                except ValueError as error:
                    assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_cannot_declare_more_than_it_holds(tmp_path, suffix):
    path = tmp_path / f"big-ubyte{suffix}"
    for shape in ((2**31, 2**31, 2**31, 4), (2**32 - 1,), (10**6, 100)):
        content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + b"abc"
        path.write_bytes(gzip.compress(content) if suffix else content)
        for read in (read_idx, list_idx):
            with pytest.raises(
                ValueError, match=r"big-ubyte(.gz)? must hold \d+ bytes for shape .*truncated"
            ):
                read(path)
    content = b"\0\0\x08\x01" + struct.pack(">I", 5) + bytes(7)
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ValueError, match=r"big-ubyte.*(more than the 5|must hold 5)"):
        read_idx(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_pipe_is_not_waited_for(tmp_path):
    for name, read in (("a.npz", read_npz), ("a.idx", read_idx), ("a.idx.gz", read_idx)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} cannot be read .*no regular file"):
            read(tmp_path / name)


def test_a_folder_of_images_unpacks_four_arrays(tmp_path, monkeypatch):
    x, y = np.zeros((4, 2, 2), dtype=np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x, y_test=y, cube=np.zeros((3, 3, 3, 3)), none=np.array(1))
    with pytest.raises(ValueError, match="must be one array"):
        load_images("kmnist", tmp_path)
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x, y_test=y, none=np.array(1))
    whole, calls = images.list_npz, []
    monkeypatch.setattr(images, "list_npz", lambda path: calls.append(path) or whole(path))
    train, test = load_images("kmnist", tmp_path)
    assert train.images.shape == test.images.shape == (4, 4)
    assert len(calls) == 1
