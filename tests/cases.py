"""Cases from users' reports, each with the right value: `CASES[name](folder)` raises AssertionError where one is wrong.

D: reading rows. E: files, processes, damage. R: what was rough or missing. A case tries siblings of the same kind.
"""

from collections.abc import Callable
from pathlib import Path

from .cases_damage import DAMAGE
from .cases_reading import READING
from .cases_rough import ROUGH
from .cases_rows import ROWS

CASES: dict[str, Callable[[Path], None]] = {**READING, **ROWS, **DAMAGE, **ROUGH}
