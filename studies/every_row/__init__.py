"""Study `every_row`: see `run.py`."""
