"""State of a sender on the live page, and the words for it: whether it sends, is silent or gone, and is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

ACTIVE_S = 3.0
"""Number of seconds after its latest frame from which a sender counts as silent."""

Standing = Literal["live", "unanswered", "silent", "new", "gone"]
"""Standing of a sender: its frames are answered (`live`), none of its latest frames is answered (`unanswered`), it
sends no frames at the moment (`silent`), it has sent no frame yet (`new`), or its stream has ended (`gone`)."""


def standing_of(*, connected: bool, quiet_s: float | None, recent: int, answered: int) -> Standing:
    """Return the standing of a sender.

    Args:
        connected: whether its stream is open; over UDP always true.
        quiet_s: number of seconds since its latest frame; None if there is none.
        recent: number of its frames in the latest window of time, see `board.WINDOW_S`.
        answered: number of these frames that were answered.
    """
    if not connected:
        return "gone"
    if quiet_s is None:
        return "new"
    if quiet_s >= ACTIVE_S:
        return "silent"
    return "unanswered" if recent and not answered else "live"


def describe(standing: Standing, quiet_s: float | None) -> tuple[str, str]:
    """Return the words for a sender's standing: a short form for the table of senders, and a whole phrase."""
    since = "no frame yet" if quiet_s is None else f"last frame {_age(quiet_s)} ago"
    match standing:
        case "live":
            return "live", f"live, {since}"
        case "unanswered":
            return "not answered", f"none of its frames is answered, {since}"
        case "silent":
            return f"silent {_age(quiet_s or 0)}", f"silent, {since}"
        case "new":
            return "no frame yet", "connected, no frame yet"
        case "gone":
            return "gone", f"gone, {since}"


def headline(standings: Sequence[Standing]) -> tuple[str, str]:
    """Return the state of the whole receiver, `live`, `bad` or `waiting`, and the words for it."""
    counts = Counter(standings)
    live, unanswered, gone = counts["live"], counts["unanswered"], counts["gone"]
    idle = counts["silent"] + counts["new"]
    rest = [f"{unanswered} not answered"] * bool(unanswered and live) + [f"{idle} silent"] * bool(idle and live)
    rest += [f"{gone} gone"] * bool(gone)
    if live:
        state, text = "bad" if unanswered else "live", f"live, {_senders(live)}"
    elif unanswered:
        state, text = "bad", f"{_senders(unanswered + idle)}, no frame is answered"
    elif idle:
        state, text = "waiting", f"{_senders(idle)} connected, no frames at the moment"
    else:
        state, text = "waiting", "waiting for senders"
    return state, ", ".join([text, *rest])


def why_no_picture(name: str, received: int, answered: int, dropped: Mapping[str, int]) -> str:
    """Return the sentence that is shown in place of the pictures of a sender."""
    if not received:
        return f"{name} is connected; no frame of it has come yet."
    if not answered:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        return f"No frame of {name} was decoded: {reasons}."
    return f"No picture of {name} is kept. Pictures are kept while a page is open; the next frame will be shown."


def _senders(count: int) -> str:
    return f"{count} sender{'s' if count > 1 else ''}"


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
