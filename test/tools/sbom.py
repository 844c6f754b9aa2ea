"""Write a software bill of materials (CycloneDX 1.5) of the machine or image that it runs in.

Standard library only, since it runs inside the image.
"""

import argparse
import json
import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

DPKG_STATUS = Path("/var/lib/dpkg/status")


def python_packages() -> Iterator[dict[str, str]]:
    """Every Python distribution on the path; of two of one name the one that is imported."""
    known = set()
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in known:
            known.add(name)
            yield component(name, distribution.version, f"pkg:pypi/{name}@{distribution.version}")


def system_packages(status: Path = DPKG_STATUS) -> Iterator[dict[str, str]]:
    """Every installed Debian or Ubuntu package."""
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][A-Za-z-]*): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            yield component(name, version, f"pkg:deb/debian/{name}@{version}")


def component(name: str, version: str, purl: str) -> dict[str, str]:
    """One entry of the bill."""
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def bill(name: str, version: str, components: Iterator[dict[str, str]]) -> dict[str, Any]:
    """The whole bill of a thing with a name."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version}},
        "components": sorted(components, key=lambda entry: entry["purl"]),
    }


def main() -> None:
    """Write the two bills into a folder: all of the image, and its Python environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    options = parser.parse_args()

    def everything() -> Iterator[dict[str, str]]:
        yield from python_packages()
        yield from system_packages()

    for file, components in (
        ("sbom-image.cdx.json", everything()),
        ("sbom-environment.cdx.json", python_packages()),
    ):
        text = json.dumps(bill(options.name, options.version, components), indent=1)
        (options.folder / file).write_text(text + "\n")


if __name__ == "__main__":
    main()
