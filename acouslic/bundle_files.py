"""A bundle's files on disk: each is read once, and what is hashed is what is used.

A bundle is the files that its manifest lists, and nothing else. All of them are plain files.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Len, Predicate
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load

from acouslic import files, schema
from acouslic.errors import BundleError

MANIFEST, CONFIG = "manifest.json", "config.json"
PROVENANCE, CARD = "provenance.json", "MODEL_CARD.md"
TRUNK = "trunk.safetensors"
SWEEP_HEAD = "sweep_head.safetensors"
# An ensemble of all folds of several seeds; time allows for fewer.
MOST_MEMBERS = 64
# 48 bits: no two of a million bundles share them, but for one chance in 500.
ID_DIGITS = 12
# A hundred times what the demo bundle's texts take.
TEXT_LIMIT_BYTES = 2_000_000
# The platform takes no more, all files together.
WEIGHTS_LIMIT_BYTES = 10_000_000_000
# A file system of its own brings lost+found.
STRANGERS_ALLOWED = frozenset({*files.KEPT_NAMES, "lost+found"})
# As much of a wrong text is told as fits a line beside the rest.
_SHOWN = 100
COPY_AGAIN = "copy the bundle again, whole; never edit its files"
State = dict[str, torch.Tensor]


def member_file(k: int) -> str:
    """The name of the file with member k's own weights."""
    return f"member_{k}.safetensors"


def file_names(members: int, *, sweep_head: bool) -> set[str]:
    """The files of a bundle, but for the manifest that lists them."""
    head = {SWEEP_HEAD} if sweep_head else set()
    return {CONFIG, PROVENANCE, CARD, TRUNK, *map(member_file, range(members)), *head}


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds."""

    name: Annotated[str, Len(1, 100), Predicate(str.isprintable)]
    """The bundle's name, the first half of its id."""
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """The SHA-256 of each other file."""


class BundleFolder:
    """A bundle's folder, whose manifest is read and whose other files can be."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest.

        Raises:
            BundleError: it is missing or of another form.
        """
        self.path = folder
        data = self._bytes(MANIFEST, TEXT_LIMIT_BYTES)
        try:
            self.manifest = schema.validated(Manifest, schema.parse_object(data))
        except ValueError as error:
            raise self._refusal(MANIFEST, "a manifest of a bundle", str(error)) from error
        self.id = f"{self.manifest.name}-{sha256(data).hexdigest()[:ID_DIGITS]}"

    def require_exactly(self, members: int, *, sweep_head: bool) -> None:
        """Make sure that a bundle's files, see `file_names`, are listed and there, and no others.

        Raises:
            BundleError: they are not.
        """
        expected = file_names(members, sweep_head=sweep_head)
        for name in sorted(expected - self.manifest.sha256.keys()):
            raise self._refusal(MANIFEST, f"{name} listed", "no such line")
        for name in sorted(self.manifest.sha256.keys() - expected):
            found = f"{name[:_SHOWN]!r}"
            head = " and a sweep head" if sweep_head else ""
            raise self._refusal(MANIFEST, f"the files of {members} member(s){head} listed", found)
        present = {path.name for path in self.path.iterdir()} - STRANGERS_ALLOWED
        for name in sorted(expected - present):
            raise BundleError(
                expected=f"{name} in {self.path}", found="no such file", advice=COPY_AGAIN
            )
        for name in sorted(present - expected - {MANIFEST}):
            raise BundleError(
                expected=f"no files in {self.path} but those that {MANIFEST} lists",
                found=f"{name!r}",
                advice="move it away",
            )

    def read(self, name: str) -> bytes:
        """A file's bytes, which are those that the manifest means.

        Raises:
            BundleError: they are not, or cannot be read.
        """
        is_text = name in (CONFIG, PROVENANCE, CARD)
        data = self._bytes(name, TEXT_LIMIT_BYTES if is_text else WEIGHTS_LIMIT_BYTES)
        expected, digest = self.manifest.sha256.get(name, ""), sha256(data).hexdigest()
        if not expected:
            raise self._refusal(MANIFEST, f"{name} listed", "no such line")
        if digest != expected:
            raise BundleError(
                expected=f"{self.path / name} with sha256 {expected[:ID_DIGITS]}...",
                found=f"{digest[:ID_DIGITS]}...",
                advice=COPY_AGAIN,
            )
        return data

    def read_object(self, name: str) -> dict[str, Any]:
        """The JSON object in a file.

        Raises:
            BundleError: see `read`, or it holds no such thing.
        """
        try:
            return schema.parse_object(self.read(name))
        except ValueError as error:
            raise self._refusal(name, "an object in strict JSON", str(error)) from error

    def read_tensors(self, name: str) -> State:
        """A file's tensors, those of floating point as float32.

        Raises:
            BundleError: see `read`, or the file holds no tensors, or a number that is not finite.
        """
        try:
            tensors = load(self.read(name))
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            found = " ".join(str(error).split())[:_SHOWN]
            raise self._refusal(name, "safetensors", f"others ({found})") from error
        for key, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[key] = tensor.float()
        require_finite(tensors, str(self.path / name))
        return tensors

    def _bytes(self, name: str, limit: int) -> bytes:
        try:
            return files.read_regular(self.path / name, limit, follow=False)
        except (OSError, ValueError) as error:
            raise BundleError(
                expected=f"a file {name} in {self.path}",
                found=f"none that can be read ({error})",
                advice="give a folder that `python -m training pack` or `demo` wrote",
            ) from error

    def _refusal(self, name: str, expected: str, found: str) -> BundleError:
        advice = "use a bundle as `python -m training pack` writes it, and code of its version"
        return BundleError(expected=f"{expected} in {self.path / name}", found=found, advice=advice)


def require_finite(tensors: State, place: str) -> None:
    """Make sure that all numbers of tensors are finite.

    Raises:
        BundleError: one is not; it would make every answer void.
    """
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BundleError(
                expected=f"finite numbers in {place}",
                found=f"{tensor[~tensor.isfinite()][0].item()} in {key}",
                advice="train again, or, where float16 was too narrow (above 65,504), pack with "
                "--dtype fp32",
            )
