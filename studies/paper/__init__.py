"""Study `paper`: see `run.py`."""
