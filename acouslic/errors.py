"""Errors the user can fix: one line says what was expected, what was found and what to do."""

import errno
from functools import partial

# How the system, torch, CUDA and OpenCV say that there is no memory, whatever the exception's type.
_NO_MEMORY = (
    "bad_alloc",
    "failed to map segment",
    "allocate memory",
    "out of memory",
    "nsufficient memory",
    "can't start new thread",
)
# What a message quotes of another one.
_QUOTED = 300


class AcouslicError(Exception):
    """Errors the user can fix. Any other exception is a bug."""

    def __init__(self, *, expected: str, found: str, advice: str) -> None:
        """Make the error's one line.

        Args:
            expected: what should have been there.
            found: what was there instead.
            advice: what the user can do about it.
        """
        super().__init__(_one_line(f"expected {expected}; found {found}; {advice}"))
        self._texts = {"expected": expected, "found": found, "advice": advice}

    def __reduce__(self) -> tuple[object, tuple[()]]:
        """Let processes hand the error to one another: Exception's own way drops keywords."""
        return partial(type(self), **self._texts), ()


def _one_line(text: str) -> str:
    """A text that a terminal and a log show as one line, whatever a file is called."""
    text = text.replace("\n", " ")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class InputError(AcouslicError):
    """The input is not what the challenge gives, or an option asks for what is not there."""


class OddStackError(InputError):
    """The stack can be read, but not measured; with --fail-soft it is answered all the same."""


class OutputError(AcouslicError):
    """The results cannot be written, or would replace what is not ours."""


class BundleError(AcouslicError):
    """The bundle of weights is incomplete, altered or of another architecture."""


def machine_problem(error: Exception) -> str | None:
    """What the user is told when the machine lacks memory, space, a folder or a permission.

    Args:
        error: any error that is not ours.

    Returns:
        One line with the true cause; None where the error is of another kind.
    """
    cause = _one_line(str(error))[:_QUOTED]
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or any(sign in cause for sign in _NO_MEMORY):
        wanted, cause = "memory for the work", f"no more of it ({cause or type(error).__name__})"
        advice = "give the process more memory"
    elif "No usable temporary directory" in cause:
        wanted, advice = "a folder for temporary files", "make /tmp writable, or set TMPDIR"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        wanted, advice = "space on the disk", "free some, or name another --output"
    elif number is not None:
        wanted, advice = "files that can be read and written", "see to that path and its owner"
    else:
        return None
    return f"expected {wanted}; found {cause}; {advice}"
