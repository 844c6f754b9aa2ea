#!/usr/bin/env bash
# Compiles the exact pins, each with the hashes of its files, from the dependencies in pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./requirements.sh [--upgrade | --check]

  --upgrade   take the newest versions (default: keep each version that still fits)
  --check     compile nothing; exit code 1 where the pins are older than the dependencies

Writes requirements.txt (what ships), requirements-invoke.txt (that, and the web server of the invoke interface) and
requirements-dev.txt (that, and all extras); and requirements-platform.txt, the platform's own launcher and importer.
TEXT
}

# One hash for all that decides which pins are right, so that --check needs no package index.
fingerprint() {
  .venv/bin/python - <<'PYTHON'
import hashlib, json, pathlib, tomllib

table = tomllib.loads(pathlib.Path("pyproject.toml").read_text(encoding="utf-8"))
project = table["project"]
decisive = [project["requires-python"], project["dependencies"], project["optional-dependencies"], table["dependency-groups"]]
print(hashlib.sha256(json.dumps([*decisive, table["tool"]["uv"]]).encode()).hexdigest())
PYTHON
}

check() {
  local expected file
  expected=$(fingerprint)
  for file in requirements.txt requirements-invoke.txt requirements-dev.txt requirements-platform.txt; do
    grep -qxF "# sha256 of the dependencies: $expected" "$file" || {
      echo "requirements.sh: expected $file to fit pyproject.toml; its dependencies changed since; run ./requirements.sh" >&2
      return 1
    }
  done
}

# Universal: the same pins for every Python and system, with markers where they differ.
compile_pins() {
  local file=$1
  shift
  .venv/bin/uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes \
    --no-header --no-emit-index-url --no-strip-extras --output-file "$file" "$@" >/dev/null
  sed -i "1i # Made by ./requirements.sh from pyproject.toml; do not edit.\n# sha256 of the dependencies: $(fingerprint)" "$file"
}

case "${1:-}" in
  '' | --upgrade | --check) [ $# -le 1 ] || { usage >&2; exit 2; } ;;
  --help | -h) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

./venv.sh requirements-dev.txt
if [ "${1:-}" = --check ]; then
  check
else
  compile_pins requirements.txt pyproject.toml "$@"
  compile_pins requirements-invoke.txt pyproject.toml --extra invoke --constraint requirements.txt "$@"
  compile_pins requirements-dev.txt pyproject.toml --all-extras --constraint requirements-invoke.txt "$@"
  compile_pins requirements-platform.txt --group platform --python-version 3.12 "$@"
fi
