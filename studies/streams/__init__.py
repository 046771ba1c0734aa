"""Streams: the estimators in one strict pass over streams whose concept or columns change, against river's learners."""
