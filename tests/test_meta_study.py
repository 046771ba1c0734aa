"""The study of learning from other tasks: its arithmetic, its divisions, what it stores, and parts at smallest size."""

import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from studies import part
from studies.meta import choosing, grouped, keys, learnt, made, own, parts, run, sources, verdicts
from studies.meta.classes import SENTENCES_PART, shots_settings
from studies.meta.page import PAGE, SHOWN
from studies.meta.peers import ALONE, GPBOOST, OURS, PRIOR, TREES
from studies.meta.references import process_mean
from studies.meta.tasks import TABLES, Tasks, divide
from studies.meta.waves import WAVES_PART
from studies.part import Found, Part

from gradatim.comparison.report import Result, write_result
from gradatim.comparison.runs import Study
from gradatim.families import Sinusoids
from gradatim.methods import ALPaCA, GaussianProcess, Ridge

QUIET = Console(quiet=True)


def constant(*by_rows, seeds=1, tasks=6):
    """Losses [S, T, R] that are alike for all seeds and tasks."""
    return np.tile(np.array(by_rows), (seeds, tasks, 1))


# --- the arithmetic


def test_ratios_are_geometric_means_over_rows_and_the_best_peer_is_another_one_at_each():
    ours = constant(0.1, 0.4, seeds=3)
    assert verdicts.over(ours, constant(0.2, 0.2)) == pytest.approx((1.0, 1.0, 1.0))
    best, names = verdicts.best_of({"a": constant(0.4, 0.4), "b": constant(0.8, 0.2)})
    assert names == ["a", "b"]
    assert verdicts.over(ours, best)[0] == pytest.approx(math.sqrt(0.1 / 0.4 * 0.4 / 0.2))


def test_intervals_widen_with_seeds_and_tasks_that_differ():
    rng = np.random.default_rng(0)
    wide = verdicts.over(rng.uniform(0.1, 1, (3, 6, 2)), constant(0.5, 0.5))
    assert wide[1] < wide[0] < wide[2]


def test_records_are_over_all_seeds_and_of_each():
    found = verdicts.entries(
        "f", "a", np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), (8,), "error", iterations=5
    )
    assert [(r["seed"], r["rows"], r["mean"], r["iterations"]) for r in found] == [
        ("all", 8, 2.5, 5),
        (0, 8, 1.5, 5),
        (1, 8, 3.5, 5),
    ]
    assert Result({"claims": [], "records": found}).mean("f", "a", 1) == 2.5


def test_every_claim_has_words_and_a_bar():
    claims = [name for part in parts.PARTS for name in part.claims]
    assert len(claims) == len(set(claims)) and set(claims) == set(PAGE.claims) <= set(verdicts.BARS)


# --- choices on validation tasks


def test_validation_chooses_among_settings_within_the_limit(tmp_path, monkeypatch):
    setting = learnt.Setting(Ridge())
    quick, slow, worse = (learnt.Judged(setting, 0, None, n, 1, (5,), 5) for n in (1, 2, 3))
    losses = {quick: 0.3, slow: 0.1, worse: 0.5}
    monkeypatch.setattr(
        choosing, "compute", lambda study, jobs, *a: {j: {"losses": constant(losses[j])[0]} for j in jobs}
    )
    study = Study(tmp_path, 1, QUIET)
    assert choosing.choose(study, "", [worse, quick, slow]) == slow
    seconds = iter([500.0, 500.0, 700.0])
    monkeypatch.setattr(choosing, "cost", lambda *a: {"cpu_seconds": next(seconds)})
    assert choosing.choose(study, "", [worse, quick, slow], limit=300.0) == quick
    seconds = iter([900.0, 800.0, 700.0])
    assert choosing.choose(study, "", [worse, quick, slow], limit=300.0) == slow, "the quickest"


def test_settings_of_few_shots_differ_and_do_not_name_a_seed_but_their_own():
    settings = shots_settings(smoke=False)
    assert len({learnt.described(setting) for setting in settings}) == len(settings) == 4
    assert learnt.described(settings[1].on(3)) != learnt.described(settings[1])


# --- what is stored


def waves(iterations):
    family = Sinusoids(support_rows=40, query_rows=5)
    return learnt.Setting(ALPaCA(keys=4, width=4), learnt.waves_training(family, iterations))


def weights(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])


