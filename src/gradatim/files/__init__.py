"""Files: checkpoints, tables in files and streams of many formats, and the schema of their columns."""
