"""What a seed of each problem measures: a tuned sampler and what stands beside it.

Source: Hu et al. 2024, section 4.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradatim.language.sampling import SamplerConfig, tune_sampler
from gradatim.language.sequences import Sequences, encode, sample

from . import sampler_tasks as tasks
from .sampler_peers import fine_tune, reinforce, resampled, weighed
from .sampler_tasks import Names, Problem


@dataclass(frozen=True)
class Size:
    """How much is done: updates of each problem, sequences of a step, draws that judge."""

    numbers: int = 300
    names: int = 150
    infilling: int = 100
    draws: int = 500
    proposals: int = 1000
    repeats: int = 100
    batch: int = 32


SMALL = Size(3, 3, 2, 20, 20, 2, 4)
HEATS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Temperatures of the tokens among which temperature sampling chooses."""

WAYS = {
    "subtb": (2.5e-4, "full"),
    "fine-tuned": (2e-3, "full"),
    "reinforce": (1e-4, "full"),
    "reinforce, no entropy": (3e-4, "full"),
}
"""Learning rates and adapters of names, chosen by KL on seed 1000 and the validation ending; the last is not chosen."""

INFILLING_RATES = {"subtb": 5e-4, "fine-tuned": 3e-4, "reinforce": 1e-4}
"""Learning rates of the middle sentence, chosen on seed 1000 and the validation stories."""

TEMPERED = 0.25
"""The share of batches at a random temperature, chosen there too."""

NUMBER_RATE = 3e-3
"""The learning rate on numbers, where all methods tune all weights; chosen on seed 1000."""


def config(size: Size, rate: float, seed: int) -> SamplerConfig:
    """Return the settings of a run."""
    return SamplerConfig(batch_size=size.batch, lr=rate, tempered=TEMPERED, seed=seed)


