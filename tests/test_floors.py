"""The house: every module of gradatim stands on a floor and imports only from the floors below it.

A new file or folder is placed in FLOORS here and in the picture of `docs/architecture.md`, in the same commit.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "gradatim"

# From the ground up. A trailing slash is a folder: everything in it is one room, whose files may import one another.
FLOORS = {
    1: ["batch", "tree", "provenance", "names", "distances", "interface", "blocks/", "nn/"],
    2: ["likelihood", "predictor", "config", "files/"],
    3: ["predictors/", "signal", "family"],
    4: ["refiner", "families/", "language/"],
    5: ["refiners/", "learner"],
    6: ["regimes", "committees", "metrics", "generation", "probing/", "stopping/", "regularizers/"],
    7: ["training/", "preprocessing/", "prompting/"],
    8: ["registry", "table_features", "table_spread", "memory/"],
    9: ["methods/", "table_task"],
    10: ["recipes", "testing/", "one_row", "forgetting", "groups/"],
    11: ["estimators/", "comparison/", "progressive"],
    12: ["__init__"],
    13: ["commands/"],
    14: ["cli", "distributed/"],
    15: ["__main__"],
}
# Modules of gradatim that a room must not import although they stand on a lower floor.
FORBIDDEN = {"refiners/": ["predictors/", "families/"], "families/": ["learner", "refiner", "refiners/"]}
# Packages that only these files and folders may import.
RESERVED = {
    "lightning_fabric": ["training/engine"],
    "lightning": ["training/engine"],
    "sklearn": ["interface", "nn/trees", "estimators/", "groups/", "families/datasets", "commands/demo"],
    "matplotlib": ["probing/plots", "comparison/plots"],
    "ray": ["distributed/"],
    "transformers": ["language/"],
    "peft": ["language/"],
}
# Packages of the extras: imported inside a function, never when a module is imported.
LAZY = ["matplotlib", "peft", "pyarrow", "ray", "tensorboard", "torch.utils.tensorboard", "transformers"]
PRINTERS = ["cli"]
FILE_LINES = 400  # a file is shorter
FUNCTION_LINES = 60  # so is a function


class Module:
    """One file: its dotted name below the package (a folder's `__init__` is named as the folder) and its tree."""

    def __init__(self, file: Path, root: Path) -> None:
        parts = file.relative_to(root).with_suffix("").parts
        self.file = "/".join(parts)
        self.name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        self.package = [root.name, *parts[:-1]]
        self.text = file.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)

    def imports(self, body: ast.AST | None = None) -> Iterator[tuple[str, list[str]]]:
        """Yield each import as (absolute module, names), those in functions and under TYPE_CHECKING included."""
        for node in ast.walk(body or self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, []) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self.package[: len(self.package) + 1 - node.level] if node.level else []
                yield ".".join([*above, *filter(None, [node.module])]), [alias.name for alias in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield from ((str(arg.value), []) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def modules(root: Path) -> dict[str, Module]:
    found = (Module(file, root) for file in sorted(root.rglob("*.py")))
    return {module.name: module for module in found}


def room(name: str) -> tuple[int, str] | None:
    """Return a module's floor and the entry of FLOORS it belongs to, or None where it is not on the list."""
    for floor, entries in FLOORS.items():
        for entry in entries:
            if name == entry or (entry.endswith("/") and within(name.replace(".", "/"), [entry])):
                return floor, entry
    return None


def within(file: str, entries: list[str]) -> bool:
    """Say whether a file is one of the entries or lies below one that is a folder."""
    return any(file == entry or (entry.endswith("/") and (file + "/").startswith(entry)) for entry in entries)


def edges(house: dict[str, Module], module: Module, package: str) -> Iterator[str]:
    """Yield the modules of the house that a module imports; the bare package yields the empty string."""
    for target, names in module.imports():
        if target.split(".")[0] != package:
            continue
        inner = target.removeprefix(package).removeprefix(".")
        if not inner:
            yield ""
        submodules = [f"{inner}.{name}" for name in names if inner and f"{inner}.{name}" in house]
        yield from submodules or ([inner] if inner else [])


def unplaced(root: Path) -> list[str]:
    house = modules(root)
    folders = sorted({module.package[1] for module in house.values() if len(module.package) > 1})
    return [
        f"{module.file}.py stands on no floor: place it in FLOORS and in docs/architecture.md"
        for name, module in house.items()
        if room(name) is None
    ] + [f"{folder}/ has no __init__.py" for folder in folders if folder not in house]


def wrong_imports(root: Path) -> list[str]:
    house = modules(root)
    faults = []
    for name, module in house.items():
        here = room(name)
        for target in edges(house, module, root.name):
            there = room(target)
            if not target:
                faults.append(
                    f"{module.file}.py imports the package root: import the module that defines the name"
                )
            elif here is None or there is None:
                faults.append(f"{module.file}.py imports {target}: one of them stands on no floor")
            elif there[0] > here[0]:
                faults.append(
                    f"{module.file}.py (floor {here[0]}) imports {target} (floor {there[0]}): upward"
                )
            elif there[0] == here[0] and there[1] != here[1]:
                faults.append(f"{module.file}.py imports {target}: a neighbour on floor {here[0]}")
            elif there[1] in FORBIDDEN.get(here[1], []):
                faults.append(f"{module.file}.py imports {target}: {here[1]} never imports {there[1]}")
    return faults


def circles(root: Path) -> list[str]:
    house = modules(root)
    graph = {name: set(edges(house, module, root.name)) - {""} for name, module in house.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["a circle of imports: " + " <- ".join(error.args[1])]
    return []


def wrong_packages(root: Path) -> list[str]:
    faults = []
    for module in modules(root).values():
        for target in {target for target, _ in module.imports()}:
            homes = RESERVED.get(target.split(".")[0])
            if homes is not None and not within(module.file, homes):
                faults.append(f"{module.file}.py imports {target}: only {', '.join(homes)} may")
        for target in sorted(eager_imports(module)):
            if any((target + ".").startswith(name + ".") for name in LAZY):
                faults.append(
                    f"{module.file}.py imports {target} at the top: an extra is imported where it is used"
                )
    return faults


def eager_imports(module: Module) -> set[str]:
    """Return what a module imports outside its functions."""
    inside = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    found = (node for node in ast.walk(module.tree) if isinstance(node, ast.Import | ast.ImportFrom))
    outside = (node for node in found if id(node) not in inside)
    pairs = (pair for node in outside for pair in module.imports(node))
    return {name for target, names in pairs for name in [target, *(f"{target}.{inner}" for inner in names)]}


def too_long(root: Path) -> list[str]:
    faults = []
    for module in modules(root).values():
        if (lines := len(module.text.splitlines())) >= FILE_LINES:
            faults.append(f"{module.file}.py has {lines} lines: a file has fewer than {FILE_LINES}")
        nodes = ast.walk(module.tree)
        for node in (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            if (lines := node.end_lineno - node.lineno + 1) >= FUNCTION_LINES:
                faults.append(f"{module.file}.py: {node.name} has {lines} lines: fewer than {FUNCTION_LINES}")
    return faults


def prints(root: Path) -> list[str]:
    return [
        f"{module.file}.py:{node.lineno} prints: only {', '.join(PRINTERS)} may"
        for module in modules(root).values()
        if module.file not in PRINTERS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


LAWS = [unplaced, wrong_imports, circles, wrong_packages, too_long, prints]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps(law):
    assert modules(SRC), f"no modules under {SRC}"
    assert law(SRC) == []


GOOD = {
    "__init__.py": "from gradatim.batch import Batch\nfrom gradatim.refiners.gain import Gain\n",
    "batch.py": "import torch\nclass Batch: ...\n",
    "refiner.py": "from .batch import Batch\n",
    "refiners/__init__.py": "",
    "refiners/gain.py": "from gradatim.refiner import Refiner\n",
    "refiners/rows.py": "from gradatim.refiners.gain import Gain\nfrom . import gain\n",
    "training/engine.py": "import lightning_fabric\n",
    "training/train.py": "from gradatim.training import engine\n",
    "families/datasets.py": "def load():\n    import sklearn.datasets\n",
    "probing/plots.py": "def plot():\n    import matplotlib.pyplot as plt\n",
    "cli.py": "from gradatim.training.train import train\nprint('done')\n",
    "predictors/__init__.py": "",
    "training/__init__.py": "",
    "families/__init__.py": "",
    "probing/__init__.py": "",
    "__main__.py": "from gradatim.cli import main\n",
}
BAD = {
    "upward": ({"batch.py": "from gradatim.refiner import Refiner\n"}, wrong_imports),
    "upward, relative": ({"batch.py": "from .refiner import Refiner\n"}, wrong_imports),
    "upward, in a folder": (
        {"refiners/rows.py": "from ..learner import Learner\n", "learner.py": ""},
        wrong_imports,
    ),
    "upward, in a function": ({"batch.py": "def f():\n    import gradatim.refiner\n"}, wrong_imports),
    "upward, by a string": (
        {"batch.py": "import importlib\nimportlib.import_module('gradatim.cli')\n"},
        wrong_imports,
    ),
    "upward, for types": (
        {"batch.py": "if TYPE_CHECKING:\n    from gradatim.refiner import Refiner\n"},
        wrong_imports,
    ),
    "a neighbour": ({"learner.py": "from gradatim.refiners.gain import Gain\n"}, wrong_imports),
    "the root": ({"refiners/gain.py": "from gradatim import Batch\n"}, wrong_imports),
    "the root, whole": ({"cli.py": "import gradatim\n"}, wrong_imports),
    "the root, relative": ({"refiners/gain.py": "from .. import batch\n"}, wrong_imports),
    "refiners import families": (
        {"refiners/gain.py": "from gradatim.families import datasets\n"},
        wrong_imports,
    ),
    "refiners import predictors": (
        {"predictors/readout.py": "", "refiners/gain.py": "import gradatim.predictors.readout as readout\n"},
        wrong_imports,
    ),
    "a circle": (
        {"training/engine.py": "def f():\n    from gradatim.training.train import train\n"},
        circles,
    ),
    "Fabric": ({"training/train.py": "from lightning_fabric import Fabric\n"}, wrong_packages),
    "scikit-learn": ({"families/tables.py": "from sklearn.linear_model import Ridge\n"}, wrong_packages),
    "matplotlib": ({"cli.py": "def f():\n    import matplotlib\n"}, wrong_packages),
    "an eager extra": ({"probing/plots.py": "from matplotlib import pyplot\n"}, wrong_packages),
    "an eager extra of torch": ({"batch.py": "from torch.utils import tensorboard\n"}, wrong_packages),
    "a long file": ({"batch.py": "x = 1\n" * 400}, too_long),
    "a long function": ({"batch.py": "class A:\n    def f(self):\n" + "        x = 1\n" * 59}, too_long),
    "a print": ({"batch.py": "def f():\n    print('x')\n"}, prints),
    "no floor": ({"attic.py": ""}, unplaced),
    "no floor, in a folder": ({"attic/box.py": ""}, unplaced),
    "no package": ({"nn/sets.py": ""}, unplaced),
}


def build(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / "gradatim" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root / "gradatim"


def test_a_good_house_keeps_every_law(tmp_path):
    house = build(tmp_path, GOOD)
    assert [fault for law in LAWS for fault in law(house)] == []


@pytest.mark.parametrize(("files", "law"), BAD.values(), ids=BAD)
def test_a_broken_law_is_seen(tmp_path, files, law):
    house = build(tmp_path, GOOD | files)
    faults = law(house)
    assert faults
    assert Path(next(iter(files))).stem in faults[0] or law is unplaced
