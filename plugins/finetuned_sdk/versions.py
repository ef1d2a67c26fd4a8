"""Whether two releases of the SDK can work together."""

from __future__ import annotations


def problem(wanted: str | None, present: str) -> str | None:
    """Why a worker with version ``present`` cannot work for a daemon with version ``wanted``; ``None`` if it can.

    Versions are ``major.minor``: a major one breaks what was, a minor one adds to it. ``None``: an older daemon, which
    does not say.
    """
    if wanted is None:
        return None
    (major, minor), (own_major, own_minor) = (map(int, each.split(".")) for each in (wanted, present))
    if major == own_major and minor <= own_minor:
        return None
    return (
        f"This environment has version {present} of finetuned's SDK and the daemon has {wanted}; install the daemon's"
        " release into it (for an engine: `finetune engines install NAME` again)."
    )
