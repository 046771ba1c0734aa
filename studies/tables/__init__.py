"""Study `tables`: see `run.py`."""
