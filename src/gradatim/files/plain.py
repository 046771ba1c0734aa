"""Arrow arrays as plain ones: without dictionaries, views, runs and extensions.

Source: Apache Arrow (layouts).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .cells import arrow, kernels

_WITHOUT_VIEWS: Mapping[str, Callable[[], Any]] = {
    "string_view": lambda: arrow().large_string(),
    "binary_view": lambda: arrow().large_binary(),
}


def plain_type(dtype: Any) -> Any:
    """Return the type of the values of a dictionary or an extension, or the type itself.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.plain import plain_type
        >>> plain_type(pyarrow.dictionary(pyarrow.int8(), pyarrow.string()))
        DataType(string)
    """
    if isinstance(dtype, arrow().BaseExtensionType):
        return plain_type(dtype.storage_type)
    if arrow().types.is_dictionary(dtype) or arrow().types.is_run_end_encoded(dtype):
        return plain_type(dtype.value_type)
    return _WITHOUT_VIEWS.get(str(dtype), lambda: dtype)()


def plain_array(column: Any) -> Any:
    """Return an Arrow array `[rows]` without dictionary or extension.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.plain import plain_array
        >>> plain_array(pyarrow.array(["a", "a"]).dictionary_encode()).type
        DataType(string)
    """
    if isinstance(column.type, arrow().BaseExtensionType):
        return plain_array(column.storage)
    types = arrow().types
    if types.is_dictionary(column.type):  # by a cast of its values, since views cannot be taken
        return plain_array(column.dictionary).take(column.indices)
    if types.is_run_end_encoded(column.type):
        return plain_array(kernels().run_end_decode(column))
    return column.cast(plain_type(column.type)) if str(column.type) in _WITHOUT_VIEWS else column
