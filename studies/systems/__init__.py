"""Tasks that follow one another, tasks that help one another: systems of continual and multi-task learning."""
