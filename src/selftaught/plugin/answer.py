"""The answer to "why does it not get on?"."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from selftaught.plugin.objects import Event

WIDTH = 12
MAX_WORDS = 400
FIND_OPERATOR = "see whether the operator runs: kubectl get pods -A | grep selftaught-operator"


@dataclass(frozen=True)
class Answer:
    """What a run waits for, in a few plain lines."""

    waits_for: str
    """Such as `a node that fits its pods`."""
    since: datetime | None = None
    because: tuple[str, ...] = ()
    """The cluster's own words."""
    next_step: str = ""


def lines_of(answer: Answer, now: datetime) -> tuple[str, ...]:
    """An answer as text."""
    lines = [f"{'waits for':{WIDTH}}{answer.waits_for}"]
    if answer.since is not None:
        lines.append(f"{'since':{WIDTH}}{moment(answer.since)} ({span(now - answer.since)} ago)")
    for number, reason in enumerate(dict.fromkeys(filter(None, answer.because))):
        lines.append(f"{'because' if number == 0 else '':{WIDTH}}{reason}")
    if answer.next_step:
        lines.append(f"{'next step':{WIDTH}}{answer.next_step}")
    return tuple(lines)


def moment(time: datetime) -> str:
    """`2026-01-31 12:00:00 UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(length: timedelta) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    seconds = max(0, int(length.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def event_words(events: Sequence[Event]) -> tuple[str, ...]:
    """The latest warning of each kind, at most three."""
    by_reason = {event.reason: event for event in reversed(events)}
    latest = [event for event in events if by_reason[event.reason] is event]
    return tuple(words(event.reason, event.message) for event in latest[:3])


def words(reason: str, message: str) -> str:
    """`Reason: message`, on one line, cut where it is endless."""
    text = " ".join(f"{reason}: {message}".split()) if reason and message else " ".join((reason or message).split())
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"