def test_a_learner_is_trained_once_for_each_setting_and_seed(tmp_path, monkeypatch):
    study, setting = Study(tmp_path, 1, QUIET), waves(2)
    first = learnt.trained(study, setting, 0)
    cost = learnt.cost(study, setting, 0)
    assert cost["cpu_seconds"] > 0 and cost["seconds"] > 0 and len(cost["losses"]) == 1
    assert len({learnt.run_folder(study, waves(n), seed) for n in (2, 3) for seed in (0, 1)}) == 4
    monkeypatch.setattr(learnt, "train", None)
    assert torch.equal(weights(first), weights(learnt.trained(study, setting, 0)))


def test_code_that_trains_another_learner_trains_anew_and_says_so(tmp_path, monkeypatch):
    said = []
    study, setting = Study(tmp_path, 1, QUIET, report=said.append), waves(6)
    first = weights(learnt.trained(study, setting, 0))
    trained, method = learnt.train, learnt.fingerprint
    monkeypatch.setattr(
        learnt, "fingerprint", lambda *names, alone=False: "new" if not alone else method(*names, alone=True)
    )
    assert torch.equal(first, weights(learnt.trained(study, setting, 0))), (
        "the first iterations are as they were"
    )
    assert said == [
        f"{learnt.run_folder(study, setting, 0).name}: the code has changed and its first iterations have "
        "not, it is kept"
    ]
    assert learnt.cost(study, setting, 0)["codes"][-1] == "new"

    def other(learner, family, scheme, config, *rest):
        return trained(learner, family, scheme, learnt.replace(config, lr=2 * config.lr), *rest)

    monkeypatch.setattr(learnt, "train", other)
    assert torch.equal(first, weights(learnt.trained(study, setting, 0))) and len(said) == 1
    monkeypatch.setattr(
        learnt,
        "fingerprint",
        lambda *names, alone=False: "newer" if not alone else method(*names, alone=True),
    )
    assert not torch.equal(first, weights(learnt.trained(study, setting, 0)))
    assert said[1].endswith("the code has changed, it is trained anew")


def test_changed_steps_of_training_train_anew(tmp_path, monkeypatch):
    said = []
    study, setting = Study(tmp_path, 1, QUIET, report=said.append), waves(2)
    learnt.trained(study, setting, 0)
    monkeypatch.setattr(learnt, "fingerprint", lambda *names, alone=False: "new")
    learnt.trained(study, setting, 0)
    assert len(said) == 1 and said[0].endswith("it is trained anew")


def test_an_interrupted_training_goes_on_and_its_seconds_add_up(tmp_path, monkeypatch):
    study, setting = Study(tmp_path / "a", 1, QUIET), waves(210)
    whole = learnt.trained(study, setting, 0)
    cut, calls = Study(tmp_path / "b", 1, QUIET), []

    class Cut(learnt.Clock):
        def __call__(self, record):
            super().__call__(record)
            calls.append(record["iteration"])
            if record["iteration"] == 210:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learnt, "Clock", Cut)
        learnt.trained(cut, setting, 0)
    marks = json.loads((learnt.run_folder(cut, setting, 0) / "clock.json").read_text())
    resumed = learnt.trained(cut, setting, 0)
    assert calls[-2:] == [200, 210] and learnt.cost(cut, setting, 0)["cpu_seconds"] > marks["200"]
    assert torch.equal(weights(whole), weights(resumed))


def test_fixed_keys_stay_and_the_prior_moves(tmp_path):
    setting = waves(3)
    training = learnt.replace(setting.training, fixed_keys=True)
    drawn = learnt.drawn_learner(setting, 0, training.family)
    fixed = learnt.trained(Study(tmp_path, 1, QUIET), learnt.Setting(setting.method, training), 0)
    pairs = zip(drawn.named_parameters(), fixed.parameters(), strict=True)
    moved = {name for (name, before), after in pairs if not torch.equal(before, after)}
    assert moved and not any("encoder" in name for name in moved)


def test_all_learners_see_the_same_tasks():
    family = Sinusoids(support_rows=5, query_rows=3)
    one, other = (torch.cat([t.support.x for t in learnt.drawn(family, 45, 2)]) for _ in range(2))
    assert len(one) == 45 and torch.equal(one, other)


# --- what numbers depend on


