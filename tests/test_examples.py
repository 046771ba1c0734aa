"""The examples in the docstrings of every public module run and show what they say."""

import pytest

from gradatim.testing.examples import examples, module_names, run_examples


@pytest.mark.parametrize("name", module_names())
def test_examples(name):
    report = []
    _, failed = run_examples(name, report.append)
    assert not failed, "".join(report)


MODULE = '''"""Words.

Example:
    >>> twice(1)
    {first}
"""


def twice(number):
    """Return two numbers.

    Example:
        >>> twice(2)
        4
        >>> open("words.txt", "w").write("words")
        5
    """
    return 2 * number


def half(number):
    """No example."""
'''


@pytest.mark.parametrize(("first", "failed"), [("2", 0), ("3", 1)])
def test_a_wrong_example_is_counted_and_leaves_no_file(tmp_path, monkeypatch, first, failed):
    package = f"words{failed}"
    folder, elsewhere = tmp_path / package, tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "words.py").write_text(MODULE.format(first=first))
    (folder / "_private.py").write_text("raise ValueError('nobody imports it')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(elsewhere)
    report = []
    assert run_examples(f"{package}.words", report.append) == (2, failed)
    assert ("Expected:" in "".join(report)) == bool(failed)
    assert [test.name for test in examples(package)] == [f"{package}.words", f"{package}.words.twice"]
    assert not list(elsewhere.iterdir())
