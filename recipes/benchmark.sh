#!/usr/bin/env bash
# Every system of the two papers on the challenge's data, under both protocols, in one table each.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: recipes/benchmark.sh DATASET FETALCLIP_WEIGHTS [WORK [OPTION ...]]

  DATASET             the challenge's training set, version 1.1, unpacked
  FETALCLIP_WEIGHTS   FetalCLIP_weights.pt, from its authors' model page
  WORK                folder for all that is made (default: benchmark-work)
  OPTION              more options of python -m benchmark run for both protocols, such as --pretrained-dir FOLDER

Prepares the frames, imports FetalCLIP's trunk, puts one batch through every system, and then trains ten systems five
times under the paper's protocol and five times under the strict one: about 40 hours on an A100 (calculated, not
measured). What is finished is not done again: give the same command to go on where it was stopped. timm fetches the
baselines' first weights from the network.
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  -*) usage >&2; exit 2 ;;
esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
dataset=$(realpath -m "$1") weights=$(realpath -m "$2") work=$(realpath -m "${3:-benchmark-work}")
options=("${@:4}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -d "$dataset" ] || { echo "benchmark.sh: expected a data set; found no folder $dataset" >&2; exit 1; }
[ -f "$weights" ] || { echo "benchmark.sh: expected FetalCLIP's weights; found no file $weights" >&2; exit 1; }

./venv.sh requirements-dev.txt
PATH=$PWD/.venv/bin:$PATH
# More than eight are not faster, and each takes 1 GB while frames are prepared.
workers=$(nproc)
[ "$workers" -le 8 ] || workers=8

python -m training prepare "$dataset" --output "$work/cache" --size 224 --workers "$workers"
python -m benchmark prepare "$dataset" "$work/cache" --workers "$workers"
# A base is written whole or not at all: the folder is there once it is finished.
[ -d "$work/base" ] || python -m training import-fetalclip "$weights" --output "$work/base"

run() {
  python -m benchmark run "$work/cache" --base "$work/base" --protocol "$1" --output "$work/$1" --readers "$workers" \
    "${options[@]}" "${@:2}"
}

run strict --rehearse
run paper
run strict

echo "benchmark.sh: done in $((SECONDS / 3600)) h $((SECONDS / 60 % 60)) min"
for protocol in paper strict; do
  echo "open $work/$protocol/table.html in a browser, or read $work/$protocol/table.md; table.tex there is for LaTeX"
done
