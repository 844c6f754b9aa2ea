#!/usr/bin/env bash
# The whole way on phantoms: data, training, cross-validation, a bundle, its answers, their score, a report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: recipes/tour.sh [WORK]

  WORK   new or empty folder for all that is made (default: tour); about 1 GB

Four simulated stacks are made and two folds are trained on the demo's trunk for some steps each, with the commands
that real data take. It needs no data, no GPU, and five to ten minutes on two cores. The figures mean nothing: four
stacks and forty steps are far too few, and a stack on which such a network sees nothing gets a guess. It ends by
naming the page to open.
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  -*) usage >&2; exit 2 ;;
esac
[ $# -le 1 ] || { usage >&2; exit 2; }
work=${1:-tour}
if [ -e "$work" ] && [ -n "$(ls -A "$work")" ]; then
  echo "tour.sh: expected a new or empty folder; found something in $work; name another one" >&2
  exit 1
fi

./venv.sh requirements-dev.txt
PATH=$PWD/.venv/bin:$PATH

step() {
  echo
  echo "== $1 ($((SECONDS / 60)) min $((SECONDS % 60)) s)"
  shift
  echo "\$ $*"
  "$@"
}

mkdir -p "$work"
step "Four phantoms to train on, one to be judged on" \
  python -m phantom "$work/data" --cases 4 --seed 11 --workers 2
python -m phantom "$work/new" --cases 1 --seed 12
step "The training cache" \
  python -m training prepare "$work/data" --output "$work/cache" --size 128 --workers 2
step "Two folds, from the demo's trunk" \
  python -m training fit "$work/cache" --base resources/demo --output "$work/runs" --fold all --folds 2 \
  --epochs 1 --steps-per-epoch 40 --batch-size 16 --decoder-width 8
step "Every case judged by the fold that never saw it" \
  python -m training cross-validate "$work/cache" --base resources/demo --runs "$work/runs"
step "A bundle" \
  python -m training pack "$work/runs" --base resources/demo --output "$work/bundle" --name tour
step "Its answer for the new stack" \
  python -m evaluation run "$work/new" --model "$work/bundle" --output "$work/answers" \
  --fail-soft
step "Its score" \
  python -m evaluation score "$work/answers" "$work/new" --output "$work/score"
step "A report" \
  python -m evaluation report "$work/score"

echo
echo "tour.sh: done in $((SECONDS / 60)) min $((SECONDS % 60)) s; open $work/score/report.html in a browser"
