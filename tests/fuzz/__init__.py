"""Random and hostile inputs: `python -m tests.fuzz --cases 1000000 --workers 2`."""
