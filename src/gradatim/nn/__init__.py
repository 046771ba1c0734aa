"""Building blocks of networks: nothing here knows what a task is."""
