"""What learners of the one-pass studies are called on pages."""

from __future__ import annotations

from gradatim.comparison.palette import words_of

WORDS = {
    "gradatim-adaptive": "gradatim, adaptive memory",
    "refit-lightgbm": "LightGBM, refitted at doublings",
    "refit-forest": "random forest, refitted at doublings",
    "refit-logistic": "logistic regression, refitted at doublings",
    "refit-ridge": "ridge regression, refitted at doublings",
}


def words(learner: str) -> str:
    """Return a learner's name in words.

    Example:
        >>> words("refit-lightgbm")
        'LightGBM, refitted at doublings'
    """
    return WORDS.get(learner) or words_of(learner)