def test_a_fingerprint_counts_code_and_neither_docstrings_nor_comments(tmp_path):
    path = tmp_path / "a.py"

    def code(text):
        sources.code.cache_clear()
        path.write_text(text)
        return sources.code(path)

    plain = code("def f(x):\n    return x\n")
    assert code('"""Words."""\n\n\ndef f(x):\n    """More."""\n    return x  # why\n') == plain
    assert code("def f(x):\n    return x + 1\n") != plain


def test_a_fingerprint_reaches_what_a_module_imports_and_not_what_type_checkers_read():
    reached = sources.reached("studies.meta.learnt", "gradatim.methods.keys")
    assert {"gradatim.training.train", "gradatim.refiners.class_means", "gradatim.nn.encoders"} <= reached
    assert not {name for name in reached if name.startswith(("gradatim.estimators", "gradatim.files"))}
    groups = sources.reached("studies.meta.own")
    assert {"studies.meta.peers", "gradatim.groups.experts", "gradatim.estimators.regressor"} <= groups
    assert "studies.meta.verdicts" not in reached | groups, "a bar may be read anew"


# --- references


def test_the_process_of_the_study_is_that_of_the_library():
    family = Sinusoids(noise_std=0.2, support_rows=8, query_rows=5)
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    learner = GaussianProcess().build(family)
    state = learner.adapt(task.support, 8, task.query)
    chosen = learner.refiner.hyperparameters(state)
    for b in range(3):
        length, noise = float(chosen.length[b]), float(chosen.noise[b] / chosen.signal[b])
        wanted = learner.predict(task.query.x, state)[b]
        torch.testing.assert_close(process_mean(task, 8, length, noise)[b], wanted, rtol=1e-6, atol=1e-6)


# --- one's own tasks


def school():
    group = np.repeat(np.arange(50), 12)
    return Tasks("school", np.ones((600, 1)), np.tile([0.0, 2.0], 300), group, False)


def test_divisions_are_random_and_no_task_on_which_settings_were_chosen_judges():
    tasks = school()
    divisions = [divide(tasks, seed) for seed in range(20)]
    for division in divisions:
        assert sorted(np.concatenate(division)) == [*range(50)]
        assert [len(part) for part in division] == [22, 15, 13]
    judges = {int(task) for division in divisions for task in division.test}
    assert len(judges) == 20, (
        "two fifths of the tasks chose no setting of the library, and all of them judge once"
    )
    assert divide(tasks, 0).test.tolist() == divisions[0].test.tolist() != divisions[1].test.tolist()


def test_a_task_with_too_few_rows_has_no_loss():
    # y is 0 or 2, of variance 1: the answer 1 misses by 1
    answer = lambda x, y, new: np.ones(len(new))  # noqa: E731
    judges = np.array([0, 1])
    assert own.task_losses(school(), answer, judges, 4).tolist() == [1.0, 1.0]
    assert np.isnan(own.task_losses(school(), answer, judges, 9)).all()
    values = np.array([[[1.0, np.nan], [3.0, np.nan]]])
    assert grouped.means(values)[0] == 2.0 and np.isnan(grouped.means(values)[1])


def test_claims_on_ones_own_tasks_are_those_of_the_losses():
    methods = {OURS: 0.5, ALONE: 1.0, PRIOR: 0.1, TREES: 0.8, GPBOOST: 0.625}
    losses = {table: {name: np.full((2, 3, 4), value) for name, value in methods.items()} for table in TABLES}
    claims = {claim["id"]: claim for claim in grouped.loss_claims(losses)}
    values = {name: claim["value"] for name, claim in claims.items()}
    assert values == {"meta.own.over_alone": 0.5, "meta.own.over_best": 0.8, "meta.own.long": 0.625}
    assert claims["meta.own.over_best"]["beside"]["school, over GPBoost"] == [0.8, 0.8, 0.8]
    losses["school"][OURS][0] *= 2  # one of two divisions
    changed = grouped.loss_claims(losses)[0]
    assert changed["value"] == pytest.approx(0.5 * 1.5 ** (1 / 3), abs=1e-4)
    assert changed["low"] == 0.5 and changed["high"] == pytest.approx(0.5 * 2 ** (1 / 3), abs=1e-4)


