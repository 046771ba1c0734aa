"""What stands beside a tuned sampler: REINFORCE, fine-tuning on rejection samples, importance resampling.

Source: Williams 1992 (REINFORCE); Hu et al. 2024, section 4 (the same rivals); Rubin 1988 (importance resampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradatim.language.rewards import PosteriorReward
from gradatim.language.sampling import Reward, SamplerConfig, adapted
from gradatim.language.sequences import Reader, Sequences, SequenceSpace, encode, whole

CHUNK = 512


def reinforce(
    model: Any,
    tokenizer: Any,
    log_reward: Reward,
    prompts: Sequence[Any],
    steps: int,
    space: SequenceSpace,
    config: SamplerConfig,
    entropy: float = 1.0,
    adapter: str = "lora",
) -> Any:
    """Return a model tuned by the score function on its own draws: E[log R] + entropy H, less the mean as baseline.

    With `entropy=1` the optimum is the posterior.
    """
    tuned, frozen = adapted(model, adapter, config.rank, config.seed)
    reader, ids = Reader(tuned, tokenizer, space), [encode(tokenizer, prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        [p for p in tuned.parameters() if p.requires_grad], config.lr, weight_decay=0.0
    )
    for step in range(steps):
        for place in range(config.prompts):
            place = (step * config.prompts + place) % len(ids)
            drawn = reader.draw(ids[place], config.batch_size, generator, place=place)
            with torch.no_grad(), frozen():
                reward = finished(log_reward, drawn)
            log_q = whole(*reader.log_probabilities(ids[place], drawn), drawn.lengths)
            gain = reward - entropy * log_q.detach()
            (-(gain - gain.mean()) * log_q).mean().div(config.prompts).backward()
        update(tuned, optimizer, config, step, steps)
    return tuned


def fine_tune(
    model: Any,
    tokenizer: Any,
    sets: Sequence[Sequences],
    prompts: Sequence[Any],
    steps: int,
    space: SequenceSpace,
    config: SamplerConfig,
    adapter: str = "lora",
) -> Any:
    """Return a model fine-tuned to say the sequences of each prompt: maximum likelihood."""
    tuned, _ = adapted(model, adapter, config.rank, config.seed)
    reader, ids = Reader(tuned, tokenizer, space), [encode(tokenizer, prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        [p for p in tuned.parameters() if p.requires_grad], config.lr, weight_decay=0.0
    )
    for step in range(steps):
        for place in range(config.prompts):
            place = (step * config.prompts + place) % len(ids)
            some = torch.randint(len(sets[place].tokens), (config.batch_size,), generator=generator)
            batch = Sequences(sets[place].tokens[some], sets[place].lengths[some], place)
            log_q = whole(*reader.log_probabilities(ids[place], batch), batch.lengths)
            (-log_q.mean()).div(config.prompts).backward()
        update(tuned, optimizer, config, step, steps)
    return tuned


def update(
    tuned: Any, optimizer: torch.optim.Optimizer, config: SamplerConfig, step: int, steps: int
) -> None:
    """Take a step by the gradients that are there, with the rates of `tune_sampler`."""
    for group in optimizer.param_groups:
        group["lr"] = config.lr * config.rate(step, steps)
    torch.nn.utils.clip_grad_norm_(tuned.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def weighed(
    reader: Reader,
    prompt: Sequence[int],
    log_reward: Reward,
    n: int,
    generator: torch.Generator,
    place: int = 0,
    temperature: float = 1.0,
) -> tuple[Sequences, Tensor]:
    """Return n draws of a model and their importance weights `[n]`, which sum to one."""
    drawn, scores = scored(reader, prompt, log_reward, n, generator, place, temperature)
    return drawn, scores.softmax(0)


@torch.no_grad()
def scored(
    reader: Reader,
    prompt: Sequence[int],
    log_reward: Reward,
    n: int,
    generator: torch.Generator,
    place: int = 0,
    temperature: float = 1.0,
) -> tuple[Sequences, Tensor]:
    """Return n draws of a model and log R / q of each `[n]`."""
    parts = [
        reader.draw(prompt, min(CHUNK, n - first), generator, place=place) for first in range(0, n, CHUNK)
    ]
    scores = [
        finished(log_reward, part).double() / temperature - reader.log_sequences(prompt, part).double()
        for part in parts
    ]
    return joined(parts, reader.stop), torch.cat(scores)


def resampled(drawn: Sequences, weights: Tensor, n: int, generator: torch.Generator) -> Sequences:
    """Return n of the draws in proportion to weights `[N]`, with replacement."""
    chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
    return Sequences(drawn.tokens[chosen], drawn.lengths[chosen], drawn.prompt)


def finished(log_reward: Reward, sequences: Sequences) -> Tensor:
    """Return the reward of each whole sequence `[B]`, without those of its prefixes where that is cheaper."""
    if isinstance(log_reward, PosteriorReward):
        return log_reward.finished(sequences)
    reward = log_reward(sequences)
    return reward.gather(1, sequences.lengths.to(reward.device)[:, None])[:, 0]


def joined(parts: Sequence[Sequences], stop: int) -> Sequences:
    """Return batches of one prompt as one."""
    longest = max(part.tokens.shape[1] for part in parts)
    padded = [
        torch.nn.functional.pad(part.tokens, (0, longest - part.tokens.shape[1]), value=stop)
        for part in parts
    ]
    return Sequences(torch.cat(padded), torch.cat([part.lengths for part in parts]), parts[0].prompt)
