"""The page of `make study NAME=house`: whether results moved, whether there is one loop, and what pages say."""

from __future__ import annotations

from collections.abc import Iterator

from gradatim.comparison.report import Page, Question, Result, TextTable, number


def count(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not run or failed."""
    claim = result.claim(f"house.{name}")
    if not claim:
        return "an unmeasured number"
    if claim["value"] is None:
        return "no number"
    return number(claim["value"])


def compared(result: Result) -> str:
    """Return how many figures were compared, as text."""
    return f"{result.claim('house.results_moved').get('compared', 0):,}"


def results(result: Result) -> Iterator[str]:
    """Yield whether results moved when the library was rebuilt."""
    yield (
        f"Of {compared(result)} figures recorded before the rebuilding, those that differ afterwards: "
        f"{count(result, 'results_moved')}."
    )
    yield (
        "They are the smoke runs of five studies, one pass over each validation table beside the ridge, and the losses "
        "of the golden learners."
    )
    yield "Errors over the ridge may differ by .002, everything else by rounding (1e-4 of the value)."


def one_loop(result: Result) -> Iterator[str]:
    """Yield whether estimators, memory and ragged tasks go through the one loop."""
    yield (
        f"`gradatim fit` encodes each row {count(result, 'encodes_per_row')} times once the stream is steady, and the "
        f"shipped estimator calls `Learner.learn` {count(result, 'loop_calls')} times for each mini-batch."
    )
    yield (
        f"Tests for a concrete refiner or predictor in the estimators: {count(result, 'private_paths')}, in "
        f"{count(result, 'fit_lines')} lines."
    )
    yield (
        f"Over 2,000 mini-batches memory grows by at most {count(result, 'graph_mb')} MB, and 199 short tasks beside a "
        f"long one take at most {count(result, 'ragged')} times as long in one call as in two."
    )


def words(result: Result) -> Iterator[str]:
    """Yield whether names, docstrings and options say what they are."""
    yield (
        f"Vague names of variables and arguments, in percent: {count(result, 'vague_names')}; share of public "
        f"functions of tensors with shapes in the docstring: {count(result, 'shapes')}."
    )
    yield (
        f"Docstrings whose examples pass: {count(result, 'doctests')}; those with one that fails: "
        f"{count(result, 'doctests_failed')}; options without effect: {count(result, 'options_ignored')}."
    )
    if result.claim("house.own_family_lines").get("value", 0) is None:
        yield "A user's file with a family of her own does not yet work with the installed wheel."
    else:
        yield (
            f"A user's file of {count(result, 'own_family_lines')} lines defines a family, trains, saves, shows and "
            "evaluates a learner and compares four methods, with the installed wheel."
        )


def sizes(result: Result) -> TextTable:
    """Return what is measured without a bar."""
    rows = [[name, f"{value:,}"] for name, value in result.data.get("sizes", {}).items()]
    return ["measured without a bar", "value"], rows


PAGE = Page(
    study="house",
    questions=(
        Question("results", "Did measured results move when the library was rebuilt?", results),
        Question("loop", "Does everything go through the one loop, and what does it cost?", one_loop),
        Question("words", "Do names, docstrings and options say what they are?", words, table=sizes),
    ),
    claims={
        "house.results_moved": "figures recorded before the rebuilding that differ after it",
        "house.private_paths": "tests for concrete refiners or predictors in the estimators",
        "house.vague_names": "percent of variables and arguments whose name is vague",
        "house.shapes": "share of public functions of tensors or arrays whose docstring gives shapes",
        "house.readme_lines": "lines of the README",
        "house.fit_lines": "lines of the estimators",
        "house.encodes_per_row": "`gradatim fit`: encodings of a row for each row learnt, prediction included",
        "house.loop_calls": "calls of `Learner.learn` for each mini-batch that the shipped estimator learns",
        "house.options_ignored": "options of methods that change nothing",
        "house.doctests_failed": "docstrings with an example that fails",
        "house.doctests": "docstrings whose examples pass",
        "house.own_family_lines": "lines of a user's file with her own family that works with the installed wheel",
        "house.graph_mb": "MB that the README's loop adds over 2,000 mini-batches, the worst of three methods",
        "house.ragged": "time of 199 tasks of 40 rows and one of 4,096: one call over two, the worst of three",
    },
    notes=(
        "Counts have no interval. Ratios of times are medians of calls timed in turn, on one thread. "
        "`python -m studies.house.record FOLDER` records the figures anew, and a commit then has to say why."
    ),
)
