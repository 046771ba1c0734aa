"""Files: checkpoints, tables in CSV and Parquet files, and the schema of their columns."""
