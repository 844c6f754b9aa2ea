"""Check a saved image and a tarball of weights as the platform will meet them, a line a check.

Each line on stdout is `pass` or `fail`, the check's name and its figure, with tabs between them.
Standard library only, since it runs inside the image too. Every byte of the archive is read, so a
damaged one does not pass.
"""

import argparse
import gzip
import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

# The platform's limit for an uploaded image, compressed.
MOST_BYTES = 10_000_000_000
# What is read at a time; a larger member is a layer.
CHUNK_BYTES = 1 << 20
DEMO = "opt/app/resources/demo/"
WEIGHTS = re.compile(r"\.(pt|pth|ckpt|safetensors|onnx|h5|npz)$")
SECRETS = re.compile(
    r"(^|/)(\.netrc|\.git/|\.aws/|\.docker/config\.json|\.env|\.npmrc|\.pypirc|pip\.conf"
    r"|\.ssh/|id_(rsa|dsa|ecdsa|ed25519)|[^/]+\.key)"
)
# Where an image holds the id of the only bundle that it takes, see Dockerfile.
BOUND = "ACOUSLIC_BUNDLE_ID"
SECRET_VARIABLES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)


class Check(NamedTuple):
    """One line of the result."""

    passed: bool
    """Whether it holds."""
    name: str
    """What was looked at."""
    figure: str
    """What was there."""


class Archive(NamedTuple):
    """What `docker save` wrote."""

    manifest: list[dict[str, Any]]
    """One entry an image."""
    members: dict[str, bytes]
    """The small members: texts."""
    digests: dict[str, str]
    """SHA-256 of every member."""
    files: list[str]
    """Paths of all files in all layers."""
    n_bytes: int
    """Size of all members, before compression."""


class Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin with nothing read."""
        self.file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self.file.read(size)
        self.hash.update(data)
        return data

    def digest(self) -> str:
        """The hash of all bytes; reads the rest."""
        while self.read(CHUNK_BYTES):
            pass
        return self.hash.hexdigest()


def read_archive(path: Path) -> Archive:
    """Read a whole archive once."""
    members: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    files: list[str] = []
    n_bytes = 0
    with gzip.open(path) as inflated, tarfile.open(fileobj=inflated, mode="r|") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            n_bytes += member.size
            if member.size < CHUNK_BYTES and not member.name.endswith(".tar"):
                members[member.name] = stream.read()
                digests[member.name] = hashlib.sha256(members[member.name]).hexdigest()
            else:
                hashed = Hashed(stream)
                files += layer_files(hashed)
                digests[member.name] = hashed.digest()
        # Behind the last member come zeros, and gzip's own checksum.
        while inflated.read(CHUNK_BYTES):
            pass
    return Archive(json.loads(members["manifest.json"]), members, digests, files, n_bytes)


def layer_files(stream: Hashed) -> list[str]:
    """Paths of a layer's files; none where the member is no layer."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as layer:  # type: ignore[call-overload]
            return [member.name for member in layer if not member.isdir()]
    except tarfile.ReadError:
        return []


def check_image(path: Path, options: argparse.Namespace) -> Iterator[Check]:
    """The archive's one image."""
    archive = read_archive(path)
    names = [", ".join(entry.get("RepoTags") or ["no name"]) for entry in archive.manifest]
    yield Check(len(names) == 1, "one image in the archive", f"{len(names)} ({'; '.join(names)})")
    entry = archive.manifest[0]
    text = archive.members[entry["Config"]]
    config = json.loads(text)
    settings = config["config"]
    image_id = hashlib.sha256(text).hexdigest()
    same = image_id == options.image_id.removeprefix("sha256:")
    yield Check(same, "the archive's image is the one that was checked", image_id[:12])
    layers = [f"sha256:{archive.digests[name]}" for name in entry["Layers"]]
    whole = layers == config["rootfs"]["diff_ids"]
    yield Check(whole, "layers have the digests that the image names", f"{len(layers)} layers")
    yield from check_settings(config, settings, options)
    compressed = path.stat().st_size
    figure = f"{archive.n_bytes / 1e9:.2f} GB, compressed {compressed / 1e9:.2f} GB"
    yield Check(compressed < MOST_BYTES, "compressed size below 10 GB", figure)
    weights = [
        name
        for name in archive.files
        if WEIGHTS.search(name) and not name.startswith(DEMO) and "-packages/" not in name
    ]
    yield Check(not weights, "no weights baked in but the demo's", told(weights))
    secrets = [name for name in archive.files if SECRETS.search(name)]
    variables = [text.partition("=")[0] for text in settings.get("Env") or ()]
    secrets += [name for name in variables if SECRET_VARIABLES.search(name)]
    yield Check(not secrets, "no secrets baked in", told(secrets))


def check_settings(
    config: dict[str, Any], settings: dict[str, Any], options: argparse.Namespace
) -> Iterator[Check]:
    """What the image says of itself."""
    labels = settings.get("Labels") or {}
    api = labels.get("org.grand-challenge.api-method", "none")
    yield Check(api == options.api, "label of the interface", api)
    user = settings.get("User", "")
    not_root = bool(user) and user.partition(":")[0] not in ("", "0", "root")
    yield Check(not_root, "USER that is not root", user or "none")
    machine = f"{config['os']}/{config['architecture']}"
    yield Check(machine == "linux/amd64", "architecture", machine)
    revision = labels.get("org.opencontainers.image.revision", "none")
    is_clean = revision == options.commit and "+" not in revision
    yield Check(is_clean, "revision label is this commit, of a clean tree", revision)
    variables = dict(text.partition("=")[::2] for text in settings.get("Env") or ())
    bound = variables.get(BOUND, "")
    fits = bound in ("", options.bundle_id)
    yield Check(fits, "bundle that the image is bound to", bound or "none: it takes any")


def check_model(path: Path, bundle_id: str) -> Iterator[Check]:
    """The weights lie flat in their tarball, as plain files."""
    with tarfile.open(path, "r:gz") as tar:
        members = [member for member in tar if member.name != "."]
    names = [member.name.removeprefix("./") for member in members]
    plain = all(member.isfile() for member in members) and not any("/" in name for name in names)
    is_bundle = plain and {"manifest.json", "config.json", "trunk.safetensors"} <= set(names)
    figure = f"{len(names)} files, {path.stat().st_size / 1e6:.1f} MB"
    yield Check(is_bundle, "layout of the model tarball", figure)
    yield Check(bool(bundle_id), "bundle", bundle_id or "none that the image loads")


def told(names: list[str]) -> str:
    """Some names, for people."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "") or "none"


def main() -> None:
    """Print all checks; exit code 0 says that all were run, not that all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--image-id", required=True)
    parser.add_argument("--api", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--bundle-id", required=True)
    options = parser.parse_args()
    for check in (
        *check_image(options.archive, options),
        *check_model(options.model, options.bundle_id),
    ):
        word = "pass" if check.passed else "fail"
        print(word, check.name, check.figure, sep="\t", flush=True)


if __name__ == "__main__":
    main()
