"""Figures as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

NOTHING = "-"


def duration(seconds: float | None) -> str:
    """Seconds as ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 04 min`` or ``3 d 07 h``."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def clock(seconds: float | None) -> str:
    """Seconds as ``1:05`` or ``2:04:09``."""
    if seconds is None:
        return "-:--"
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def share(value: float | None) -> str:
    """A share of one as ``40 %``."""
    return NOTHING if value is None else f"{100 * value:.0f} %"


def size(count: float | None) -> str:
    """Bytes in decimal units: ``271 MB``."""
    if count is None:
        return NOTHING
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def figure(value: object) -> str:
    """A number with four significant digits; anything else as it is."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}"


def moment(at: str) -> datetime:
    """The time behind RFC 3339."""
    return datetime.fromisoformat(at)


def local(at: str | None, *, date: bool = True) -> str:
    """RFC 3339 as the local ``2026-11-22 14:03:09``, or the time of day alone."""
    if at is None:
        return NOTHING
    return moment(at).astimezone().strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")


def unix_local(seconds: float) -> str:
    """Unix seconds as the local ``2026-11-22 14:03:09``."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(at: str | None, now: datetime) -> str:
    """How long ago ``at`` was: ``5 min``, ``3 h``, ``2 d``."""
    if at is None:
        return NOTHING
    seconds = max(0.0, (now - moment(at)).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
