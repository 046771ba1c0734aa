"""Language models tuned to sample: rewards of prefixes, draws, adapters that leave weights alone, and bad input."""

import copy
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip("transformers")
pytest.importorskip("peft")

from studies.frozen import sampler, sampler_runs, sampler_tasks
from studies.frozen.models import stories, tiny
from studies.frozen.sampler_peers import resampled, weighed

from gradatim.comparison.runs import Study
from gradatim.language import (
    PosteriorReward,
    SamplerConfig,
    Sequences,
    SequenceSpace,
    TextReward,
    sample,
    tune_sampler,
)
from gradatim.language.sampling import DEPTH, PATIENCE
from gradatim.language.sequences import Reader, as_sequences, encode, whole

SPACE = SequenceSpace(max_tokens=4, stop=".")
QUICK = SamplerConfig(batch_size=8, rank=4, warmup=1)


def small() -> tuple[Any, Any]:
    model, tokenizer = tiny(1)
    model.requires_grad_(False)
    # with embeddings as small as they come no adapter below them could make one token likelier than another
    model.get_input_embeddings().weight.mul_(20)
    return model, tokenizer


def few(tokenizer: Any, letters: str = "ab", size: int = 2) -> SequenceSpace:
    return SequenceSpace(size, ".", tuple(tokenizer.convert_tokens_to_ids(list(letters))))


@torch.no_grad()
def said(model: Any, ids: list[int], first: int) -> float:
    """Return the log-probability of ids from the place `first` on, token by token."""
    log = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(log[place - 1, ids[place]] for place in range(first, len(ids))))


# --- rewards


def test_rewards_of_prefixes_from_one_pass_are_those_of_separate_passes() -> None:
    model, tokenizer = small()
    starts, endings = ["a girl", "It was"], [" ran.", " hot"]
    reward = PosteriorReward(model, tokenizer, starts, endings, SPACE)
    stop = SPACE.stop_id(tokenizer)
    rows = [encode(tokenizer, text, False) for text in ("Lily", "ab", "", "abc")]
    for prompt in (0, 1):
        found = reward(as_sequences(rows, stop, prompt))
        start, end = (encode(tokenizer, t[prompt], s) for t, s in ((starts, True), (endings, False)))
        for place, row in enumerate(rows):
            for n in range(len(row) + 1):
                # X z stop Y, less X
                wanted = said(model, [*start, *row[:n], stop, *end], len(start))
                assert float(found[place, n]) == pytest.approx(wanted, abs=1e-3)
        ends = reward.finished(as_sequences(rows, stop, prompt))
        torch.testing.assert_close(ends, found.gather(1, torch.tensor([[len(r)] for r in rows]))[:, 0])
    assert reward.calls == 2 * len({tuple(row[:n]) for row in rows for n in range(len(row) + 1)})


