#!/usr/bin/env bash
# Pins, format, lint, spelling, types, tests: what CI runs. It makes the virtual environment that it needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./check.sh [PYTEST_ARGUMENT ...]      for example ./check.sh test/test_challenge.py -k mask
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
esac

./venv.sh requirements-dev.txt
./venv.sh requirements-platform.txt || echo "check.sh: the entry points are not run under the platform's own launcher"
# One thread a test process: two processes with all cores each only wait for one another.
export OMP_NUM_THREADS=1

bin=.venv/bin
./requirements.sh --check
"$bin/ruff" format --check .
"$bin/ruff" check .
git ls-files -z | xargs -0 "$bin/codespell"
git ls-files -z '*.sh' .ci/run | xargs -0 "$bin/shellcheck"
"$bin/hadolint" Dockerfile
"$bin/mypy"
# A part of the suite covers a part of the code: the floor is for the whole.
[ $# -gt 0 ] || set -- --cov=acouslic --cov=evaluation --cov-report=term:skip-covered --cov-fail-under=90
"$bin/python" -m pytest --numprocesses 2 --dist worksteal "$@"
