"""Rows that are learnt on a cluster of Ray while workers are killed: what `studies.tables.ray` measures.

Source: Moritz et al. 2018 (Ray).
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from .peers import fingerprint
from .verdicts import constant, unmeasured

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study

NAMES = ("ray", "ray_difference")
MODULE, SOURCE = "studies.tables.ray", "distributed"
"""What measures, and the folder of gradatim that is measured."""


def ray_claims(study: Study, smoke: bool) -> list[dict[str, Any]]:
    """Return the claims on rows lost or counted twice, and on probabilities that differ from one process'."""
    reason = "a smoke run starts no cluster" if smoke else lacking()
    if reason:
        return [unmeasured(name, reason) for name in NAMES]
    module = import_module(MODULE)
    text = Path(str(module.__file__)).read_bytes()
    depends = [fingerprint(SOURCE), f"ray {version('ray')}", hashlib.sha256(text).hexdigest()[:12]]

    def compute() -> Values:
        study.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=study.folder) as folder:
            return {key: np.asarray(value) for key, value in module.measure(Path(folder)).items()}

    values = study.cached("ray", depends, compute)
    more = {
        key.removeprefix("tables.ray_"): float(values[key]) for key in values if key.startswith("tables.")
    }
    return [constant(name, float(values[f"tables.{name}"]), measured=more) for name in NAMES]


def lacking() -> str:
    """Return why nothing can be measured, or nothing."""
    if find_spec(MODULE) is None:
        return "not built yet"
    return "" if find_spec("ray") else "ray is not installed"
