"""What counts as a failure: a crash without a helpful sentence, a wrong value, a hang, a warning of a dependency."""

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..case_tools import fault_of

SECONDS = 5.0
"""What takes longer hangs."""

REFUSED: Any = object()
"""What was refused with a helpful sentence."""

FAILED: Any = object()
"""What ended otherwise."""


class Wrong(AssertionError):
    """An input whose answer is wrong, in one sentence."""


class Hang(BaseException):
    """An input that takes too long."""


@contextlib.contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raise Hang after some seconds, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Hang(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, str]:
    """Return what a call returns, or REFUSED, or FAILED, and what is wrong with how it ended, or nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with limited():
                value: Any = function(*arguments, **options)
        except (ValueError, TypeError) as error:
            if isinstance(error, np.linalg.LinAlgError | UnicodeError):
                return FAILED, f"{type(error).__name__}: {error}"
            if fault := fault_of(str(error)):
                return FAILED, f"{type(error).__name__}, {fault}: {str(error)[:300]!r}"
            value = REFUSED
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return FAILED, f"{type(error).__name__}: {str(error)[:300]!r}"
    for warning in caught:
        if issubclass(warning.category, ResourceWarning | DeprecationWarning | PendingDeprecationWarning):
            continue  # nobody sees these
        is_foreign = "site-packages" in warning.filename
        if is_foreign or not issubclass(warning.category, UserWarning) or fault_of(str(warning.message)):
            return FAILED, f"a warning, {warning.category.__name__}: {str(warning.message)[:200]!r}"
    return value, ""


def check_answers(model: Any, X: Any, what: str = "") -> np.ndarray:
    """Return finite and normalised answers to rows.

    Raises:
        Wrong: they are not.
    """
    p = model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)
    if not np.isfinite(p).all():
        raise Wrong(f"{what} answers are not finite: {p.ravel()[:4]}")
    if p.ndim == 2 and ((p < 0).any() or np.abs(p.sum(1) - 1).max(initial=0) > 1e-9):
        raise Wrong(f"{what} probabilities do not sum to 1: {p[0]}")
    return p
