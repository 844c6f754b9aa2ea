"""Which code this is: its version, and the git revision where that is known."""

import os
import subprocess
from pathlib import Path

from acouslic import __version__

# An image holds its revision there: see Dockerfile.
REVISION_VARIABLE = "ACOUSLIC_REVISION"
_CHECKOUT = Path(__file__).resolve().parents[1]


def version_line() -> str:
    """Version and revision on one line, for `--version`."""
    return f"acouslic {__version__} (revision {revision() or 'unknown'})"


def revision() -> str | None:
    """The git commit of this code, `+changes` behind it where files differ from it.

    Returns:
        An image's own commit, a checkout's, or None where neither is known, as in a wheel.
    """
    known = os.environ.get(REVISION_VARIABLE)
    if known:
        return known
    # A wheel may lie inside somebody else's repository, whose commit says nothing of this code.
    if not (_CHECKOUT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "--verify", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def _git(*arguments: str) -> str:
    """What a git command prints about the checkout."""
    command = ["git", "-C", str(_CHECKOUT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
