"""Learning from other tasks: shared families, learnt priors, groups of one's own."""
