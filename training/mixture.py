"""Phantoms whose frames are mixed into training on other cases; none is ever held out."""

from typing import Any

from acouslic.errors import InputError
from dataset.cache import Cache, open_cache
from training.batches import Mixture
from training.options import MixingConfig

# Where options.json and a bundle's provenance tell of them.
MIXED_IN = "mixed_in"


def mixture_of(cache: Cache, mixing: MixingConfig) -> Mixture | None:
    """The phantoms to mix in; None where none are asked for.

    Args:
        cache: what is trained and judged on, all folds together.
        mixing: which phantoms, and how many of their frames.

    Raises:
        InputError: an option is missing or beyond its limits, or the phantoms are no phantoms, of
            another size, or among the cases of `cache`.
    """
    if mixing.phantoms is None and mixing.share is None:
        return None
    if mixing.phantoms is None or mixing.share is None:
        given, missing = ("--phantoms", "--share")[:: 1 if mixing.share is None else -1]
        raise InputError(
            expected="--phantoms and --share together, or neither",
            found=f"{given} alone",
            advice=f"give {missing} too, or leave both away",
        )
    if not 0 < mixing.share < 1:
        raise InputError(
            expected="--share above 0 and below 1",
            found=f"{mixing.share:g}",
            advice="give a part of the whole, such as 0.2",
        )
    phantoms = open_cache(mixing.phantoms)
    _require_apart(phantoms, cache)
    return Mixture(phantoms, mixing.share)


def _require_apart(phantoms: Cache, cache: Cache) -> None:
    """Make sure that phantoms are simulated, fit a cache, and are none of its cases."""
    if not phantoms.simulated:
        raise InputError(
            expected="a cache of phantoms for --phantoms",
            found=f"real cases in {phantoms.folder}",
            advice="give the real ones as the training cache, so that each is held out once",
        )
    phantoms.require_size(cache.size, f"as those of {cache.folder}")
    names, others = ({case.facts.uuid for case in one.cases} for one in (phantoms, cache))
    if not names or names & others:
        raise InputError(
            expected=f"phantoms that are no cases of {cache.folder}, as those are held out in turn",
            found=f"{min(names & others)} in both" if names else f"no case in {phantoms.folder}",
            advice="make phantoms with another --seed",
        )


def mixture_facts(mixture: Mixture) -> dict[str, Any]:
    """What a run tells of what is mixed in, as plain JSON."""
    phantoms = [case.facts.uuid for case in mixture.phantoms.cases]
    return {"share": mixture.share, "phantoms": phantoms}
