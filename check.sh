#!/usr/bin/env bash
# Format, lint, types, tests: what CI runs. It makes the virtual environment that it needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./check.sh [PYTEST_ARGUMENT ...]      for example ./check.sh test/test_fan.py -k mask
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
esac

./venv.sh requirements-dev.txt
# One thread a test process: two processes with all cores each only wait for one another.
export OMP_NUM_THREADS=1

bin=.venv/bin
"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy"
"$bin/python" -m pytest --numprocesses 2 "$@"
