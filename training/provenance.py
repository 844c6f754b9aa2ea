"""Which code made an artefact."""

from acouslic.version import revision

UNKNOWN = "unknown (no git repository)"


def code_version() -> str:
    """The commit of this working tree, with `+changes` where files differ from it."""
    return revision() or UNKNOWN
