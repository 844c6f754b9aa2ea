"""Folds: grouped by subject, stratified by whether a case has an optimal frame."""

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from acouslic.errors import InputError
from dataset.cache import Cache


def split(cache: Cache, *, fold: int, folds: int, seed: int) -> tuple[Cache, Cache]:
    """Split a cache for one fold; the split depends on the cases' names, not on their order.

    Args:
        cache: all cases.
        fold: which one is held out, from 0.
        folds: number of all folds.
        seed: of the split; the same for all folds.

    Returns:
        The cases to train on, and those that are held out.

    Raises:
        InputError: there is no such fold, or there are fewer subjects than folds.
    """
    held_out = assign_folds(cache, folds=folds, seed=seed)
    if fold not in range(folds):
        raise InputError(
            expected=f"a fold from 0 to {folds - 1}",
            found=str(fold),
            advice="folds are counted from 0",
        )
    inside = [uuid for uuid, number in held_out.items() if number == fold]
    outside = [uuid for uuid, number in held_out.items() if number != fold]
    return cache.select(outside), cache.select(inside)


def assign_folds(cache: Cache, *, folds: int, seed: int) -> dict[str, int]:
    """The fold that holds out each case, by uuid.

    Args:
        cache: all cases.
        folds: number of folds.
        seed: of the split.

    Raises:
        InputError: there are fewer subjects than folds, or there is only one fold.
    """
    cases = sorted(cache.cases, key=lambda case: case.facts.uuid)
    subjects = [case.facts.subject for case in cases]
    if not 2 <= folds <= len(set(subjects)):
        raise InputError(
            expected=f"from 2 to {len(set(subjects))} folds, as there are that many subjects",
            found=str(folds),
            advice="ask for fewer folds",
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    strata = np.array([case.has_optimal for case in cases])
    splits = splitter.split(np.zeros(len(cases)), strata, subjects)
    return {cases[k].facts.uuid: fold for fold, (_, held) in enumerate(splits) for k in held}
