"""The Python blocks of the pages run: README, CONTRIBUTING and every page of docs, in order, one namespace a page.

A block marked `no-run` is not executed. Training is shortened: the blocks show sizes for people, not for tests.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = ("results", "tutorials", "api", "_build")
BLOCK = re.compile(r"^```python *(?P<mark>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ITERATIONS = re.compile(r"iterations=\d+")


def pages() -> list[Path]:
    """List the pages that people write."""
    docs = [page for page in (ROOT / "docs").rglob("*.md") if page.relative_to(ROOT).parts[1] not in SKIPPED]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(docs)]


def blocks(page: Path) -> list[str]:
    """List a page's Python blocks to be run, each padded so that a traceback names the line of the page."""
    text = page.read_text(encoding="utf-8")
    matches = [match for match in BLOCK.finditer(text) if "no-run" not in match["mark"]]
    return ["\n" * text.count("\n", 0, match.start("code")) + match["code"] for match in matches]


WITH_CODE = [page for page in pages() if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=[str(page.relative_to(ROOT)) for page in WITH_CODE])
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = type(sys)("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for code in blocks(page):
        code = ITERATIONS.sub("iterations=2", code)
        exec(compile(code, str(page), "exec"), module.__dict__)


def test_the_pages_have_blocks():
    names = {str(page.relative_to(ROOT)) for page in WITH_CODE}
    assert {
        "README.md",
        "docs/quick-start.md",
        "docs/how-to/family.md",
        "docs/how-to/predictor.md",
        "docs/how-to/refiner.md",
    } <= names


def test_the_methods_to_choose_from_exist():
    from gradatim.methods import method

    page = (ROOT / "docs" / "how-to-choose.md").read_text(encoding="utf-8")
    table = page.split("## Which method?")[1].split("##")[0]
    cells = [row.split("|")[2] for row in table.splitlines() if row.startswith("|")]
    names = [name for cell in cells for name in re.findall(r"`([a-z][a-z-]+)`", cell)]
    assert len(names) > 20
    for name in names:
        method(name)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_links_between_pages_lead_somewhere():
    """Relative links of the pages, GitHub's view of them: the file is there, generated folders aside."""
    missing = []
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" in link or any(part in link for part in ("api/", "tutorials/")):
                continue
            if not (page.parent / link).exists():
                missing.append(f"{page.relative_to(ROOT)}: {link}")
    assert missing == []


def test_the_commands_of_the_readme_run(tmp_path: Path):
    """`fit`, `update` and `predict` as README writes them, on small files."""
    pytest.importorskip("pyarrow")
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["u", "v"], size=60)})
    table["y"] = np.where(table.a > 0, "high", "low")
    table[:30].to_csv(tmp_path / "train.csv", index=False)
    table[30:50].to_parquet(tmp_path / "more.parquet")
    table[50:].to_csv(tmp_path / "test.csv", index=False)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    gradatim ((?:fit|update|predict) .*)$", text, re.MULTILINE)
    assert len(commands) == 3
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for command in commands:
        subprocess.run(
            [sys.executable, "-m", "gradatim", *command.split()],
            cwd=tmp_path, env=environment, check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 10


def test_the_table_of_the_readme_is_that_of_its_record():
    record = json.loads((ROOT / "docs/results/tasks_that_share.json").read_text())
    lines = (ROOT / "README.md").read_text().splitlines()
    (learnt,) = (line for line in lines if line.startswith("| mean squared error"))
    (ridge,) = (line for line in lines if line.startswith("| the best ridge"))
    spans = [f"{min(row['learnt']):.1f} to {max(row['learnt']):.1f}" for row in record.values()]
    assert [cell.strip() for cell in learnt.split("|")[2:-1]] == spans
    assert [float(cell) for cell in ridge.split("|")[2:-1]] == [
        round(row["best ridge"], 1) for row in record.values()
    ]
