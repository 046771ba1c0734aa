"""A learner, a family and a run that take a second; as a script, the run: `python tiny_run.py OUT [--resume]`."""

import sys
from pathlib import Path

import torch

from gradatim.families.simulators import LinearRegression
from gradatim.learner import Learner
from gradatim.predictors import Network, SquaredError
from gradatim.refiners import TransformerConfig, TransformerRefiner
from gradatim.signal import BOTH, Signal
from gradatim.training.schemes import Greedy, Scheme
from gradatim.training.train import TrainConfig, TrainingResult, train

DIM = 3
FAMILY = LinearRegression(dim=DIM, support_rows=12, query_rows=5, min_support_rows=8)
SCHEME = Greedy(batch_size=4, horizon=3, random_horizon=True)
CONFIG = TrainConfig(iterations=60, tasks=4, warmup=5, log_every=7, checkpoint_every=1, threads=1)


def make_learner(signal: Signal = BOTH, width: int = 8, **config) -> Learner:
    """Return the same small learner each time, moved off its start, where many gradients are zero."""
    torch.manual_seed(0)
    predictor = Network(DIM, SquaredError(), bias=False)
    rows = TransformerConfig(width=width, layers=1, heads=1, **config)
    refiner = TransformerRefiner(rows, signal, predictor.initial(), predictor.layout.shapes, DIM, 1, None, 1)
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Learner(predictor, refiner, signal)


def run(out: Path, config: TrainConfig = CONFIG, scheme: Scheme = SCHEME, **options) -> TrainingResult:
    return train(make_learner(), FAMILY, scheme, config, out, progress=False, **options)


if __name__ == "__main__":
    run(Path(sys.argv[1]), resume="--resume" in sys.argv)
