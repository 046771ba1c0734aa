"""Golden numbers: losses of three tiny learners before and after three steps of greedy meta-training, in float64.

`python tests/golden/regenerate.py` writes `learners.json` anew; look at what changed in it, and say why in the commit.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gradatim import regimes
from gradatim.families import LinearClassification
from gradatim.learner import Learner
from gradatim.refiners import TransformerConfig
from gradatim.training.config import TrainConfig
from gradatim.training.schemes import Greedy
from gradatim.training.train import train

FILE = Path(__file__).with_name("learners.json")
RELATIVE = 1e-9
WHY = (
    "relative; sums in another order (another BLAS, another number of threads) differ by about 1e-12 here, float32 or "
    "a changed formula by more than 1e-8"
)
FAMILY = LinearClassification(3, 3, support_rows=12, query_rows=8, min_support_rows=6)
CONFIG = TransformerConfig(width=16, layers=2, heads=2)
TRAIN = TrainConfig(
    iterations=3, tasks=4, lr=1e-2, warmup=1, threads=1, precision="64-true", accelerator="cpu"
)
LEARNERS = {
    "parametric-both": lambda: regimes.parametric(FAMILY, config=CONFIG),
    "explicit-both": lambda: regimes.explicit(FAMILY, config=CONFIG, tokens=3, token_width=8),
    "implicit-logits": lambda: regimes.implicit(FAMILY, config=CONFIG),
}


@contextmanager
def float64() -> Iterator[None]:
    """Draw in float64: the float32 normals of torch differ between processors in the last bits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def losses(learner: Learner) -> list[float]:
    """Return the mean loss on fixed tasks before any mini-batch and after each of three."""
    task = FAMILY.sample(5, torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = learner.states(task.support.split(4), task.query)
        return [learner.loss(task.query, state).mean().item() for state in states]


def numbers() -> dict[str, dict[str, list[float]]]:
    """Return the losses of every learner as it starts and as it is after meta-training."""
    found = {}
    with float64(), torch.random.fork_rng(devices=[]):
        for name, make in LEARNERS.items():
            torch.manual_seed(0)
            learner = make()
            found[name] = {"start": losses(learner)}
            train(learner, FAMILY, Greedy(batch_size=4, horizon=3, prefixes=2), TRAIN, progress=False)
            found[name]["trained"] = losses(learner)
    return found


if __name__ == "__main__":
    content = {"tolerance": RELATIVE, "why": WHY, "torch": torch.__version__, "losses": numbers()}
    FILE.write_text(json.dumps(content, indent=2) + "\n")
    print(f"wrote {FILE}")
