"""What is learnt from other tasks: one's own tables in groups, against what people use for them."""
