"""Whether states can be trusted: damage, kills, cuts, order, outliers, and whose rows a file holds."""
