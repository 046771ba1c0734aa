"""Learning from other tasks: shared families, learnt priors."""
