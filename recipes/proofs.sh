#!/usr/bin/env bash
# What docs/proofs.md says was measured, measured again.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: recipes/proofs.sh

  IMAGE               the container's image (default: acouslic; ./build.sh makes it)
  ACOUSLIC_MUTATIONS  mutated headers, and mutated files of bundles (default: 400 and 100)
  ACOUSLIC_KILLS      kills of a running case (default: 10)

Runs the same phantom twice through inference.py, through the evaluation's run and through the container, and
compares the answers byte by byte; measures a whole stack against the limits of the platform's machines; runs the tests
of what a damaged or hostile file, a scarce machine and the platform's own programs do. Writes the tables between the
two marks of docs/proofs.md. Without an engine, or without .venv-platform, the tables say what was left out.
TEXT
}

case "${1:-}" in
  '') ;;
  --help | -h) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./venv.sh requirements-dev.txt
PYTHONPATH=$PWD .venv/bin/python test/tools/proofs.py --image "${IMAGE:-acouslic}"
