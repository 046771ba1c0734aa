"""A language model tuned to sample from a posterior: sequences in proportion to rewards.

Source: Hu, Jain, Elmoznino et al. 2024 (arXiv 2310.04363); the loop follows their released code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from .models import import_peft
from .replay import Replay
from .rewards import PosteriorReward
from .sequences import Reader, Sequences, SequenceSpace, Texts, as_sequences, encode, listed
from .subtb import subtb_loss

Reward = Callable[[Sequences], Tensor]
"""Takes sequences of one prompt, and returns log R of stopping after each of their prefixes, `[B, L + 1]`."""

DEPTH, PATIENCE = 20.0, 20
"""What minus infinity counts below the best reward of a prompt; its first batches of nothing else that are an error."""


@dataclass(frozen=True)
class SamplerConfig:
    """How a sampler is tuned.

    Fields:
        `batch_size`: sequences of a prompt in a step.
        `prompts`: prompts of a step.
        `lr`: the learning rate after the warm-up; it falls linearly to a tenth.
        `warmup`: steps in which it rises linearly.
        `rank`: of the adapter of every linear layer.
        `replay`, `tempered`: shares of batches drawn from the best so far, and at a random temperature of
            `temperatures`. The others are drawn from the sampler as it is.
        `temperatures`: the lowest and the highest temperature of exploration.
        `kept`: sequences of each prompt that are kept for replay.
        `first_temperature`: the reward's at the first step, if another; it reaches its own in `annealing` steps.
        `decay`: as in `subtb_loss`.
        `clip`: the norm of gradients.
        `seed`: of adapters and draws.

    Raises:
        ValueError: counts below 1, shares outside 0 .. 1, rates or temperatures that are not positive.

    Example:
        >>> from gradatim.language import SamplerConfig
        >>> SamplerConfig(batch_size=64).replay
        0.25
    """

    batch_size: int = 32
    prompts: int = 1
    lr: float = 2e-3
    warmup: int = 20
    rank: int = 16
    replay: float = 0.25
    tempered: float = 0.5
    temperatures: tuple[float, float] = (0.5, 2.0)
    kept: int = 50
    first_temperature: float | None = None
    annealing: int = 100
    decay: float = 1.0
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "prompts", "rank", "kept", "annealing"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("lr", "decay", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if min(self.replay, self.tempered) < 0 or self.replay + self.tempered > 1:
            raise ValueError(
                f"replay and tempered are shares of batches, at most 1 together; got {self.replay} and {self.tempered}"
            )
        if not 0 < self.temperatures[0] <= self.temperatures[1]:
            raise ValueError(
                f"temperatures go from the lowest, above 0, to the highest; got {self.temperatures}"
            )
        if self.first_temperature is not None and not self.first_temperature > 0:
            raise ValueError(f"first_temperature must be above 0; got {self.first_temperature}")

    def rate(self, step: int, steps: int) -> float:
        """Return the share of `lr` at a step: a linear rise, then a linear fall to a tenth."""
        return min(1.0, (step + 1) / max(self.warmup, 1)) * (1 - 0.9 * step / steps)

    def reward_temperature(self, step: int, last: float) -> float:
        """Return the temperature of rewards at a step, which ends at `last`."""
        first = last if self.first_temperature is None else self.first_temperature
        return first + (last - first) * min(1.0, step / self.annealing)


def tune_sampler(
    model: Any,
    tokenizer: Any,
    log_reward: Reward,
    prompts: Texts,
    steps: int = 500,
    temperature: float = 1.0,
    adapter: str = "lora",
    space: SequenceSpace | None = None,
    config: SamplerConfig | None = None,
    progress: bool = True,
) -> Any:
    """Return a model that continues a prompt by sequences z with probability R(z)^(1 / temperature), up to a factor.

    Batches are drawn from the sampler, at random temperatures, or from the best so far. Each takes one pass of the
    sampler, whose loss is `subtb_loss`.

    Args:
        model: a causal language model. `lora` adds adapters to it in place, as peft does; its weights stay.
        tokenizer: its tokenizer.
        log_reward: takes `Sequences` of one prompt and returns log R of stopping after each prefix, `[B, L + 1]`:
            a `PosteriorReward`, a `TextReward`, or a function of your own. Adapters are off while it is called.
        prompts: texts or ids that the sampler continues, in a list or an array.
        steps: updates.
        temperature: below 1 the best sequences are likelier still.
        adapter: `lora`, or `full` for a copy of the model with all weights tuned.
        space: which sequences there are.
        config: the rest.
        progress: whether a bar is shown on a terminal.

    Raises:
        ImportError: peft is not installed.
        ValueError: no prompts; prompts longer than the model reads; no end token; a `PosteriorReward` of another space
            or of fewer starts; rewards of another shape, not a number or plus infinity; rewards of minus infinity for
            all of the first batches of a prompt, or for all there were; an unknown adapter.

    Example:
        >>> from gradatim.language import SequenceSpace, TextReward, load_model, sample, tune_sampler
        >>> model, tokenizer = load_model("stories260k")  # doctest: +SKIP
        >>> space = SequenceSpace(6, stop=".")
        >>> short = TextReward(tokenizer, lambda text: -float(len(text)))  # doctest: +SKIP
        >>> tuned = tune_sampler(model, tokenizer, short, ["The cat"], 50, space=space)  # doctest: +SKIP
        >>> sample(tuned, tokenizer, "The cat", 2, space)  # doctest: +SKIP
        ['ran', 'sat']

    Source: Hu et al. 2024, section 3.
    """
    space, config = space or SequenceSpace(), config or SamplerConfig()
    if steps < 1 or not temperature > 0:
        raise ValueError(f"steps are at least 1 and a temperature is above 0; got {steps} and {temperature}")
    ids = _ids(prompts, Reader(model, tokenizer, space), tokenizer, log_reward)
    tuned, frozen = adapted(model, adapter, config.rank, config.seed)
    loop = _Loop(Reader(tuned, tokenizer, space), frozen, log_reward, ids, config)
    with _bar(progress) as bar:
        task = bar.add_task("tuning", total=steps, status="")
        for loss in loop.run(steps, temperature):
            bar.update(task, advance=1, status=f"loss {loss:.4g}")
    return tuned.eval()


def _ids(prompts: Texts, reader: Reader, tokenizer: Any, log_reward: Reward) -> list[list[int]]:
    """Return the ids of prompts.

    Raises:
        ValueError: there is none, one that is empty or too long, or a reward of another space or other prompts.
    """
    ids = [
        encode(tokenizer, prompt) for prompt in listed(prompts, "prompts is a list of texts, at least one")
    ]
    for place, prompt in enumerate(ids):
        reader.check_prompt(prompt, f"prompt {place}")
    if isinstance(log_reward, PosteriorReward):
        log_reward.check_fits(reader.stop, reader.space.max_tokens, len(ids))
    return ids


def adapted(
    model: Any, adapter: str, rank: int, seed: int = 0
) -> tuple[Any, Callable[[], AbstractContextManager[Any]]]:
    """Return a model to tune, in eval mode, and the context in which the given model answers as it was.

    Raises:
        ImportError: peft is not installed.
        ValueError: an unknown adapter, or a model that has adapters already.
    """
    if adapter == "full":
        tuned = copy.deepcopy(model).requires_grad_(True)
        return tuned.eval(), nullcontext
    if adapter != "lora":
        raise ValueError(f"adapter is 'lora', or 'full' for a copy with all weights tuned; got {adapter!r}")
    peft = import_peft("tune_sampler")
    if hasattr(model, "peft_config"):
        raise ValueError("the model has adapters already: merge them first, model = model.merge_and_unload()")
    options = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned = peft.get_peft_model(model, options)

    @contextmanager
    def frozen() -> Iterator[None]:
        tuned.base_model.disable_adapter_layers()
        try:
            yield
        finally:
            tuned.base_model.enable_adapter_layers()

    return tuned.eval(), frozen


class _Loop:
    """What a step draws and learns from."""

    def __init__(
        self,
        reader: Reader,
        frozen: Callable[[], AbstractContextManager[Any]],
        log_reward: Reward,
        prompts: list[list[int]],
        config: SamplerConfig,
    ) -> None:
        self._reader, self._frozen, self._log_reward = reader, frozen, log_reward
        self._prompts, self._config = prompts, config
        self._generator = torch.Generator().manual_seed(config.seed)
        self._replay = [Replay(config.kept) for _ in prompts]
        self._best = [-torch.inf for _ in prompts]
        self._queue: list[int] = []
        self._vain = [0 for _ in prompts]

    def run(self, steps: int, temperature: float) -> Iterator[float]:
        """Take steps, and yield the loss of each."""
        config, weights = self._config, [p for p in self._reader.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, config.lr, weight_decay=0.0)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * config.rate(step, steps)
            loss = self.backward(config.reward_temperature(step, temperature))
            torch.nn.utils.clip_grad_norm_(weights, config.clip)
            optimizer.step()
            optimizer.zero_grad()
            yield loss
        if max(self._best) == -torch.inf:
            raise _nothing(f"all samples of {steps} steps")

    def backward(self, temperature: float) -> float:
        """Add the gradient of one step, and return its mean loss."""
        total = 0.0
        for _ in range(self._config.prompts):
            if not self._queue:
                self._queue = torch.randperm(len(self._prompts), generator=self._generator).tolist()
            place = self._queue.pop()
            sequences = self._drawn(place)
            reward = self._rewards(sequences)
            if reward is None:
                continue
            log_q, log_stop = self._reader.log_probabilities(self._prompts[place], sequences)
            target, lengths = reward.to(log_q) / temperature, sequences.lengths.to(log_q.device)
            loss = subtb_loss(log_q, log_stop, target, lengths, self._config.decay) / self._config.prompts
            loss.backward()
            total += float(loss.detach())
        return total

    def _drawn(self, place: int) -> Sequences:
        """Return a batch: of the replay, of a random temperature, or of the sampler as it is."""
        config, generator = self._config, self._generator
        kind = float(torch.rand((), generator=generator))
        if kind < config.replay and len(self._replay[place]):
            rows = self._replay[place].draw(config.batch_size, generator)
            return as_sequences(rows, self._reader.stop, place)
        low, high = config.temperatures
        tempered = kind < config.replay + config.tempered
        heat = low + (high - low) * float(torch.rand((), generator=generator)) if tempered else 1.0
        return self._reader.draw(self._prompts[place], config.batch_size, generator, heat, place)

    def _rewards(self, sequences: Sequences) -> Tensor | None:
        """Return log R of all prefixes, those of minus infinity lifted; None where there is no other yet."""
        with torch.no_grad(), self._frozen():
            reward = self._log_reward(sequences)
        reward = self._checked(reward, sequences)
        place = sequences.prompt
        inside = torch.arange(reward.shape[1]) <= sequences.lengths[:, None]
        self._best[place] = max(self._best[place], float(reward.masked_fill(~inside, -torch.inf).max()))
        if self._best[place] == -torch.inf:
            self._vain[place] += 1
            if self._vain[place] >= PATIENCE:
                raise _nothing(f"all samples of the first {PATIENCE} batches of prompt {place}")
            return None
        reward = torch.where(reward == -torch.inf, self._best[place] - DEPTH, reward)
        ends = reward.gather(1, sequences.lengths[:, None])[:, 0]
        for row, value in zip(sequences.lists(), ends.tolist(), strict=True):
            self._replay[place].add(row, value)
        return torch.where(inside, reward, 0)

    @staticmethod
    def _checked(reward: Tensor, sequences: Sequences) -> Tensor:
        """Return rewards as float32 on the CPU.

        Raises:
            ValueError: another shape, or numbers that are none.
        """
        wanted = (sequences.tokens.shape[0], sequences.tokens.shape[1] + 1)
        if not isinstance(reward, Tensor) or tuple(reward.shape) != wanted:
            came = tuple(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
            raise ValueError(
                f"log_reward returns one number for each prefix, the empty one included: a tensor {wanted}; got {came}"
            )
        reward = reward.detach().float().cpu()
        inside = torch.arange(wanted[1]) <= sequences.lengths[:, None]
        if bool((inside & (reward.isnan() | (reward == torch.inf))).any()):
            raise ValueError(
                "log_reward returned a number that is NaN or plus infinity: check it on sample(...)"
            )
        return reward


def _nothing(where: str) -> ValueError:
    """Return the error of rewards that say nothing."""
    return ValueError(
        f"log_reward was minus infinity for {where}, so there is nothing to learn from: give bad sequences a low "
        "number such as -20, or a prompt whose samples are better"
    )


def _bar(progress: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not (progress and console.is_terminal),
    )
