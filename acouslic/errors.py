"""Errors a user can meet: one line says what was expected, what was found and what to do."""

from functools import partial


class AcouslicError(Exception):
    """Base of the errors that are the user's to mend; anything else is a defect of ours."""

    def __init__(self, *, expected: str, found: str, advice: str) -> None:
        super().__init__(f"expected {expected}; found {found}; {advice}".replace("\n", " "))
        self._parts = {"expected": expected, "found": found, "advice": advice}

    def __reduce__(self) -> tuple[object, tuple[()]]:
        """Processes hand errors to one another, and an exception's default way drops keywords."""
        return partial(type(self), **self._parts), ()


class InputError(AcouslicError):
    """The input folder or its stack is not what the challenge gives."""


class OutputError(AcouslicError):
    """The results cannot be written."""


class BundleError(AcouslicError):
    """The bundle of weights is incomplete, altered or of another architecture."""
