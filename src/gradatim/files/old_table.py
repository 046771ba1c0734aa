"""States of tables as version 0.1 wrote them, brought to the present form; they are rewritten at the next save.

Source: the safetensors format, as in `checkpoint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from ..nn.widths import Widths
from .layout import TRIANGLE, Part

if TYPE_CHECKING:
    from torch import Tensor

OLD_FEATURES = 3
"""The version of their features."""

LATER = 3
"""Experts that came later, last of all. They are taken for as unlikely as the least likely one."""

OLD_MEMBER = {
    "scale": Part((1, "D"), sign="positive"),
    "gram": Part((1, TRIANGLE)),
    "cross": Part((1, "D", "C")),
    "squares": Part((1, "C"), sign="nonnegative"),
    "rows": Part((1,), sign="nonnegative"),
    "noise": Part((1, "E", "C"), sign="nonnegative"),
    "log_likelihood": Part((1, "E", "T")),
    "landmarks": Part(("K", "d")),
}
"""What they hold of a member: moments in float32, of features brought to one size, and landmarks that are rows."""


def renewed_header(header: dict[str, Any], has_rows: bool) -> dict[str, Any]:
    """Return the header of an old state in the present form: y has a map of its own, rows are counted.

    `has_rows`: whether its landmarks are rows as they came, which stays known for as long as they are stored.

    Example:
        >>> from gradatim.files.old_table import renewed_header
        >>> renewed_header({"target": [2.0, 0.5], "rows": 40.0}, False)["count"]
        40
    """
    centre, scale = header["target"]
    target = {
        "centre": centre,
        "scale": scale,
        "low": centre - scale,
        "high": centre + scale,
        "has_missing": False,
        "quantiles": [centre],
    }
    renewed = {**header, "target": target, "count": int(header["rows"])}
    return renewed | ({"landmarks": "rows"} if has_rows else {})


def renewed_tensors(tensors: dict[str, Tensor], members: int, is_classes: bool) -> dict[str, Tensor]:
    """Return the tensors of an old state in the present form, of shape `[1, ...]` each; heads are to be solved anew."""
    renewed = {name: tensor for name, tensor in tensors.items() if not name.endswith(".scale")}
    for member in range(members):
        scale = tensors[f"{member}.scale"].double()
        row, column = torch.tril_indices(scale.shape[1], scale.shape[1])
        renewed[f"{member}.gram"] = tensors[f"{member}.gram"].double() * scale[:, row] * scale[:, column]
        renewed[f"{member}.cross"] = tensors[f"{member}.cross"].double() * scale[:, :, None]
        log_likelihood, noise = tensors[f"{member}.log_likelihood"], tensors[f"{member}.noise"]
        later = (0, 0, 0, LATER)
        renewed[f"{member}.log_likelihood"] = pad(log_likelihood, later, value=float(log_likelihood.min()))
        renewed[f"{member}.noise"] = pad(noise, later, value=1.0)
        size = 0 if is_classes else log_likelihood.shape[1] + LATER + 1
        renewed[f"{member}.products"] = torch.zeros(1, size, size, dtype=torch.float64)
        renewed[f"{member}.share"] = torch.zeros(
            1, max(0, size - 1), log_likelihood.shape[2], dtype=torch.float64
        )
        renewed[f"{member}.widths"] = Widths.empty(1, renewed[f"{member}.products"], not is_classes).joined
        renewed[f"{member}.solved"] = torch.zeros(1, dtype=torch.float64)
        renewed[f"{member}.alive"] = torch.zeros(0, dtype=torch.int64)
        renewed[f"{member}.heads"] = torch.zeros(0, dtype=torch.float64)
    return renewed
