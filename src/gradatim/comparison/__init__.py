"""Methods side by side: the same tasks, the same mini-batches, seeds and intervals; pages and pictures of them."""