def arrays(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return a record of numbers and lists as arrays."""
    return {key: np.asarray(value) for key, value in values.items()}


# --- numbers


def numbers(method: str, seed: int, size: Size, smoke: bool) -> dict[str, np.ndarray]:
    """Return the validity and the divergence from uniform of one method on numbers."""
    problem = pretrained(seed, smoke)
    begin, given = process_time(), (problem.model, problem.tokenizer, problem.log_reward, problem.prompts)
    if method == "untuned":
        return arrays(tasks.judged_numbers(problem))
    if method == "temperature sampling":
        found = [tasks.judged_numbers(problem, None, heat) for heat in HEATS]
        return arrays({key: [entry[key] for entry in found] for key in found[0]})
    if method == "importance resampling":
        return arrays(_resampled_numbers(problem, seed, size))
    settings = config(replace(size, batch=2 * size.batch), NUMBER_RATE, seed)
    if method == "subtb":
        tuned = tune_sampler(
            *given, size.numbers, adapter="full", space=problem.space, config=settings, progress=False
        )
    else:
        entropy = 1.0 if method == "reinforce" else 0.0
        tuned = reinforce(*given, size.numbers, problem.space, settings, entropy, "full")
    return arrays(tasks.judged_numbers(problem, tuned) | {"seconds": process_time() - begin})


@cache
def pretrained(seed: int, smoke: bool) -> Problem:
    """Return the numbers of a seed; methods copy its model."""
    return tasks.numbers(seed, smoke)


def _resampled_numbers(problem: Problem, seed: int, size: Size) -> dict[str, float]:
    """Return what one resampled draw of many proposals is like, on average."""
    generator, share = torch.Generator().manual_seed(seed), torch.zeros(100, dtype=torch.float64)
    for _ in range(max(2, size.repeats // 5)):
        drawn, weights = weighed(problem.reader(), [0], problem.log_reward, size.proposals, generator)
        for row, weight in zip(drawn.lists(), weights.tolist(), strict=True):
            text = problem.tokenizer.decode(row)
            if text in tasks.NUMBERS:
                share[int(text)] += weight
    share /= max(2, size.repeats // 5)
    kl = tasks.divergence((share + 1e-300).log(), torch.zeros(100))
    return {"valid": float(share.sum()), "kl": kl}


# --- names


@cache
def table(split: str, smoke: bool) -> Names:
    """Return the enumerated names, whose model is never tuned."""
    return tasks.names(split, smoke)


def fresh(split: str, smoke: bool) -> Names:
    """Return the enumerated names with a model of their own, which may be tuned."""
    known = table(split, smoke)
    model, tokenizer = tasks.language(smoke)
    space, ending = known.problem.space, tasks.ENDINGS[split]
    reward = tasks.PosteriorReward(model, tokenizer, [tasks.GIRL], [ending], space)
    return replace(known, problem=Problem(model, tokenizer, space, [tasks.GIRL], reward))


def names(
    method: str, seed: int, size: Size, smoke: bool, temperature: float = 1.0, split: str = "test"
) -> dict[str, np.ndarray]:
    """Return the divergences from the enumerated posterior of one method, at a temperature of rewards."""
    known = table(split, smoke)
    if method == "untuned":
        return arrays(known.judged(known.of(), temperature))
    if method == "temperature sampling":
        found = [known.judged(known.of(None, heat), temperature) for heat in HEATS]
        return arrays({key: [entry[key] for entry in found] for key in found[0]})
    if method == "importance resampling":
        return arrays(known.judged(_resampled_names(known, seed, size, temperature), temperature))
    known, begin = fresh(split, smoke), process_time()
    tuned = _tuned_names(known, method, seed, size, temperature)
    seconds = process_time() - begin
    return arrays(known.judged(known.of(tuned), temperature) | {"seconds": seconds})


def _tuned_names(known: Names, method: str, seed: int, size: Size, temperature: float) -> Any:
    rate, adapter = WAYS[method]
    problem, settings = known.problem, config(size, rate, seed)
    given = (problem.model, problem.tokenizer, problem.log_reward, problem.prompts)
    if method == "subtb":
        return tune_sampler(
            *given, size.names, temperature, adapter, problem.space, config=settings, progress=False
        )
    if method == "fine-tuned":
        generator, n = torch.Generator().manual_seed(seed), size.names * size.batch
        drawn, weights = weighed(problem.reader(), known.prompt, problem.log_reward, n, generator)
        some = resampled(drawn, weights, n, generator)
        return fine_tune(*given[:2], [some], problem.prompts, size.names, problem.space, settings, adapter)
    entropy = 1.0 if method == "reinforce" else 0.0
    return reinforce(*given, size.names, problem.space, settings, entropy, adapter)


def _resampled_names(known: Names, seed: int, size: Size, temperature: float) -> Tensor:
    """Return the log of how often one resampled draw of many proposals is each name, on average over repeats."""
    prior, generator = known.of(), torch.Generator().manual_seed(seed)
    weight = (known.log_reward / temperature - prior).exp()
    share = torch.zeros_like(prior)
    for _ in range(size.repeats):
        drawn = torch.multinomial(prior.exp(), size.proposals, replacement=True, generator=generator)
        counted = torch.bincount(drawn, minlength=len(prior)) * weight
        share += counted / counted.sum() / size.repeats
    return (share + 1e-300).log()


# --- a middle sentence


def infilling(
    method: str, seed: int, size: Size, smoke: bool, calls: int = 0, split: str = "test"
) -> dict[str, np.ndarray]:
    """Return the variational bound of each story of one method, of stories not seen, and reward calls.

    Fine-tuning gets as many reward calls as are given. Those of importance resampling are of one draw of each story.
    """
    problem, unseen = tasks.infilling(split, smoke), others(smoke)
    if method == "temperature sampling":
        found = [_judged_middle(problem, unseen, None, seed, size, heat) for heat in HEATS]
        return arrays(
            {key: [entry[key] for entry in found] for key in found[0]} | {"calls": [0] * len(HEATS)}
        )
    begin, tuned = process_time(), None
    if method == "importance resampling":
        return arrays(_resampled_middle(problem, unseen, split, seed, size))
    if method == "subtb":
        tuned = _sampler(problem, seed, size)
    elif method == "fine-tuned":
        tuned = _imitator(problem, split, seed, size, calls)
    elif method == "reinforce":
        given = (problem.model, problem.tokenizer, problem.log_reward, problem.prompts)
        settings = config(size, INFILLING_RATES[method], seed)
        tuned = reinforce(*given, size.infilling, problem.space, settings, adapter="full")
    used, seconds = problem.log_reward.calls, process_time() - begin  # type: ignore[attr-defined]
    judged = _judged_middle(problem, unseen, tuned, seed, size)
    return arrays(judged | {"calls": used, "seconds": seconds})


@cache
def others(smoke: bool) -> Problem:
    """Return stories that no method is tuned on, whose model is never tuned."""
    return tasks.infilling("unseen", smoke)


def _judged_middle(
    problem: Problem, unseen: Problem, tuned: Any, seed: int, size: Size, heat: float = 1.0
) -> dict[str, Any]:
    """Return the bounds of a model, tuned or not, and what it says, at a temperature of the tokens."""
    frozen = getattr(tuned, "disable_adapter", nullcontext)
    said = [
        sample(tuned or problem.model, problem.tokenizer, prompt, 1, problem.space, heat, seed)[0]
        for prompt in problem.prompts
    ]
    # the reader of unseen stories reads them by the tuned model; their rewards come from a model of their own
    return {
        "bound": tasks.bound(problem, tuned, frozen, size.draws, seed, heat),
        "unseen": tasks.bound(unseen, tuned, nullcontext, size.draws, seed, heat),
        "said": said,
    }


def _resampled_middle(problem: Problem, unseen: Problem, split: str, seed: int, size: Size) -> dict[str, Any]:
    """Return the bounds of draws of p(z | X) resampled by p(Y | X z), and one such draw of each story."""
    generator, said = torch.Generator().manual_seed(seed), []
    stories = [start for start, _ in tasks.STORIES[split][: len(problem.prompts)]]
    strange = [start for start, _ in tasks.STORIES["unseen"][: len(unseen.prompts)]]
    begin = process_time()
    for place, start in enumerate(stories):
        ids = encode(problem.tokenizer, start)
        given = (problem.reader(), ids, problem.log_reward, size.proposals, generator, place)
        said.append(problem.tokenizer.decode(resampled(*weighed(*given), 1, generator).lists()[0]))
    calls, seconds = problem.log_reward.calls, process_time() - begin  # type: ignore[attr-defined]
    repeats = max(2, size.repeats // 20)
    return {
        "bound": tasks.resampled_bound(problem, stories, size.proposals, repeats, seed),
        "unseen": tasks.resampled_bound(unseen, strange, size.proposals, repeats, seed),
        "said": said,
        "calls": calls,
        "seconds": seconds,
    }


def _sampler(problem: Problem, seed: int, size: Size) -> Any:
    given = (problem.model, problem.tokenizer, problem.log_reward, problem.prompts)
    settings, adapter = config(size, INFILLING_RATES["subtb"], seed), WAYS["subtb"][1]
    return tune_sampler(
        *given, size.infilling, adapter=adapter, space=problem.space, config=settings, progress=False
    )


def _imitator(problem: Problem, split: str, seed: int, size: Size, calls: int) -> Any:
    """Return a model fine-tuned on draws from p(z | X), in proportion to p(Y | X z)."""
    generator, n = torch.Generator().manual_seed(seed), max(2, calls // len(problem.prompts))
    sets: list[Sequences] = []
    for place, (start, _) in enumerate(tasks.STORIES[split][: len(problem.prompts)]):
        drawn, weights = weighed(
            problem.reader(), encode(problem.tokenizer, start), problem.log_reward, n, generator, place
        )
        sets.append(resampled(drawn, weights, 2000, generator))
    settings, adapter = config(size, INFILLING_RATES["fine-tuned"], seed), WAYS["fine-tuned"][1]
    return fine_tune(
        problem.model,
        problem.tokenizer,
        sets,
        problem.prompts,
        size.infilling,
        problem.space,
        settings,
        adapter,
    )
