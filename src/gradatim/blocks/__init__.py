"""Blocks of features and tasks: which features serve which tasks, found on the graph between them."""
