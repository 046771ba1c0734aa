"""The page of `make study NAME=trust`: whether files are read right, states can be trusted, and rows stay nobody's."""

from __future__ import annotations

from collections.abc import Iterator

from gradatim.comparison.report import Page, Question, Result, TextTable, number


def value(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not measured."""
    claim = result.claim(f"trust.{name}")
    if not claim or claim["value"] is None:
        return "an unmeasured number"
    value = claim["value"]
    return f"{value:,.0f}" if value >= 10_000 and float(value).is_integer() else number(value)


def beside(result: Result, name: str, key: str) -> str:
    """Return a count that stands beside a claim, as text."""
    count = result.claim(f"trust.{name}").get(key)
    return "an unmeasured number" if count is None else f"{count:,}"


def states(result: Result) -> Iterator[str]:
    """Yield whether a state survives damage, kills and other processes."""
    yield (
        f"Of {beside(result, 'tracebacks', 'files')} damaged states and checkpoints, "
        f"{value(result, 'damaged_accepted')} are loaded with other answers, and {value(result, 'tracebacks')} end "
        "without one clear line."
    )
    yield (
        f"{beside(result, 'torn', 'kills')} kills leave {value(result, 'torn')} states torn and "
        f"{value(result, 'leftovers')} files behind the next call."
    )
    yield (
        f"Two updates at once lose {value(result, 'lost_updates')} rows in {beside(result, 'lost_updates', 'pairs')} "
        f"pairs, and of {beside(result, 'mixed_reads', 'reads')} reads while a state is replaced "
        f"{value(result, 'mixed_reads')} are of no single state."
    )


def reading(result: Result) -> Iterator[str]:
    """Yield whether reported cases and random inputs end right."""
    yield (
        f"Of {beside(result, 'cases_wrong', 'cases')} reported cases, {value(result, 'cases_wrong')} do not give the "
        "right value."
    )
    yield (
        f"Of {value(result, 'fuzz_cases')} random and hostile inputs, {value(result, 'fuzz_failures')} end in a crash, "
        "in an answer that is not finite or in a state that was harmed."
    )
    yield f"Errors over the ridge on the validation tables are {value(result, 'regression')} times those of before."


def streams(result: Result) -> Iterator[str]:
    """Yield whether order, cuts, saving, outliers and few rows change what is answered."""
    yield (
        f"Files sorted by target, category or time cost {value(result, 'order')} times the error of the same files "
        f"shuffled, and a cell of 1e9 {value(result, 'outliers')} times."
    )
    yield (
        f"The cut of rows into calls changes an answer by {value(result, 'cut')}, and saving and loading it 200 times "
        f"changes a probability by {value(result, 'cycles')}."
    )
    yield (
        f"From the third to the twentieth row 80% intervals cover {value(result, 'early_coverage')} of new rows; from "
        f"one row the share of intervals that claim too much is {value(result, 'early_coverage_one_row')}."
    )


def spoilt(result: Result) -> TextTable:
    """Return what single absurd cells cost."""
    ratios = result.claim("trust.outliers").get("spoils", {})
    return ["what is absurd, in regressions", "error over that of clean rows"], [
        [name, number(ratio)] for name, ratio in ratios.items()
    ]


def rows(result: Result) -> Iterator[str]:
    """Yield whether training rows can be read out of a state."""
    claim = result.claim("trust.rows_in_state")
    early = claim.get("before_the_map", {"recovered": [], "rows": 0})
    yield (
        f"From states of {len(claim.get('tables', {}))} tables, learnt in three ways, {value(result, 'rows_in_state')} "
        "training rows can be read out."
    )
    yield (
        f"Before the map is fixed a state holds its rows: of {early['rows']} learnt rows, "
        f"{min(early['recovered'], default=0)} to {max(early['recovered'], default=0)} can be read out."
    )
    yield "A row counts as read out where each of its columns is within a thousandth of the column's deviation."


PAGE = Page(
    study="trust",
    questions=(
        Question("states", "Can a state be trusted?", states),
        Question("reading", "Are rows read as people have them?", reading),
        Question("streams", "Does an answer depend on how rows come?", streams, table=spoilt),
        Question("rows", "Whose rows does a state hold?", rows),
    ),
    claims={
        "trust.cases_wrong": "reported cases that do not give the right value",
        "trust.fuzz_failures": "random inputs that crash, answer no finite number or harm a state",
        "trust.fuzz_cases": "random inputs tried",
        "trust.damaged_accepted": "damaged files that are loaded with other answers",
        "trust.tracebacks": "damaged files that end without one clear line",
        "trust.lost_updates": "rows lost in pairs of updates at once",
        "trust.mixed_reads": "reads of no single state while it is replaced",
        "trust.torn": "killed updates and trainings that leave something torn",
        "trust.leftovers": "files that a kill leaves, after the next call",
        "trust.cycles": "greatest change of a probability by saving and loading 200 times",
        "trust.cut": "greatest change of an answer by the cut of rows into calls",
        "trust.order": "error after sorted files over that after shuffled ones, geometric mean over tables",
        "trust.rows_in_state": "training rows that can be read out of states",
        "trust.outliers": "RMSE with a cell of 1e9 over that without it, geometric mean over validation tables",
        "trust.early_coverage": "coverage of 80% intervals from the third to the twentieth row, mean over tables",
        "trust.early_coverage_one_row": "with one row, share of finite intervals shorter than the spread of y",
        "trust.regression": "errors over the ridge on validation tables, now over before, geometric mean",
    },
    notes=(
        "Counts have no interval; those of ratios are over tables. A figure that could not be measured has no value "
        "and fails. What each figure was before this step stands beside its claim as `before`."
    ),
)
