#!/usr/bin/env bash
# Makes .venv, or brings it up to date, from the exact, hashed pins of a requirements file; does nothing where it is so already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./venv.sh requirements.txt | requirements-dev.txt

  PYTHON   the Python to build on, 3.11 or newer (default: the first of python3.11 ... python3.13, python3)
TEXT
}

find_python() {
  local candidate candidates=(python3.11 python3.12 python3.13 python3)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "venv.sh: expected Python 3.11 or newer, found none; install it, or name it in PYTHON" >&2
  return 1
}

# requirements-dev.txt holds all pins of requirements.txt, so installing it installs both.
pins() {
  cat requirements.txt
  if [ "$1" = requirements-dev.txt ]; then cat requirements-dev.txt; fi
}

is_installed() {
  .venv/bin/python -c '' 2>/dev/null && pins "$1" | cmp -s - ".venv/installed-$1"
}

install() {
  local python=.venv/bin/python
  if ! "$python" -c '' 2>/dev/null; then
    local base
    base=$(find_python)
    "$base" -m venv --clear .venv || {
      echo "venv.sh: $base cannot make a virtual environment; Debian and Ubuntu have that in python3-venv" >&2
      return 1
    }
  fi
  echo "venv.sh: installing $1 into .venv (some minutes)"
  rm -f .venv/installed-*
  "$python" -m pip install --disable-pip-version-check --quiet --require-hashes --requirement "$1"
  if [ "$1" = requirements-dev.txt ]; then # the command `acouslic`, and the rooms importable from any folder
    "$python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
  fi
  "$python" -m pip check
  pins requirements.txt >.venv/installed-requirements.txt
  if [ "$1" = requirements-dev.txt ]; then pins "$1" >".venv/installed-$1"; fi
}

case "${1:-}" in
  --help | -h) usage ;;
  requirements.txt | requirements-dev.txt)
    [ $# -eq 1 ] || { usage >&2; exit 2; }
    is_installed "$1" || install "$1"
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac
