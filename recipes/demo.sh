#!/usr/bin/env bash
# The demo bundle from seeds alone, and its score on phantoms that it never saw.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: recipes/demo.sh [WORK [OPTION ...]]

  WORK     folder for all that is made (default: demo-work); the bundle goes into WORK/bundle
  OPTION   more options of python -m training demo; a trial of minutes instead of hours, with useless weights:
           --cases 4 4 --epochs 1 1 --held-out 2 2 --steps-per-epoch 4

Simulates 1,516 phantoms, trains a small trunk and a decoder on the anatomy of some, adapters and heads on the labels of
others, and scores the bundle on the 20 realistic phantoms of seed 3003. On two cores with avx512_bf16 it took two and a
quarter hours, some twenty minutes of them lost to other work; without avx512_bf16 many hours. What is finished is not
done again: give the same command to go on where it was stopped. The shipped bundle in resources/demo is not touched, nor
is it quite what this makes: docs/training.md tells how it was made.
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  -*) usage >&2; exit 2 ;;
esac
work=$(realpath -m "${1:-demo-work}")
options=("${@:2}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./venv.sh requirements-dev.txt
PATH=$PWD/.venv/bin:$PATH

# A bundle is written whole or not at all: the folder is there once it is finished.
[ -d "$work/bundle" ] || python -m training demo --work "$work" --output "$work/bundle" "${options[@]}"
if [ ! -d "$work/new" ]; then
  unfinished=$(mktemp -d "$work/.new.XXXXXX")
  trap 'rm -rf "$unfinished"' EXIT
  python -m phantom "$unfinished" --cases 20 --seed 3003 --look realistic --workers 2
  mv "$unfinished" "$work/new"
fi
python -m evaluation run "$work/new" --model "$work/bundle" --output "$work/answers"
python -m evaluation score "$work/answers" "$work/new" --output "$work/score"
python -m evaluation report "$work/score"

echo "demo.sh: done in $((SECONDS / 3600)) h $((SECONDS / 60 % 60)) min; the bundle is in $work/bundle"
echo "open $work/score/report.html in a browser"
