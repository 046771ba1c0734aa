"""Image data sets from IDX files (plain or gzipped) and npz files.

A source lies in `$GRADATIM_DATA/images/<source>/`. Nothing is downloaded.

Source: LeCun, Cortes, Burges 1998, the MNIST database, "file formats" (IDX).
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..names import nearest
from .archives import (
    FAULTS,
    MAX_BYTES,
    MAX_RATIO,
    Member,
    list_npz,
    read_exactly,
    reason_of,
    regular_file,
)

PUBLISHED = {
    "mnist": "https://yann.lecun.com/exdb/mnist/",
    "fashion_mnist": "https://github.com/zalandoresearch/fashion-mnist",
    "kmnist": "https://codh.rois.ac.jp/kmnist/",
    "emnist": "https://www.nist.gov/itl/products-and-services/emnist-dataset",
    "notmnist": "https://github.com/davidflanagan/notMNIST-to-MNIST",
}
SOURCES = ("digits", *PUBLISHED)


class LabelledImages(NamedTuple):
    """Images and their labels.

    Fields: `images`: `[n, pixels]` uint8; `labels`: `[n]` int64 in 0 .. classes - 1.
    """

    images: np.ndarray
    labels: np.ndarray


def check_source(source: object) -> None:
    """Check that a name is a source of images.

    Raises:
        ValueError: it is not; the message suggests the nearest name.

    Example:
        >>> from gradatim.families.images import check_source
        >>> check_source("minst")
        Traceback (most recent call last):
        ValueError: source must be one of ...; got 'minst': did you mean 'mnist'?
    """
    if source in SOURCES:
        return
    near = nearest(str(source).lower(), SOURCES, cutoff=0.4)
    hint = "" if near is None else f": did you mean {near!r}?"
    raise ValueError(f"source must be one of {', '.join(SOURCES)}; got {source!r}{hint}")


def image_folder(source: str) -> Path:
    """Return the folder of a source's files, `$GRADATIM_DATA/images/<source>`.

    Raises:
        ValueError: the variable is not set, or the folder does not exist; the message says where the files are
            published.

    Example:
        >>> import os, pathlib
        >>> from unittest import mock
        >>> from gradatim.families.images import image_folder
        >>> pathlib.Path("images/mnist").mkdir(parents=True, exist_ok=True)
        >>> with mock.patch.dict(os.environ, GRADATIM_DATA="."):
        ...     print(image_folder("mnist"))
        images/mnist
    """
    root = os.environ.get("GRADATIM_DATA")
    contents = (
        f"train-images-idx3-ubyte.gz and its three companions, or npz files; published at {PUBLISHED[source]}"
    )
    if not root:
        raise ValueError(
            f"source {source!r} is read from files: set the environment variable GRADATIM_DATA to a folder that "
            f"holds images/{source}/ with {contents}"
        )
    folder = Path(root) / "images" / source
    if not folder.is_dir():
        raise ValueError(f"source {source!r} needs the folder {folder} (below GRADATIM_DATA) with {contents}")
    return folder


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file of unsigned bytes, of the shape in its header.

    A file whose name ends with .gz is unpacked.

    Raises:
        ValueError: the file is truncated, not gzip, or not IDX of unsigned bytes.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.families.images import read_idx
        >>> header = bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big")
        >>> _ = Path("labels.idx").write_bytes(header + bytes([5, 0, 4]))
        >>> read_idx(Path("labels.idx"))
        array([5, 0, 4], dtype=uint8)
    """
    return list_idx(path).read()


