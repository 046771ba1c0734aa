"""`make study NAME=tables`: the split, the strict pass, the ridge, the peers, the figures, a kill in an update."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from studies.tables import checks as tables_checks
from studies.tables import data as tables_data
from studies.tables import peers as tables_peers
from studies.tables import protocol as tables_protocol
from studies.tables.batch import evaluate_reference
from studies.tables.data import COPIES, Table, family, load, names, side
from studies.tables.figures import (
    calibration_error,
    chosen_reference,
    coverage,
    excess_calibration_error,
    log_error_ratio,
    peer_is_better,
    ranks,
    wins,
)
from studies.tables.peers import (
    ADAPTIVE,
    CLASSIFIERS,
    OURS,
    PACKAGES,
    QUANTILES,
    RIDGE,
    PartialFit,
    PlainRidge,
    RefinedEstimator,
    peers,
    softmax,
)
from studies.tables.protocol import errors, job, log_losses, prequential_pass, record, tune
from studies.tables.rows import RowEncoder, RunningScaler
from studies.tables.streams import permuted, rotated

from gradatim.comparison.runs import Study

DATA = pytest.mark.skipif("GRADATIM_DATA" not in os.environ, reason="needs the tables of $GRADATIM_DATA")


def small(classes=3, rows=200, seed=0):
    """Return a table of two numbers, one of them with gaps, and a category."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)) * [5.0, 0.1, 1.0] + [100.0, 0.0, 0.0]
    x[:, 2] = rng.integers(3, size=rows)
    score = (x[:, 0] - 100) / 5 + x[:, 2] - 1
    x[::7, 1] = np.nan
    if not classes:
        return Table("small", x, 1000 + 10 * score, (2,))
    return Table("small", x, np.digitize(score, [-0.5, 0.7])[:rows].astype(np.int64), (2,), classes)


class Spy:
    """Remembers what it was asked and what it was shown, in order."""

    def __init__(self, table):
        self.classes, self.log = table.classes, []

    def learn(self, x, y):
        self.log.append(("learn", x[:, 0].copy()))

    def predict(self, x):
        self.log.append(("predict", x[:, 0].copy()))
        return np.full((len(x), self.classes), 1 / self.classes) if self.classes else np.zeros(len(x))


SIDES = {
    "validation": "balance_scale mfeat concrete cars cmc pendigits vote pol yacht red_wine boston_housing",
    "test": "energy solar credit_g optdigits spambase mushroom sml autompg vowel forest colic",
}


def test_the_split_is_committed():
    for on, families in SIDES.items():
        assert {side(name) for name in families.split()} == {on}


def test_relatives_and_copies_stand_on_one_side():
    relatives = [
        ("mfeat_fourier", "mfeat_karhunen", "mfeat_morphological"),
        ("energy_efficiency", "energy_gal"),
    ]
    relatives += [("concrete_compressive_strength", "concrete_gal"), ("solar", "solar_flare")]
    relatives += [("red_wine", "wine_quality_red_gal")]
    for own in relatives:
        assert len({family(name) for name in own}) == len({side(name) for name in own}) == 1
    assert family("pendigits") != family("optdigits")


@DATA
def test_the_tables_of_both_sides_are_large_different_and_of_other_families():
    for kind, counts in {"classification": (18, 16), "regression": (13, 9)}.items():
        found = [names(kind, on) for on in ("validation", "test")]
        assert tuple(map(len, found)) == counts
        assert not {family(n) for n in found[0]} & {family(n) for n in found[1]}
        assert not set(COPIES) & {n for own in found for n in own}
    shapes: dict[tuple[int, int], list[str]] = {}
    for row in tables_data._index():
        if row["n"] >= tables_data.MIN_ROWS:
            shapes.setdefault((row["n"], row["d"]), []).append(row["name"])
    targets = {n: np.sort(load(n).y.astype(float)) for own in shapes.values() if len(own) > 1 for n in own}
    scaled = {n: (y - y.mean()) / y.std() for n, y in targets.items()}
    alike = {
        frozenset((a, b))
        for own in shapes.values()
        for a in own
        for b in own
        if a < b and np.abs(scaled[a] - scaled[b]).max() < 1e-2
    }
    assert alike == {frozenset(pair) for pair in COPIES.items()}


