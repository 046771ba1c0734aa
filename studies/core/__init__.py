"""Study `core`: see `run.py`."""
