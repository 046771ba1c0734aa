"""Frozen models made to answer another task: what is added to their input, and how their output is read."""