@pytest.mark.parametrize("classes", [3, 0], ids=["classes", "numbers"])
def test_no_row_is_shown_before_it_was_predicted_and_held_out_rows_never(classes):
    table = small(classes)
    spy = Spy(table)
    found = prequential_pass(spy, table, order=1)
    x, _, held, _ = table.split(1)
    assert len(x) == 140
    assert sorted(np.concatenate([x, held])[:, 0]) == sorted(table.x[:, 0])
    shown: list[float] = []
    for place, (what, rows) in enumerate(spy.log[:-1]):
        if what == "learn":
            before = spy.log[place - 1]
            assert not place or (before[0] == "predict" and np.array_equal(before[1], rows))
            shown += rows.tolist()
        else:
            assert not set(shown) & set(rows.tolist())
    assert np.array_equal(shown, x[:, 0])
    what, rows = spy.log[-1]
    assert what == "predict"
    assert np.array_equal(rows, held[:, 0])
    assert len(found["error" if classes else "square"]) == (140 if classes else 108)


def test_orders_are_different_and_each_always_the_same():
    table = small()
    first, again, other = (table.split(order)[0] for order in (0, 0, 1))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)


def test_the_first_rows_are_predicted_uniformly():
    table = small()
    found = prequential_pass(Spy(table), table, 0)
    assert found["error"][:32] == pytest.approx(2 / 3)
    assert found["log_loss"][:32] == pytest.approx(np.log(3))


def test_errors_share_ties_and_log_losses_are_clipped():
    said = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [1 / 3] * 3, [1.0, 0.0, 0.0]])
    y = np.array([0, 1, 2, 2, 1])
    assert errors(said, y) == pytest.approx([0, 0.5, 1, 2 / 3, 1])
    assert log_losses(said, y)[[0, 4]] == pytest.approx([-np.log(0.7), -np.log(1e-6)])


def test_running_statistics_are_those_of_all_rows():
    x = np.random.default_rng(0).normal(1e6, 1e-2, (100, 2))
    x[3, 0], x[:40, 1] = np.nan, np.nan
    scale = RunningScaler(2)
    for start in range(0, 100, 32):
        scale.learn(x[start : start + 32])
    assert scale.mean == pytest.approx(np.nanmean(x, 0), rel=1e-14)
    assert scale.spread == pytest.approx(np.nanstd(x, 0), rel=1e-6)
    assert scale(x)[3, 0] == 0


def test_coded_rows_are_standardised_numbers_and_one_hot_codes():
    table = small()
    coded = RowEncoder(table, clip=1.0)
    coded.learn(table.x)
    z = coded(table.x)
    assert z.shape[1] == coded.width == 5
    assert np.abs(z[:, :2]).max() == 1.0
    assert np.array_equal(z[:, 2:].argmax(1), table.x[:, 2])
    gone = table.x.copy()
    gone[0, 2] = np.nan
    assert not coded(gone)[0, 2:].any()


@pytest.mark.parametrize("classes", [3, 0], ids=["classes", "numbers"])
def test_the_plain_ridge_is_the_closed_form(classes):
    table = small(classes)
    ridge = PlainRidge(table, 0, temperature=4.0)
    seen = []
    for start in range(0, 96, 32):
        rows = slice(start, start + 32)
        ridge.learn(table.x[rows], table.y[rows])
        seen.append(ridge.features(table.x[rows]))  # as they stood when they were learnt
    f = np.concatenate(seen)
    y = np.eye(3)[table.y[:96]] if classes else table.y[:96, None]
    centre = 0.0 if classes else y.mean()
    theta = np.linalg.solve(f.T @ f + 2 * np.eye(f.shape[1]), f.T @ (y - centre))
    wanted = centre + ridge.features(table.x[96:]) @ theta
    wanted = softmax(4.0 * wanted) if classes else wanted[:, 0]
    assert f.shape[1] == 5 + 512 + 1
    assert ridge.predict(table.x[96:]) == pytest.approx(wanted, abs=1e-7)


PEERS = [(kind, name) for kind in ("classification", "regression") for name in peers(kind)]


@pytest.mark.parametrize(("kind", "name"), PEERS, ids=lambda value: value)
def test_every_learner_passes_over_a_table_and_learns(kind, name):
    if peers(kind)[name].package in PACKAGES:
        pytest.importorskip(peers(kind)[name].package)
    table = small(3 if kind == "classification" else 0, rows=400)
    learner = peers(kind)[name].make(table, 0, **peers(kind)[name].grid[-1])
    found = prequential_pass(learner, table, 0)
    said = learner.predict(table.x[:7])
    if kind == "classification":
        assert said.shape == (7, 3)
        assert said.sum(1) == pytest.approx(1)
        assert found["error"][64:].mean() < 0.55
        assert float(found["final_error"]) < 0.5
    else:
        assert said.shape == ((7, 1 + len(QUANTILES)) if name in (OURS, ADAPTIVE) else (7,))
        assert found["square"][64:].mean() < table.y.var()
    if name == OURS and kind == "regression":
        assert np.abs(coverage({OURS: [[found]]}, OURS) - [0.8, 0.95]).max() < 0.2


