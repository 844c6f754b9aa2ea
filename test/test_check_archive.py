"""The checks of what is to be uploaded, on small archives of the form that `docker save` writes."""

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_archive
import pytest
import sbom

COMMIT = "0123abcd"


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_archive(
    path: Path,
    *,
    files: dict[str, bytes],
    settings: dict[str, Any],
    architecture: str = "amd64",
    images: int = 1,
    change: Callable[[bytes], bytes] = lambda layer: layer,
) -> str:
    """An image with two layers, and its id."""
    layers = [packed({"etc/passwd": b"root"}), packed(files)]
    config = json.dumps(
        {
            "os": "linux",
            "architecture": architecture,
            "config": settings,
            "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(x).hexdigest()}" for x in layers]},
        }
    ).encode()
    image_id = hashlib.sha256(config).hexdigest()
    names = [f"{number}/layer.tar" for number in range(2)]
    entry = {"Config": f"{image_id}.json", "RepoTags": ["acouslic:latest"], "Layers": names}
    members = dict(zip(names, [layers[0], change(layers[1])], strict=True))
    members |= {f"{image_id}.json": config, "manifest.json": json.dumps([entry] * images).encode()}
    path.write_bytes(gzip.compress(packed(members)))
    return image_id


SETTINGS = {
    "User": "10001",
    "Env": ["PATH=/opt/venv/bin", "ACOUSLIC_REVISION=0123abcd"],
    "Labels": {
        "org.grand-challenge.api-method": "exec",
        "org.opencontainers.image.revision": COMMIT,
    },
}
FILES = {
    "opt/app/inference.py": b"",
    "opt/app/resources/demo/trunk.safetensors": b"",
    "opt/venv/lib/python3.11/site-packages/a/test.npz": b"",
}


def failed(path: Path, image_id: str) -> list[str]:
    """The names of the checks that fail."""
    options = argparse.Namespace(
        image_id=f"sha256:{image_id}", api="exec", commit=COMMIT, bundle_id="demo-1"
    )
    checks = list(check_archive.check_image(path, options))
    assert len(checks) == 11
    return [check.name for check in checks if not check.passed]


def test_a_sound_archive_passes_every_check(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    assert failed(path, write_archive(path, files=FILES, settings=SETTINGS)) == []


def test_an_image_that_is_bound_to_the_bundle_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    settings = SETTINGS | {"Env": ["ACOUSLIC_BUNDLE_ID=demo-1"]}
    assert failed(path, write_archive(path, files=FILES, settings=settings)) == []


def changed(**values: Any) -> dict[str, Any]:
    return {"settings": SETTINGS | values}


def labelled(name: str, value: str) -> dict[str, Any]:
    return changed(Labels=SETTINGS["Labels"] | {name: value})  # type: ignore[operator]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ({"images": 2}, "one image in the archive"),
        ({"architecture": "arm64"}, "architecture"),
        (changed(User=""), "USER that is not root"),
        (changed(User="root"), "USER that is not root"),
        (changed(User="0"), "USER that is not root"),
        (changed(User="0:10001"), "USER that is not root"),
        (changed(User="root:root"), "USER that is not root"),
        (labelled("org.grand-challenge.api-method", "invoke"), "label of the interface"),
        (
            labelled("org.opencontainers.image.revision", f"{COMMIT}+changes"),
            "revision label is this commit, of a clean tree",
        ),
        (changed(Env=["UPLOAD_TOKEN=x"]), "no secrets baked in"),
        (changed(Env=["ACOUSLIC_BUNDLE_ID=demo-2"]), "bundle that the image is bound to"),
        ({"files": FILES | {"root/.netrc": b""}}, "no secrets baked in"),
        ({"files": FILES | {"opt/app/.git/config": b""}}, "no secrets baked in"),
        (
            {"files": FILES | {"opt/ml/model/member_0.safetensors": b""}},
            "no weights baked in but the demo's",
        ),
        ({"files": FILES | {"opt/app/last.ckpt": b""}}, "no weights baked in but the demo's"),
        (
            {"change": lambda layer: layer.replace(b"inference.py", b"inferense.py")},
            "layers have the digests that the image names",
        ),
    ],
)
def test_what_the_platform_or_a_reviewer_would_refuse_fails(
    tmp_path: Path, what: dict[str, Any], name: str
) -> None:
    path = tmp_path / "a.tar.gz"
    arguments: dict[str, Any] = {"files": FILES, "settings": SETTINGS} | what
    image_id = write_archive(path, **arguments)
    assert failed(path, image_id) == [name]


def test_another_image_than_the_one_that_was_built_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    write_archive(path, files=FILES, settings=SETTINGS)
    assert failed(path, "0" * 64) == ["the archive's image is the one that was checked"]


def test_an_archive_that_is_too_large_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar.gz"
    image_id = write_archive(path, files=FILES, settings=SETTINGS)
    monkeypatch.setattr(check_archive, "MOST_BYTES", 100)
    assert failed(path, image_id) == ["compressed size below 10 GB"]


def test_an_archive_that_is_cut_short_cannot_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    image_id = write_archive(path, files=FILES, settings=SETTINGS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EOFError):
        failed(path, image_id)


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (("manifest.json", "config.json", "trunk.safetensors"), True),
        (("model/manifest.json", "model/config.json", "model/trunk.safetensors"), False),
        (("manifest.json",), False),
    ],
)
def test_the_weights_lie_flat_in_their_tarball(
    tmp_path: Path, names: tuple[str, ...], passes: bool
) -> None:
    path = tmp_path / "m.tar.gz"
    path.write_bytes(gzip.compress(packed({f"./{name}": b"" for name in names})))
    layout, bundle = check_archive.check_model(path, "demo-1")
    assert (layout.passed, bundle.passed) == (passes, True)


def test_a_bill_of_materials_names_every_package_once(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    assert [entry["purl"] for entry in sbom.system_packages(status)] == [
        "pkg:deb/debian/bash@5.2-1"
    ]
    bill = sbom.bill("acouslic", COMMIT, sbom.python_packages())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    purls = [entry["purl"] for entry in bill["components"]]
    assert len(purls) == len(set(purls))
    assert any(purl.startswith("pkg:pypi/torch@2.9.1") for purl in purls)
