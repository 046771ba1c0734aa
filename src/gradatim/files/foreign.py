"""Files that hold no table that is read: what kind they are, by their first bytes or their name, and what to do.

Source: the signatures (first bytes) of these formats, as their specifications give them.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_CONVERT = "save it as CSV or Parquet (pandas: {}(...).to_parquet('table.parquet'))"
_EXPORT = "export its table as CSV or Parquet"
_UNPACK = "unpack it, and give one table, or a folder of tables with the same columns"
_PICKLE = "a pickle, which is never opened: save the table as CSV or Parquet (to_parquet)"
_R = "a file of R: save its table there, write.csv(table, 'table.csv', row.names = FALSE)"
_TAR = f"a tar archive: {_UNPACK}"
_STATA, _SPSS = (
    f"{name} file: {_CONVERT.format(f'pandas.read_{reader}')}"
    for name, reader in (("a Stata", "stata"), ("an SPSS", "spss"))
)
_SAS = f"a SAS file: {_CONVERT.format('pandas.read_sas')}"
_PICTURE = "a picture: give a table of numbers and words"

FEW_BYTES = 3
"""Bytes that stand for no character, of which so many make no file binary, however short it is."""

_FIRST_BYTES = {
    b"\xd0\xcf\x11\xe0": f"an Excel workbook: {_CONVERT.format('pandas.read_excel')}",
    b"\x89HDF": f"an HDF5 file: {_CONVERT.format('pandas.read_hdf')}",
    b"ORC": f"an ORC file: {_CONVERT.format('pandas.read_orc')}",
    b"FEA1": f"a Feather file of version 1: {_CONVERT.format('pandas.read_feather')}",
    b"Obj\x01": "an Avro file: save it as CSV or Parquet",
    b"\x93NUMPY": "a NumPy array: save it as CSV (numpy.savetxt) or as Parquet",
    b"SQLite format 3\0": f"an SQLite database: {_CONVERT.format('pandas.read_sql')}",
    b"\x00\x01\x00\x00Standard ": f"an Access database: {_EXPORT}",
    b"%PDF-": "a PDF document: copy its table into a CSV file",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
    **dict.fromkeys((b"X\n\0", b"RDX2\n", b"RDX3\n", b"RDA2\n", b"RDA3\n"), _R),
    b"<stata_dta>": _STATA,
    **dict.fromkeys((b"$FL2", b"$FL3"), _SPSS),
    **dict.fromkeys((bytes(12) + b"\xc2\xea\x81\x60", b"HEADER RECORD*******"), _SAS),
    b"MATLAB ": "a MATLAB file: save its table as CSV there (writetable)",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive: {_UNPACK}",
    b"Rar!\x1a\x07": f"a RAR archive: {_UNPACK}",
    b"\x04\x22\x4d\x18": "compressed by lz4, which is not read: unpack it, or compress it by gzip or zstd",
    b"\x1f\x9d": "compressed by compress, which is not read: unpack it, or compress it by gzip or zstd",
    b"PK\x05\x06": "an empty zip archive: give a file with a table",
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8"), _PICTURE),
}
_SUFFIXES = {
    **dict.fromkeys((".rds", ".rda", ".rdata"), _R),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLE),
    **dict.fromkeys((".tar", ".tgz", ".tbz", ".tbz2", ".txz"), _TAR),
    ".dta": _STATA,
    **dict.fromkeys((".sav", ".zsav", ".por"), _SPSS),
    **dict.fromkeys((".sas7bdat", ".xpt"), _SAS),
    ".dbf": f"a dBase file: {_EXPORT}",
    **dict.fromkeys(
        (".xls", ".xlsx", ".xlsm", ".xlsb"), f"an Excel workbook: {_CONVERT.format('pandas.read_excel')}"
    ),
}
_WORDS = (b"ORC", b"FEA1", b"MATLAB ", b"HEADER", b"GIF8", b"$FL")
_CONTROL = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]")
_SPELT = re.compile(rb"A\n[23]\n|.*(?:p0\n|SPSS PORT FILE)", re.DOTALL)
"""Files of R, pickles and portable files of SPSS that are spelt in letters."""

_HOLDS_TABLE = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow", ".feather")
_LINE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*[,;\t|][\t\x20-\x7e\x80-\xff]*\r?\n")


def is_text(start: bytes) -> bool:
    """Return whether a file begins with a line of printable fields, or with printable lines alone.

    It is a table then, whatever its first letters are.

    Example:
        >>> from gradatim.files.foreign import is_text
        >>> is_text(b"ORC,y\\n1,2\\n"), is_text(b"ORC\\n1\\n2\\n"), is_text(b"ORC\\x0a\\x06\\x12\\x04")
        (True, True, False)
    """
    is_column = b"\n" in start and _CONTROL.search(start) is None and _SPELT.match(start) is None
    return is_column or _LINE.match(start) is not None


def refuse_foreign(label: str, suffix: str, start: bytes) -> None:
    """Refuse a file of a kind that is not read.

    Args:
        label: its name in messages.
        suffix: the end of its name.
        start: its first bytes, decompressed.

    Raises:
        ValueError: the message says what kind it is, and what to do.

    Example:
        >>> from gradatim.files.foreign import refuse_foreign
        >>> refuse_foreign("old.csv", ".csv", b"RDX3\\nX\\n")
        Traceback (most recent call last):
        ValueError: old.csv is a file of R: save its table there, write.csv(...)
    """
    is_table = is_text(start)
    kind = next((kind for magic, kind in _FIRST_BYTES.items() if start.startswith(magic)), "")
    if is_table and start.startswith(_WORDS):
        kind = ""
    if _is_tar(start):
        kind = _TAR
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < 2**32:
        kind = "a safetensors file, such as a state: give a table here, and the state with --state"
    if start[8:12] == b"DUCK" and b"\0" in start[12:20]:
        kind = f"a DuckDB database: {_EXPORT}"
    if re.match(rb"@relation[ \t]", start, re.IGNORECASE) and (
        not is_table or b"@attribute" in start.lower()
    ):
        kind = f"an ARFF file: {_EXPORT}"
    if not kind and not is_table:
        kind = _SUFFIXES.get(suffix.lower(), "")
    if kind:
        raise ValueError(f"{label} is {kind}")


def _is_tar(start: bytes) -> bool:
    """Return whether bytes begin with the header of a tar archive, which holds the sum of its bytes."""
    digits = start[148:156].strip(b" \0")
    if start[257:262] != b"ustar" or len(start) < 512 or not re.fullmatch(rb"[0-7]+", digits):
        return False
    return sum(start[:148]) + 8 * ord(" ") + sum(start[156:512]) == int(digits, 8)


def refuse_archive(label: str, names: Sequence[str]) -> None:
    """Refuse a zip archive that is a document, by the names in it.

    Raises:
        ValueError: the message says what kind it is, and what to do.

    Example:
        >>> from gradatim.files.foreign import refuse_archive
        >>> refuse_archive("a.zip", ["[Content_Types].xml", "word/document.xml"])
        Traceback (most recent call last):
        ValueError: a.zip is a document of Word or PowerPoint: copy its table into a CSV file
    """
    folders = {Path(name).parts[0] for name in names if Path(name).parts}
    holds_table = any(Path(name).suffix.lower() in _HOLDS_TABLE for name in names)
    kind = ""
    if "[Content_Types].xml" in names:
        kind = _SUFFIXES[".xlsx"]
        if folders & {"word", "ppt"}:
            kind = "a document of Word or PowerPoint: copy its table into a CSV file"
    elif names and all(name.endswith(".npy") for name in names):
        raise ValueError(f"{label} holds NumPy arrays: save the table as CSV (numpy.savetxt) or as Parquet")
    elif holds_table:
        return
    elif any(Path(name).name == "data.pkl" for name in names):
        kind = _PICKLE
    elif any(name.endswith(".iwa") for name in names):
        kind = "a document of Numbers or Pages: export its table as CSV"
    elif "mimetype" in names or "content.xml" in names:
        kind = "an OpenDocument file: save it as CSV"
    if kind:
        raise ValueError(f"{label} is {kind}")


def is_binary(start: bytes, delimiter: str | None = None) -> bool:
    """Return whether bytes are neither text of one byte a letter nor UTF-16: many of them stand for no character.

    Args:
        start: the first bytes of a file.
        delimiter: the character between its fields, if the user says so: it is text, whatever it is.

    Example:
        >>> from gradatim.files.foreign import is_binary
        >>> is_binary("a,é\\n".encode("latin-1")), is_binary("a,b\\n".encode("utf-16")), is_binary(bytes(range(32)))
        (False, False, True)
    """
    codes = np.frombuffer(start[:4096], np.uint8)
    zeros = [int((codes[first::2] == 0).sum()) for first in (0, 1)]
    if max(zeros) > len(codes) / 8 and min(zeros) <= max(zeros) / 8:
        return False
    if not zeros[0] + zeros[1] and _is_utf_8(start[:4096]):
        return False
    is_odd = ((codes < 9) | ((codes > 13) & (codes < 26))) & (codes != ord(delimiter or ","))
    return bool(is_odd.sum() > max(len(codes) / 50, FEW_BYTES))


def _is_utf_8(start: bytes) -> bool:
    """Return whether bytes are UTF-8, but for a character that the end may cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True