def test_a_diverged_model_says_nan_and_counts_as_wrong():
    class Diverging:
        def partial_fit(self, x, y, **first):
            raise ValueError(f"Solver produced {word} parameter weights")

    word, table = "non-finite", small(0)
    learner = PartialFit(lambda seed: Diverging(), table, 0)
    assert np.isinf(prequential_pass(learner, table, 0)["square"].mean())
    assert prequential_pass(PartialFit(lambda seed: Diverging(), small(), 0), small(), 0)[
        "error"
    ].mean() == pytest.approx(2 / 3)
    word = "other"
    with pytest.raises(ValueError, match="other"):
        prequential_pass(PartialFit(lambda seed: Diverging(), table, 0), table, 0)


def test_ours_sees_tables_as_a_user_has_them():
    table = small()
    made = RefinedEstimator(table, 0).frame(table.x[:3])
    assert list(made.columns) == ["x0", "x1", "x2"]
    assert all(str(code).startswith("level ") for code in made["x2"])
    numbers = Table("n", table.x[:, :2], table.y, (), 3)
    assert RefinedEstimator(numbers, 0).frame(numbers.x) is numbers.x


def test_a_record_is_kept_and_another_setting_is_another(tmp_path, monkeypatch):
    study = Study(tmp_path, 1, Console(quiet=True))
    monkeypatch.setattr(tables_protocol, "load", lambda name: small())
    first = record(study, job(RIDGE, "small", 0, {"temperature": 4.0}))
    monkeypatch.setattr(tables_protocol, "prequential_pass", lambda *_: pytest.fail("computed once more"))
    again = record(study, job(RIDGE, "small", 0, {"temperature": 4.0}))
    assert np.array_equal(first["error"], again["error"])
    with pytest.raises(pytest.fail.Exception):
        record(study, job(RIDGE, "small", 0, {"temperature": 2.0}))


@pytest.mark.parametrize("name", [*tables_peers.SOURCES, *tables_checks.COMMANDS])
def test_the_fingerprint_covers_every_source(monkeypatch, name):
    """A path that the library no longer has would leave its records valid for ever."""
    fingerprint = tables_peers.fingerprint.__wrapped__
    before, read = fingerprint(*tables_checks.COMMANDS), Path.read_bytes
    changed = Path(tables_peers.gradatim.__file__).parent / name
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"#" * (changed in (p, *p.parents)))
    assert fingerprint(*tables_checks.COMMANDS) != before


def test_a_temperature_is_chosen_by_the_log_loss(tmp_path, monkeypatch):
    study = Study(tmp_path, 1, Console(quiet=True))
    monkeypatch.setattr(tables_protocol, "load", lambda name: small())
    chosen = tune(study, "classification", RIDGE, ["small"])
    losses = {
        setting["temperature"]: np.mean(
            [record(study, job(RIDGE, "small", o, setting))["log_loss"].mean() for o in range(2)]
        )
        for setting in CLASSIFIERS[RIDGE].grid
    }
    assert chosen["temperature"] == min(losses, key=lambda t: losses[t])


def test_a_batch_reference_is_cross_validated_on_the_rows_of_the_stream():
    found = evaluate_reference("batch-logistic-1", load("bundled-wine"), 0)
    assert float(found["cross_validated"]) > 0.93
    assert float(found["final_error"]) < 0.07


def test_a_stream_is_known_by_its_labels_not_by_the_last_digits_of_its_numbers():
    table = small()
    nudged = replace(table, x=np.nextafter(table.x, np.inf))
    assert table.digest != nudged.digest
    assert replace(table, fixed=True).digest == replace(nudged, fixed=True).digest
    assert replace(table, fixed=True).digest != replace(table, fixed=True, y=1 - table.y).digest


def test_a_column_that_is_empty_in_a_fold_does_no_harm_to_boosting():
    table = small()
    x = np.column_stack([table.x, np.full(len(table.x), np.nan)])
    x[0, -1] = 1.0
    beside = Table("small", x, table.y, table.categorical, table.classes)
    assert (
        evaluate_reference("batch-boosting", beside, 0)["final_error"]
        == evaluate_reference("batch-boosting", table, 0)["final_error"]
    )


