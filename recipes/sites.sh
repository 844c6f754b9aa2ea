#!/usr/bin/env bash
# Training at two simulated hospitals, a test at a third that nothing saw: what docs/sites.md tells of.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: recipes/sites.sh [WORK [OPTION ...]]

  WORK     folder for all that is made (default: sites-work); about 40 GB
  OPTION   more options of python -m training fit; a trial of minutes, with useless weights:
           --epochs 1 --steps-per-epoch 4

  ACOUSLIC_CASES  phantoms of A and B each, random ones, of C (default: 80 60 100)

Trains two folds on the sites A and B, mixed with random phantoms, and three times more with one part left out each: the
random phantoms, the variations of the grey levels, one mean and spread of the brightness inside the fan. The first two
are cross-validated, a sweep head tried, and all eight have the calibration that comes of it. Each is judged on the same
phantoms of C, and the first two together as an ensemble. On two cores with avx512_bf16 and nothing else running it takes
about two and a half hours, with AVX2 alone two to three times that. What is finished is not done again: give the same
command to go on where it was stopped.
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  -*) usage >&2; exit 2 ;;
esac
work=$(realpath -m "${1:-sites-work}")
options=("${@:2}")
read -r at_site random test <<<"${ACOUSLIC_CASES:-80 60 100}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./venv.sh requirements-dev.txt
PATH=$PWD/.venv/bin:$PATH
mkdir -p "$work"

simulate() { python -m phantom "$work/$1" --workers "$(nproc)" "${@:2}"; }
prepare() { python -m training prepare "${@:2}" --output "$work/$1" --size 128 --workers "$(nproc)"; }

# Stacks whose cache is there are not needed any more, and may be deleted.
if [ ! -f "$work/cache/cache.json" ]; then
  simulate A --site A --seed 8201 --cases "$at_site"
  simulate B --site B --seed 8202 --cases "$at_site"
  prepare cache "$work/A" "$work/B"
fi
if [ ! -f "$work/random-cache/cache.json" ]; then
  simulate random --look random --seed 8204 --cases "$random"
  prepare random-cache "$work/random"
fi
simulate C --site C --seed 8203 --cases "$test"

# A bundle of an arm's networks, judged on C: the arm, the bundle's name, its options of pack.
judge() {
  local place=$work/$1/$2
  [ -d "$place/bundle" ] ||
    python -m training pack "$work/$1/runs" --base resources/demo --output "$place/bundle" --name "$1-$2" "${@:3}"
  python -m evaluation run "$work/C" --model "$place/bundle" --output "$place/answers" --fail-soft
  python -m evaluation score "$place/answers" "$work/C" --output "$place/score"
}

# An arm: its name and its options of fit.
arm() {
  local runs=$work/$1/runs
  python -m training fit "$work/cache" --base resources/demo --output "$runs" --fold all --folds 2 \
    --rank 16 --alpha 32 --dropout 0 --decoder-width 8 --image-levels 4 --batch-size 16 \
    --epochs 15 --steps-per-epoch 80 --head-rate 2e-3 --trunk-rate 1e-3 --average 0.99 --validate-every 1000 \
    --where.workers 2 --where.threads 1 \
    "${@:2}" "${options[@]}"
  if [ "$1" = all ]; then
    [ -f "$runs/cross-validation.json" ] ||
      python -m training sweep-head "$work/cache" --base resources/demo --runs "$runs"
  else
    cp "$work/all/runs/cross-validation.json" "$runs"
    [ ! -f "$work/all/runs/sweep-head.safetensors" ] || cp "$work/all/runs/sweep-head.safetensors" "$runs"
  fi
  judge "$1" fold-0 --folds 0 --merge
  judge "$1" fold-1 --folds 1 --merge
}

mixed=(--phantoms "$work/random-cache" --share 0.33)
arm all "${mixed[@]}"
arm no-random
arm no-grey "${mixed[@]}" --augmentation.gain-ratio 1 --augmentation.gamma-ratio 1 --augmentation.depth 0 \
  --augmentation.blur 0 --augmentation.grain 0 --augmentation.bands 0 --augmentation.shadow 0 --augmentation.contact 0 \
  --augmentation.rings 0 --augmentation.floor 0 --augmentation.curve 0
arm as-is "${mixed[@]}" --intensity as-is
judge all ensemble --folds 0 1

for fold in 0 1; do
  python -m evaluation compare "$work/all/fold-$fold/score" "$work/no-random/fold-$fold/score" \
    "$work/no-grey/fold-$fold/score" "$work/as-is/fold-$fold/score" "$work/all/ensemble/score" \
    --names all no-random no-grey as-is ensemble --output "$work/compare-$fold"
done
