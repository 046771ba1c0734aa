"""`make study NAME=systems`: tasks that follow one another, tasks that help one another."""