def list_idx(path: Path) -> Member:
    """Return the array of an IDX file of unsigned bytes, as it says to be in its header; its pixels are not read.

    Raises:
        ValueError: as `read_idx`.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.families.images import list_idx
        >>> _ = Path("labels.idx").write_bytes(bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + bytes([5, 0, 4]))
        >>> list_idx(Path("labels.idx")).shape
        (3,)
    """

    with _opened(path) as (file, size):
        magic = file.read(4)
        lengths = file.read(4 * magic[3]) if len(magic) == 4 else b""
    if magic[:3] != b"\x00\x00\x08" or len(magic) < 4 or len(lengths) < 4 * magic[3]:
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes; it begins with {magic.hex() or 'nothing'}"
        )
    shape, header = tuple(int(length) for length in np.frombuffer(lengths, ">u4")), 4 + len(lengths)
    count, packed = math.prod(shape), path.suffix == ".gz"
    # a packed file says its size only at the end; it cannot be more than this
    if count > min(MAX_BYTES, MAX_RATIO * size) if packed else count != size - header:
        raise ValueError(
            f"{path} must hold {count} bytes for shape {shape}; got {size - header}{' packed' if packed else ''}: "
            "the file is truncated or has been changed, fetch it again"
        )

    def read() -> np.ndarray:
        with _opened(path) as (file, _):
            file.read(header)
            return np.frombuffer(read_exactly(file, count), np.uint8).reshape(shape)

    return Member(shape, read)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield an IDX file, unpacked, and its size on disk; what goes wrong becomes one sentence."""
    try:
        with regular_file(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw) as file:
                    yield file, size
            else:
                yield raw, size
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read ({reason_of(error)}): fetch the file again") from error


def _bytes(name: str, images: np.ndarray) -> np.ndarray:
    """Return images as uint8 `[n, pixels]`; floats up to 1 are scaled by 255."""
    flat = images.reshape(len(images), -1)
    if flat.dtype == np.uint8:
        return flat
    scaled = flat * 255.0 if np.issubdtype(flat.dtype, np.floating) and flat.max() <= 1 else flat
    if not np.isfinite(scaled).all() or scaled.min() < 0 or scaled.max() > 255:
        raise ValueError(
            f"pixels of {name} must lie in 0..255, or be floats in 0..1; got {flat.min()} to {flat.max()}"
        )
    return np.rint(scaled).astype(np.uint8)


def _pick(
    arrays: dict[str, Member], test: bool, labels: bool, source: str, folder: Path
) -> tuple[str, np.ndarray]:
    """Return name and array of one part (training or test, images or labels), recognised by name and shape."""

    def fits(name: str, array: Member) -> bool:
        is_test = "test" in name.lower() or "t10k" in name.lower()
        is_labels = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
        return is_test == test and is_labels == labels and array.ndim > 0

    matches = [(name, array) for name, array in arrays.items() if fits(name, array)]
    if len(matches) == 1:
        return matches[0][0], matches[0][1].read()
    part, kind = ("t10k", "test") if test else ("train", "training")
    idx = f"{part}-labels-idx1-ubyte.gz" if labels else f"{part}-images-idx3-ubyte.gz"
    what = f"the {kind} {'labels' if labels else 'images'} of {source!r}"
    if not matches:
        raise ValueError(
            f"missing {idx} (or an npz array with {what}) in {folder}; it holds "
            f"{', '.join(sorted(arrays)) or 'no IDX or npz file'}: the files are published at {PUBLISHED[source]}"
        )
    names = ", ".join(sorted(name for name, _ in matches))
    raise ValueError(f"{what} must be one array in {folder}; found {names}: leave one of them there")


def load_images(source: str, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Return the official training and test images of a source.

    All IDX and npz files in the folder are looked at. An array with "test" or "t10k" in its name is of the test part.
    An array of one column holds labels. Labels become 0 .. classes - 1 in the order of their values.

    Args:
        source: its name, for messages.
        folder: of the files.

    Returns:
        The training and the test part, each with images `[n, pixels]` and labels `[n]`.

    Raises:
        ValueError: a file is missing, occurs twice or is damaged; images and labels differ in number; unknown labels.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from gradatim.families.images import load_images
        >>> folder, images = Path("mnist"), np.zeros((4, 28, 28), dtype=np.uint8)
        >>> folder.mkdir(exist_ok=True)
        >>> np.savez(folder / "train.npz", images=images, labels=[7, 7, 9, 9])
        >>> np.savez(folder / "test.npz", images=images[:1], labels=[9])
        >>> train, test = load_images("mnist", folder)
        >>> train.images.shape, train.labels, test.labels
        ((4, 784), array([0, 0, 1, 1]), array([1]))
    """
    arrays: dict[str, Member] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            arrays |= {f"{path.stem}/{key}": member for key, member in list_npz(path).items()}
        elif path.name.removesuffix(".gz").endswith(("-ubyte", ".idx")):
            arrays[path.name] = list_idx(path)
    parts, values = [], np.empty(0)
    for test in (False, True):
        name, images = _pick(arrays, test, False, source, folder)
        label_name, labels = _pick(arrays, test, True, source, folder)
        labels = labels.reshape(-1)
        if len(images) != len(labels) or len(labels) == 0:
            raise ValueError(
                f"{name} and {label_name} in {folder} must pair up; got {len(images)} and {len(labels)} rows"
            )
        if not test:
            values = np.unique(labels)
        elif not np.isin(labels, values).all():
            raise ValueError(
                f"{label_name} in {folder} has labels that the training part lacks: are both of one set?"
            )
        parts.append(LabelledImages(_bytes(name, images), np.searchsorted(values, labels).astype(np.int64)))
    if parts[0].images.shape[1] != parts[1].images.shape[1]:
        raise ValueError(f"training and test images in {folder} must be of one size: are both of one set?")
    return parts[0], parts[1]
