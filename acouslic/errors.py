"""Errors the user can fix: one line says what was expected, what was found and what to do."""

from functools import partial


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