def test_the_ratio_to_the_ridge_counts_errors_of_one_pass():
    ours, ridge = np.array([[3.0, 0.0], [5.0, 0.0]]), np.array([[8.0, 0.0], [8.0, 1.0]])
    assert np.exp(log_error_ratio(ours, ridge)) == pytest.approx([4.5 / 8.5, 0.5])


def test_ranks_share_ties():
    found = ranks({"a": np.array([[0.1, 0.3]]), "b": np.array([[0.2, 0.3]]), "c": np.array([[0.3, 0.1]])})
    assert {name: values.tolist() for name, values in found.items()} == {
        "a": [1.0, 2.5],
        "b": [2.0, 2.5],
        "c": [3.0, 1.0],
    }


def test_a_peer_is_better_only_if_the_paired_test_says_so():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    ours = rng.normal(0.3, 0.02, (5, 60))
    theirs = ours - rng.normal(0.01, 0.012, (5, 60))
    wanted = [
        ttest_rel(a, b).pvalue < 0.05 and a.mean() > b.mean() for a, b in zip(ours.T, theirs.T, strict=True)
    ]
    assert peer_is_better(ours, theirs).tolist() == wanted
    assert 5 < sum(wanted) < 55
    same = np.full((5, 3), 0.2)
    assert peer_is_better(same, same - [[0.0, 0.01, -0.01]]).tolist() == [False, True, False]
    assert wins({OURS: same, "a": same - 0.01, "b": same}).tolist() == [False] * 3


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    right = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.2 + 2 * 0.5) / 6)


def test_a_calibrated_predictor_has_no_excess_error_and_a_bold_one_has():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, (40, 400))
    calm = [excess_calibration_error(row, (rng.random(400) < row).astype(float), rng) for row in confidence]
    bold = [
        excess_calibration_error(row, (rng.random(400) < row - 0.2).astype(float), rng)
        for row in confidence[:5]
    ]
    assert abs(np.mean(calm)) < 0.004
    assert np.mean(bold) > 0.1


def test_the_reference_is_chosen_on_the_rows_of_the_stream():
    def made(valid, final):
        return {"cross_validated": np.asarray(valid), "final_error": np.asarray(final)}

    found = {"a": [[made(0.9, 0.3), made(0.7, 0.2)]], "b": [[made(0.8, 0.1), made(0.8, 0.2)]]}
    picked, best = chosen_reference(found)
    assert picked.tolist() == [[0.7], [0.8]]
    assert best.tolist() == [[0.9], [0.8]]


def test_drift_changes_names_half_way_and_turns_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=1000)
    changed = permuted(y, 10, rng)
    assert np.array_equal(changed[:500], y[:500])
    assert not (changed[500:] == y[500:]).any()
    assert len({(a, b) for a, b in zip(y[500:], changed[500:], strict=True)}) == 10
    x = rng.normal(size=(100, 6))
    turned = rotated(x, 90.0, rng)
    still = (x - x.mean(0)) / x.std(0)
    assert np.linalg.norm(turned, axis=1) == pytest.approx(np.linalg.norm(still, axis=1))
    assert turned[0] == pytest.approx(still[0])
    assert (turned[-1] * still[-1]).sum() == pytest.approx(0, abs=1e-9)


WRITER = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from pathlib import Path
command, state, torn = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "torn"
size = 1000 if command == "fit" else 2000
part = state if torn else state.with_suffix(".partial")
with open(part, "wb") as file:
    for _ in range(size // 100):
        file.write(b"x" * 100); file.flush(); time.sleep(0.01)
if not torn: os.replace(part, state)
"""


@pytest.mark.parametrize("how", ["whole", "torn"])
def test_a_killed_update_is_whole_only_if_the_file_is_replaced_at_once(tmp_path, monkeypatch, how):
    def start(*arguments):
        command = [sys.executable, "-c", WRITER, arguments[0], arguments[-1], how]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    monkeypatch.setattr(tables_checks, "_gradatim", start)
    monkeypatch.setattr(tables_checks, "_is_loadable", lambda state: True)
    found = tables_checks._kill_updates(tmp_path, 4, 100)
    assert len(found["whole"]) == 4
    assert found["whole"].all() == (how == "whole")


def test_a_killed_update_may_differ_from_another_by_rounding_alone():
    from safetensors.torch import save

    def held(value, name="a"):
        return save({name: torch.tensor([1.0, value], dtype=torch.float64)})

    assert tables_checks._same_tensors(held(3.0), held(3.0 + 1e-14))
    assert not tables_checks._same_tensors(held(3.0), held(3.0 + 1e-6))
    assert not tables_checks._same_tensors(held(3.0), held(3.0, "b"))
