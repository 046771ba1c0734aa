"""Penalties on a loss, on predictions or on weights, for any training loop."""