def spaced() -> tuple[Any, Any]:
    """Return a tiny model whose tokenizer begins each text with a space of its own, as sentencepiece does."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    characters = ["<s>", "</s>", "<unk>", "\u2581", *"abcHewas.", "\u2581H", ".."]
    ids = {token: place for place, token in enumerate(characters)}
    backend = Tokenizer(models.BPE(ids, [("\u2581", "H"), (".", ".")], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    return tiny(1)[0], PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize(("stop", "ids"), [(".", False), (None, False), (".", True)])
def test_an_ending_has_the_tokens_that_it_has_in_running_text(stop: str | None, ids: bool) -> None:
    model, tokenizer = spaced()
    model.requires_grad_(False)
    space = SequenceSpace(4, stop)
    start, row = encode(tokenizer, "a"), encode(tokenizer, "b")[1:]
    reward = PosteriorReward(model, tokenizer, [start if ids else "a"], [" Hew"], space)
    text = encode(tokenizer, f"ab{stop or ''} Hew")
    assert encode(tokenizer, " Hew")[0] == tokenizer.convert_tokens_to_ids("\u2581") != text[-3]
    found = float(reward(as_sequences([row], space.stop_id(tokenizer)))[0, 1])
    if stop:
        assert found == pytest.approx(said(model, text, len(start)), abs=1e-3)
    else:
        wanted = said(model, [*start, *row, 1], len(start)) + said(model, text, len(start) + 1)
        assert found == pytest.approx(wanted, abs=1e-3)


def test_an_ending_that_shares_a_token_with_what_stands_before_is_refused() -> None:
    with pytest.raises(ValueError, match="ending 0 can not be told apart"):
        PosteriorReward(*spaced(), ["a"], [".He"], SPACE)


@pytest.mark.skipif("GRADATIM_DATA" not in os.environ, reason="stories260k lies below $GRADATIM_DATA")
def test_an_ending_of_stories260k_has_no_doubled_space() -> None:
    model, tokenizer = stories()
    reward = PosteriorReward(model, tokenizer, ["a girl named"], [" He was a dog."], SPACE)
    row = encode(tokenizer, "a girl named Lily")[len(encode(tokenizer, "a girl named")) :]
    wanted = said(
        model, encode(tokenizer, "a girl named Lily. He was a dog."), len(encode(tokenizer, "a girl named"))
    )
    found = float(reward.finished(as_sequences([row], SPACE.stop_id(tokenizer)))[0])
    assert found == pytest.approx(wanted, abs=1e-2)


def test_an_end_token_is_no_part_of_the_text() -> None:
    model, tokenizer = small()
    space = SequenceSpace(4)
    reward = PosteriorReward(model, tokenizer, ["a"], ["cd"], space, batch_size=2)
    row, start, end = encode(tokenizer, "xy", False), encode(tokenizer, "a"), encode(tokenizer, "cd", False)
    found = reward(as_sequences([row], 1))[0, 2]
    wanted = said(model, [*start, *row, 1], len(start)) + said(model, [*start, *row, *end], len(start) + 2)
    assert float(found) == pytest.approx(wanted, abs=1e-3)
    alone = PosteriorReward(model, tokenizer, ["a"], None, space)(as_sequences([row], 1))[0, 2]
    assert float(alone) == pytest.approx(said(model, [*start, *row, 1], len(start)), abs=1e-3)


def test_a_function_of_the_text_is_asked_once_for_every_prefix() -> None:
    _, tokenizer = small()
    asked: list[str] = []
    reward = TextReward(tokenizer, lambda text: asked.append(text) or -float(len(text)))
    rows = as_sequences([encode(tokenizer, text, False) for text in ("ab", "a")], 1)
    assert reward(rows).tolist() == [[0, -1, -2], [0, -1, 0]]
    reward(rows)
    assert sorted(asked) == ["", "a", "ab"]


# --- draws


def test_draws_are_as_frequent_as_they_are_likely() -> None:
    model, tokenizer = small()
    space = few(tokenizer)
    reader, prompt, stop = Reader(model, tokenizer, space), encode(tokenizer, "a"), space.stop_id(tokenizer)
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    every = as_sequences([[], [a], [b], *([x, y] for x in (a, b) for y in (a, b))], stop)
    with torch.no_grad():
        chance = reader.log_sequences(prompt, every).exp()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-5)
    drawn = reader.draw(prompt, 20_000, torch.Generator().manual_seed(0)).lists()
    found = [drawn.count(row) / len(drawn) for row in every.lists()]
    torch.testing.assert_close(torch.tensor(found), chance, atol=0.012, rtol=0)  # 4 standard deviations of .5


def test_what_a_model_reads_at_once_is_what_it_reads_token_by_token() -> None:
    model, tokenizer = small()
    reader, prompt = Reader(model, tokenizer, SPACE), encode(tokenizer, "a girl named")
    drawn = reader.draw(prompt, 8, torch.Generator().manual_seed(0))
    log_q, log_stop = reader.log_probabilities(prompt, drawn)
    for place, row in enumerate(drawn.lists()):
        assert float(log_q[place, : len(row)].sum()) == pytest.approx(
            said(model, [*prompt, *row], len(prompt)), abs=1e-4
        )
    assert log_stop.shape == (8, drawn.tokens.shape[1] + 1)
    assert bool((log_stop[:, 4] == 0).all())  # after max_tokens a sequence stops in any case
    assert whole(log_q, log_stop, drawn.lengths).shape == (8,)


def test_sample_returns_texts_and_the_same_for_a_seed() -> None:
    model, tokenizer = small()
    texts = sample(model, tokenizer, "a girl", 5, few(tokenizer))
    assert len(texts) == 5 and all(set(text) <= set("ab") and len(text) <= 2 for text in texts)
    assert texts == sample(model, tokenizer, encode(tokenizer, "a girl"), 5, few(tokenizer))
    assert texts == sample(model, tokenizer, "a girl", 5, few(tokenizer))


# --- tuning


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_tuned_sampler_is_near_the_posterior_and_the_frozen_weights_are_unchanged(adapter: str) -> None:
    model, tokenizer = small()
    before = copy.deepcopy(model.state_dict())
    space, stop = few(tokenizer, "abc", 1), SPACE.stop_id(tokenizer)
    wanted = {"": 0.1, "a": 0.6, "b": 0.2, "c": 0.1}
    reward = TextReward(tokenizer, lambda text: math.log(wanted[text]))
    config = SamplerConfig(batch_size=16, lr=2e-2, rank=8)
    tuned = tune_sampler(
        model, tokenizer, reward, ["x"], 80, adapter=adapter, space=space, config=config, progress=False
    )
    rows = as_sequences([encode(tokenizer, text, False) for text in wanted], stop)
    with torch.no_grad():
        found = Reader(tuned, tokenizer, space).log_sequences(encode(tokenizer, "x"), rows).exp()
    torch.testing.assert_close(found, torch.tensor(list(wanted.values())), atol=0.05, rtol=0)
    after = model.state_dict()
    for name, value in before.items():
        same = name if name in after else name.replace(".weight", ".base_layer.weight")
        assert torch.equal(after[same], value)
    if adapter == "lora":
        ids = torch.tensor([encode(tokenizer, "x")])
        with torch.no_grad(), tuned.disable_adapter():
            torch.testing.assert_close(tuned(ids).logits, small()[0](ids).logits)


def test_rewards_of_the_model_itself_are_asked_with_the_adapter_off() -> None:
    model, tokenizer = small()
    space = few(tokenizer)
    reward = PosteriorReward(model, tokenizer, ["x"], ["ab"], space)
    rows = as_sequences([list(space.allowed or ())], space.stop_id(tokenizer))
    before, found = reward(rows), []

    def watched(sequences: Sequences) -> torch.Tensor:
        reward._kept.clear()
        found.append(reward(rows))
        return reward(sequences)

    config = SamplerConfig(batch_size=4, lr=0.1)
    tuned = tune_sampler(model, tokenizer, watched, ["x"], 4, space=space, config=config, progress=False)
    assert all(torch.allclose(one, before, atol=1e-5) for one in found) and len(found) == 4
    reward._kept.clear()
    assert not torch.allclose(reward(rows), before, atol=1e-3)  # the adapter is in the model, and on
    reward._kept.clear()
    with tuned.disable_adapter():
        torch.testing.assert_close(reward(rows), before)


def test_a_seed_makes_the_same_sampler_and_disturbs_no_other_draws() -> None:
    found = []
    for _ in range(2):
        model, tokenizer = small()
        state = torch.random.get_rng_state()
        reward = TextReward(tokenizer, lambda text: -float(len(text)))
        tuned = tune_sampler(model, tokenizer, reward, ["x"], 3, space=SPACE, config=QUICK, progress=False)
        assert torch.equal(state, torch.random.get_rng_state())
        found.append(torch.cat([p.detach().flatten() for p in tuned.parameters()]))
    assert torch.equal(*found)


def test_some_rewards_of_minus_infinity_are_lifted() -> None:
    model, tokenizer = small()
    space = few(tokenizer, "ab", 1)
    reward = TextReward(tokenizer, lambda text: 0.0 if text == "a" else -math.inf)
    config = SamplerConfig(batch_size=16, lr=1e-2)
    tuned = tune_sampler(model, tokenizer, reward, ["x"], 150, 1.0, "full", space, config, progress=False)
    texts = sample(tuned, tokenizer, "x", 200, space)
    assert texts.count("a") > 190 and DEPTH > math.log(200)


# --- bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": []}, "at least one"),
        ({"prompts": "one text"}, "put it in a list"),
        ({"prompts": ["x" * 600]}, "more than the 512"),
        ({"prompts": [[]]}, "has no token"),
        ({"prompts": np.array([3, 4])}, "ids of one text in a list"),
        ({"prompts": [[10**6]]}, "prompt 0 has ids"),
        ({"steps": 0}, "steps are at least 1"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"adapter": "prefix"}, "adapter is 'lora'"),
        ({"space": SequenceSpace(4, stop="ab")}, "must be one token"),
        ({"space": SequenceSpace(4, stop=10**6)}, "does not have"),
        ({"space": SequenceSpace(4, stop=-1)}, "does not have"),
        ({"space": SequenceSpace(4, stop=".", allowed=(10**6,))}, "does not have"),
        ({"log_reward": lambda s: torch.zeros(3)}, "one number for each prefix"),
        ({"log_reward": lambda s: torch.full((8, s.tokens.shape[1] + 1), math.nan)}, "NaN or plus infinity"),
        (
            {"log_reward": lambda s: torch.full((8, s.tokens.shape[1] + 1), -math.inf), "steps": 30},
            "minus infinity for all samples of the first 20 batches of prompt 0",
        ),
        (
            {"log_reward": lambda s: torch.full((8, s.tokens.shape[1] + 1), -math.inf), "steps": 3},
            "minus infinity for all samples of 3 steps",
        ),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], words: str) -> None:
    model, tokenizer = small()
    given = {
        "log_reward": TextReward(tokenizer, lambda text: -1.0),
        "prompts": ["x"],
        "steps": 2,
        "space": SPACE,
    }
    with pytest.raises(ValueError, match=words):
        tune_sampler(model, tokenizer, **(given | change), config=QUICK, progress=False)


def test_vain_batches_are_counted_of_each_prompt_alone() -> None:
    model, tokenizer = small()
    asked = [0, 0, 0]

    def late(sequences: Sequences) -> torch.Tensor:
        asked[sequences.prompt] += 1
        found = -1.0 if asked[sequences.prompt] >= PATIENCE else -math.inf
        return torch.full((8, sequences.tokens.shape[1] + 1), found)

    steps, prompts = 3 * PATIENCE, ["x", "y", "z"]
    tune_sampler(model, tokenizer, late, prompts, steps, space=SPACE, config=QUICK, progress=False)
    assert min(asked) == PATIENCE

    def never(sequences: Sequences) -> torch.Tensor:
        return torch.full((8, sequences.tokens.shape[1] + 1), -1.0 if sequences.prompt == 0 else -math.inf)

    with pytest.raises(ValueError, match="batches of prompt 1"):
        tune_sampler(small()[0], tokenizer, never, ["x", "y"], 3 * PATIENCE, space=SPACE, config=QUICK)


def test_a_posterior_reward_of_another_space_or_of_fewer_starts_is_refused() -> None:
    model, tokenizer = small()
    options = {"adapter": "full", "config": QUICK, "progress": False}
    for space in (None, SequenceSpace(5, "."), SequenceSpace(4, "a")):
        reward = PosteriorReward(model, tokenizer, ["x"], [" y"], space)
        with pytest.raises(ValueError, match="give both the same space"):
            tune_sampler(model, tokenizer, reward, ["x"], 1, space=SPACE, **options)
        other = as_sequences([encode(tokenizer, "wxyz")[:4], []], SPACE.stop_id(tokenizer))
        if space != SequenceSpace(5, "."):
            for asked in (reward, reward.finished):
                with pytest.raises(ValueError, match="the space of the sampler"):
                    asked(other)
    reward = PosteriorReward(model, tokenizer, ["x"], [" y"], SPACE)
    with pytest.raises(ValueError, match="1 starts and the sampler 2 prompts"):
        tune_sampler(model, tokenizer, reward, ["x", "y"], 1, space=SPACE, **options)
    for asked in (reward, reward.finished):
        with pytest.raises(ValueError, match="got sequences of prompt 1"):
            asked(as_sequences([[5]], SPACE.stop_id(tokenizer), 1))
    with pytest.raises(ValueError, match="up to 4 tokens"):
        reward(as_sequences([[5] * 5], SPACE.stop_id(tokenizer)))


def test_arrays_of_texts_and_of_ids_are_read_as_lists_are() -> None:
    model, tokenizer = small()
    rows = as_sequences([encode(tokenizer, "ab", False)], SPACE.stop_id(tokenizer))
    starts, endings = ["x", "z"], [" y", " w"]
    plain = PosteriorReward(model, tokenizer, starts, endings, SPACE)(rows)
    texts = PosteriorReward(model, tokenizer, np.array(starts), np.array(endings), SPACE)
    torch.testing.assert_close(texts(rows), plain)
    ids = [np.array([encode(tokenizer, text) for text in some]) for some in (starts, endings)]
    torch.testing.assert_close(PosteriorReward(model, tokenizer, ids[0], ids[1], SPACE)(rows), plain)
    found = []
    for prompts in (starts, np.array(starts), ids[0]):
        tuned = tune_sampler(
            small()[0], tokenizer, texts, prompts, 2, space=SPACE, config=QUICK, progress=False
        )
        found.append(sample(tuned, tokenizer, prompts[0], 4, SPACE))
    assert found[0] == found[1] == found[2]


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    model, tokenizer = small()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        sample(model, tokenizer, "x", 2)
    assert len(sample(model, tokenizer, "x", 2, SPACE)) == 2


def test_a_model_with_adapters_is_refused() -> None:
    model, tokenizer = small()
    reward = TextReward(tokenizer, lambda text: -1.0)
    tuned = tune_sampler(model, tokenizer, reward, ["x"], 1, space=SPACE, config=QUICK, progress=False)
    with pytest.raises(ValueError, match="merge them first"):
        tune_sampler(tuned, tokenizer, reward, ["x"], 1, space=SPACE, config=QUICK, progress=False)


@pytest.mark.parametrize(
    ("starts", "endings", "words"),
    [
        ([], None, "one for each prompt"),
        (["a"], ["b", "c"], "needs its ending"),
        (["a"], [""], "no token"),
        (["a"], ["b" * 600], "more than the 512"),
    ],
)
def test_starts_and_endings_that_do_not_fit_are_refused(starts: list[str], endings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PosteriorReward(*small(), starts, endings, SPACE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"lr": 0.0},
        {"replay": 0.8},
        {"temperatures": (0.0, 1.0)},
        {"first_temperature": -1.0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SamplerConfig(**wrong)


def test_the_reward_temperature_reaches_its_own_linearly() -> None:
    config = SamplerConfig(first_temperature=2.0, annealing=10)
    assert [config.reward_temperature(step, 1.0) for step in (0, 5, 10, 99)] == [2.0, 1.5, 1.0, 1.0]
    assert SamplerConfig().reward_temperature(0, 0.5) == 0.5


# --- what the study stands on


def test_importance_resampling_is_the_posterior_where_it_is_enumerated() -> None:
    known = sampler_tasks.names("test", smoke=True)
    reader, generator = known.problem.reader(), torch.Generator().manual_seed(0)
    drawn, weights = weighed(reader, known.prompt, known.problem.log_reward, 64, generator)
    assert float(weights.sum()) == pytest.approx(1)
    assert len(resampled(drawn, weights, 5, generator).tokens) == 5
    share = sampler_runs._resampled_names(known, 0, sampler_runs.Size(proposals=20_000, repeats=3), 1.0)
    assert known.judged(share)["kl"] < 0.02


def test_a_bound_of_many_samples_is_the_log_of_what_rewards_sum_to() -> None:
    problem = sampler_tasks.infilling("test", smoke=True)
    model, tokenizer = problem.model, problem.tokenizer
    space = few(tokenizer, "ab", 1)
    reward = TextReward(tokenizer, lambda text: {"": 0.0, "a": 1.0, "b": 2.0}[text])
    problem = sampler_tasks.Problem(model, tokenizer, space, ["x"], reward)
    total = math.log(1 + math.e + math.e**2)
    assert sampler_tasks.resampled_bound(problem, ["x"], 4000, 2, 0)[0] == pytest.approx(total, abs=0.05)
    sharp, flat = (sampler_tasks.bound(problem, None, nullcontext, 4000, 0, heat)[0] for heat in (1.0, 1e6))
    assert sharp <= total and flat == pytest.approx(
        1 + math.log(3), abs=0.05
    )  # the mean of log R, and the entropy


def test_an_enumeration_without_a_limit_is_the_whole_tree() -> None:
    model, tokenizer = small()
    reader = Reader(model, tokenizer, few(tokenizer, "abc", 3))
    found, outside = sampler_tasks.enumerated(reader, encode(tokenizer, "x"), 1e-12)
    assert (len(found), outside) == (1 + 3 + 9 + 27, 0)


def test_the_part_of_the_study_claims_what_it_should(tmp_path: Path) -> None:
    study = Study(tmp_path, 1, Console(quiet=True))
    found = sampler.part(study, smoke=True, seeds=1)
    assert [claim["id"].removeprefix("frozen.sampler.") for claim in found["claims"]] == [
        "kl_numbers",
        "valid",
        "kl_names",
        "over_reinforce",
        "infilling",
    ]
    methods = ("temperature sampling", "importance resampling", "reinforce", "subtb")
    assert all(all(m in str(listing) for m in methods) for listing in found["listings"][:3])
    assert all(
        "outside" in listing["columns"] for listing in found["listings"] if "names" in listing["title"]
    )
    assert all(
        len(row) == len(listing["columns"]) for listing in found["listings"] for row in listing["rows"]
    )
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    assert sampler.part(study, smoke=True, seeds=1) == found
    assert records == {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
