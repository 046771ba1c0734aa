"""Study `images`: see `run.py`."""
