"""Meta-training: schemes, the loop around them, checkpoints, and the engine below."""
