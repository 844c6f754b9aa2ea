#!/usr/bin/env bash
# Makes an environment, or brings it up to date, from the exact, hashed pins of a requirements file; does nothing where it is so already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./venv.sh requirements.txt | requirements-invoke.txt | requirements-dev.txt | requirements-platform.txt

  PYTHON   the Python to build on, 3.11 or newer (default: the first of python3.11 ... python3.13, python3)

The environment is .venv. That of requirements-platform.txt, the platform's own launcher and importer, is
.venv-platform and needs Python 3.12 or newer.
TEXT
}

# What pyenv has installed but not chosen has no name on PATH.
pyenv_pythons() {
  if command -v pyenv >/dev/null; then compgen -G "$(pyenv root)/versions/3.1[1-9]*/bin/python3" || true; fi
}

find_python() {
  local candidate candidates=(python3.11 python3.12 python3.13 python3)
  while IFS= read -r candidate; do candidates+=("$candidate"); done < <(pyenv_pythons)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $least_minor))" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "venv.sh: expected Python 3.$least_minor or newer, found none; install it, or name it in PYTHON" >&2
  return 1
}

# The files in the order in which each holds all pins of those before, so installing it installs them too.
files=(requirements.txt requirements-invoke.txt requirements-dev.txt)
venv=.venv
least_minor=11

choose() {
  requirements=$1
  if [ "$1" = requirements-platform.txt ]; then
    files=("$1")
    venv=.venv-platform
    least_minor=12
  fi
}

pins() {
  local file
  for file in "${files[@]}"; do
    cat "$file"
    [ "$file" != "$1" ] || break
  done
}

is_installed() {
  "$venv/bin/python" -c '' 2>/dev/null && pins "$requirements" | cmp -s - "$venv/installed-$requirements"
}

install() {
  local python=$venv/bin/python file
  if ! "$python" -c '' 2>/dev/null; then
    local base
    base=$(find_python)
    "$base" -m venv --clear "$venv" || {
      echo "venv.sh: $base cannot make a virtual environment; Debian and Ubuntu have that in python3-venv" >&2
      return 1
    }
  fi
  echo "venv.sh: installing $requirements into $venv (some minutes)"
  rm -f "$venv"/installed-*
  "$python" -m pip install --disable-pip-version-check --quiet --require-hashes --requirement "$requirements"
  if [ "$requirements" = requirements-dev.txt ]; then # the command `acouslic`, and the rooms importable from any folder
    "$python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
  fi
  "$python" -m pip check
  for file in "${files[@]}"; do
    pins "$file" >"$venv/installed-$file"
    [ "$file" != "$requirements" ] || break
  done
}

case "${1:-}" in
  --help | -h) usage ;;
  requirements.txt | requirements-invoke.txt | requirements-dev.txt | requirements-platform.txt)
    [ $# -eq 1 ] || { usage >&2; exit 2; }
    choose "$1"
    is_installed || install
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac
