"""The studies of systems: what is known of each, measured beside the baselines that could win."""
