"""Which code made an artefact."""

import subprocess
from pathlib import Path

UNKNOWN = "unknown (no git repository)"


def code_version() -> str:
    """The commit of this working tree, with `+changes` where files differ from it."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit = _git(root, "rev-parse", "--verify", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return commit + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    found = subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()
