"""Files: checkpoints, tables in files, and what is known of their columns."""
