"""Building blocks of networks. None of them knows what a task is.

- `mlp`: a feed-forward network with its own weights.
- `encoders`: networks that map rows to keys.
- `functional`: networks whose weights are an argument, one flat vector per task.
- `attention`: a transformer over a set of tokens.
- `sets`: rows as tokens, and attention masks.
- `columns`: attention over the columns and rows of a table.
- `fixed_features`: features of x that nothing is learnt in.
- `mixture`: predictive distributions of several experts.
"""
