#!/usr/bin/env bash
# From the challenge's data and FetalCLIP's checkpoint to a bundle of weights, tried as the platform runs it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: recipes/fetalclip.sh DATASET FETALCLIP_WEIGHTS [WORK [OPTION ...]]

  DATASET             the challenge's training set, version 1.1, unpacked (Zenodo 12697994)
  FETALCLIP_WEIGHTS   FetalCLIP_weights.pt, from its authors' model page (numansaeed/fetalclip-model)
  WORK                folder for all that is made (default: fetalclip-work); about 15 GB
  OPTION              more options of python -m training fit; on a GPU of 16 GB:
                      --batch-size 8 --accumulate 4 --checkpointing

Both files are downloaded by hand. Imports FetalCLIP's trunk, prepares the frames, trains five folds (one a GPU where
there are several), judges every case by the fold that never saw it, packs the five as an ensemble, and runs it once
with ./test.sh. On a T4 a fold takes about an hour and a half (calculated, not measured). What is finished is not done
again: give the same command to go on where it was stopped.
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  -*) usage >&2; exit 2 ;;
esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
dataset=$(realpath -m "$1") weights=$(realpath -m "$2") work=$(realpath -m "${3:-fetalclip-work}")
options=("${@:4}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -d "$dataset" ] || { echo "fetalclip.sh: expected a data set; found no folder $dataset" >&2; exit 1; }
[ -f "$weights" ] || { echo "fetalclip.sh: expected FetalCLIP's weights; found no file $weights" >&2; exit 1; }

./venv.sh requirements-dev.txt
PATH=$PWD/.venv/bin:$PATH
# More than eight are not faster, and each takes 1 GB while frames are prepared.
workers=$(nproc)
[ "$workers" -le 8 ] || workers=8

# A base and a bundle are written whole or not at all: the folder is there once it is finished.
[ -d "$work/base" ] || python -m training import-fetalclip "$weights" --output "$work/base"
python -m training prepare "$dataset" --output "$work/cache" --size 224 --workers "$workers"
python -m training fit "$work/cache" --base "$work/base" --output "$work/runs" --fold all --folds 5 "${options[@]}"
python -m training cross-validate "$work/cache" --base "$work/base" --runs "$work/runs"
[ -d "$work/bundle" ] || python -m training pack "$work/runs" --base "$work/base" --output "$work/bundle" \
  --folds 0 1 2 3 4

echo "fetalclip.sh: the bundle is in $work/bundle, its figures in $work/bundle/MODEL_CARD.md"
if [ -d test/truth ]; then
  echo "test/input holds a phantom, which this bundle does not know. Put one real stack there instead, remove"
  echo "test/truth, and type ./test.sh --model $work/bundle"
  exit
fi
stacks=test/input/images/stacked-fetal-ultrasound
if [ ! -d "$stacks" ]; then
  mkdir -p "$stacks"
  cp "$(find "$dataset/images/stacked_fetal_ultrasound" -name '*.mha' -print -quit)" "$stacks"
fi
./test.sh --model "$work/bundle"
