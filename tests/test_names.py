"""The nearest known name is suggested; where none is near, all are listed."""

import pytest

from gradatim.names import hint, nearest

KNOWN = ("sgd", "momentum", "adam")


@pytest.mark.parametrize(
    ("name", "cutoff", "wanted"),
    [
        ("adamm", 0.6, "adam"),
        ("adam", 1.0, "adam"),
        ("mom", 0.6, None),
        ("mom", 0.4, "momentum"),
        ("", 0.6, None),
    ],
)
def test_the_nearest_name_is_at_least_as_like_as_the_cutoff(name, cutoff, wanted):
    assert nearest(name, iter(KNOWN), cutoff) == wanted


def test_a_hint_asks_or_lists():
    assert hint("Adam", dict.fromkeys(KNOWN)) == "did you mean 'adam'?"
    assert hint("Adam", KNOWN, quote=str) == "did you mean adam?"
    assert hint("ridge", iter(KNOWN)) == "known are sgd, momentum, adam"
    assert hint("ridge", sorted(KNOWN), "it has") == "it has adam, momentum, sgd"