def test_a_full_study_says_what_it_lacks(tmp_path, monkeypatch):
    study = Study(tmp_path, 1, QUIET)
    monkeypatch.setattr(grouped, "missing", lambda: ["gpboost"])
    with pytest.raises(ValueError, match="needs gpboost: pip install gpboost"):
        grouped.own(study, False, 1)
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    with pytest.raises(ValueError, match="set GRADATIM_DATA, or run with --smoke"):
        run.run(tmp_path, False, 1, 1, QUIET)


def test_many_groups_and_coverage_are_measured(tmp_path):
    study = Study(tmp_path, 1, QUIET)
    claims = {claim["id"]: claim["value"] for claim in grouped.group_claims(study, smoke=True)}
    assert claims["meta.groups"] > 0 and 0 < claims["meta.group_bytes"] < 4000
    with made.data(tmp_path / "data"):
        claim, listing = grouped.coverage_claim(study, True, 1)
    assert 0 <= claim["value"] < 0.5 and [row[0] for row in listing["rows"]] == list(grouped.NUMBERS)


# --- parts at their smallest size


@pytest.mark.parametrize("part", [WAVES_PART, SENTENCES_PART])
def test_a_part_runs_at_its_smallest_size_and_goes_on(part, tmp_path, monkeypatch):
    study = Study(tmp_path, 1, QUIET)
    with made.data(tmp_path / "data"):
        found = part.measure(study, True, 1)
        monkeypatch.setattr(learnt, "train", None)
        monkeypatch.setattr(learnt, "losses", None)
        assert part.measure(study, True, 1) == found
    assert {claim["id"] for claim in found.claims} == set(part.claims)
    assert found.listings and all(0 <= record["mean"] < math.inf for record in found.records)


def test_the_study_is_written_after_each_part(tmp_path, monkeypatch):
    written = []
    first = Part(
        "first",
        {"meta.groups": "words"},
        lambda *a: Found(claims=[verdicts.measured("meta.groups", (1, 1, 1))]),
    )
    second = Part("second", {"meta.own.long": "words"}, lambda *a: written.append(1) or Found(listings=[]))
    monkeypatch.setattr(run, "PARTS", (first, second))
    saved = part.write_result
    monkeypatch.setattr(part, "write_result", lambda *a: written.append(a[2]["claims"]) or saved(*a))
    paths = run.run(tmp_path, True, 1, 1, QUIET)
    assert [claim.get("range") for claim in written[0]] == [None, "not reached yet"]
    assert written[1] == 1 and len(written[2]) == 1
    assert [path.name for path in paths][:2] == ["meta.json", "meta.md"]


def test_the_page_answers_in_three_sentences_and_its_picture_has_at_most_eight_lines(tmp_path):
    claims = [verdicts.measured(name, (0.5, 0.4, 0.6)) for name in PAGE.claims]
    records = [
        entry
        for family, learners in SHOWN.items()
        for name in learners
        for entry in verdicts.entries(family, name, constant(0.4, 0.2), (5, 10), "error")
    ]
    losses = {table: {OURS: np.full((1, 2, 4), 0.5)} for table in TABLES}
    result = part.result("meta", Found(records, claims, [grouped.loss_listing(losses)]), [], False, 3)
    assert all(len(list(question.answer(Result(result)))) == 3 for question in PAGE.questions)
    assert len({label for learners in SHOWN.values() for _, label in learners.values()}) <= 8
    text = write_result(tmp_path, "meta", result, PAGE)[1].read_text()
    assert (
        "0.5 times the errors of the best tuned" in text
        and "| ours | 0.500 / 0.500 / 0.500 / 0.500 |" in text
    )
    blank = part.result(
        "meta", Found(), [verdicts.unmeasured(name, "not reached yet") for name in PAGE.claims], True, 1
    )
    text = write_result(tmp_path / "none", "meta", blank, PAGE)[1].read_text()
    assert "an unmeasured share of the errors" in text and "not measured: not reached yet" in text


def test_parts_that_train_by_themselves_see_what_the_study_sees():
    family = Sinusoids(support_rows=40, query_rows=5)
    training = keys.waves_training(family, 2, 1)
    learner, seconds = keys.trained(ALPaCA(keys=4, width=4), training)
    wanted = learnt.losses(learner, learnt.drawn(family, 7, 2), (5, 40), 5, "truth_error").mean(0)
    found = keys.curve(learner, keys.drawn(family, 7, 2), (5, 40), 5, keys.truth_error)
    assert seconds > 0 and training.config.seed == 1
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
