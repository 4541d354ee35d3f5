"""Interruption of long work: a thread that computes stops at its next operation of PyTorch once its work is not wanted.

A thread cannot be ended from outside, and a large picture keeps a network busy for seconds. Work inside `interruptible`
asks a function wherever it calls `check_interruption` and, if it is long, before every operation of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch.overrides import TorchFunctionMode

Stop = Callable[[], str | None]
"""Function that returns the reason for which work is to stop, and None as long as it may go on."""

_STOP: ContextVar[Stop | None] = ContextVar("_STOP", default=None)


class InterruptionError(BaseException):
    """Work that was stopped because nobody wants its result; the text is the reason.

    It is no `Exception`, as `asyncio.CancelledError` is none: code that goes on after errors does not go on after it.
    """


def check_interruption() -> None:
    """Raise `InterruptionError` if the work of this thread is to stop; for long loops without PyTorch."""
    stop = _STOP.get()
    reason = None if stop is None else stop()
    if reason is not None:
        raise InterruptionError(reason)


class _Checks(TorchFunctionMode):
    """Mode of the current thread that checks before every operation of PyTorch."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Check, then call the operation; called by PyTorch."""
        del types
        check_interruption()
        return func(*args, **(kwargs or {}))


@contextmanager
def interruptible(stop: Stop, *, operations: bool = True) -> Iterator[None]:
    """Let the work of this thread within the context be stopped.

    Args:
        stop: function that returns the reason to stop, or None. It is called often, from the thread that works.
        operations: whether it is asked before every operation of PyTorch, each of which then takes some 10 microseconds
            longer; otherwise `check_interruption` alone asks it.

    Raises:
        InterruptionError: `stop` returned a reason.
    """
    token = _STOP.set(stop)
    try:
        with _Checks() if operations else nullcontext():
            yield
    finally:
        _STOP.reset(token)
