#!/usr/bin/env bash
# One data set by every way of running many stacks: equal answers, the times, and what workers gain.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: recipes/scale.sh [WORK [DATASET]]

  WORK      new or empty folder for all that is made (default: scale)
  DATASET   data set in the training set's layout, or a folder of stacks (default: 40 phantoms, made in WORK)

Runs the demo bundle over the data set serially, by two local workers, on a Ray cluster of two workers, by two jobs of
submitit, and in two shards that are merged; every worker computes with one thread. It ends with an error where an
answer differs in one byte, and prints a table of times. Two cores take about an hour and 3 GB for 40 phantoms.
TEXT
}

case "${1:-}" in
  --help | -h) usage; exit ;;
  -*) usage >&2; exit 2 ;;
esac
[ $# -le 2 ] || { usage >&2; exit 2; }
work=$(realpath -m "${1:-scale}") data=${2:+$(realpath -m "$2")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -e "$work" ] && [ -n "$(ls -A "$work")" ]; then
  echo "scale.sh: expected a new or empty folder; found something in $work; name another one" >&2
  exit 1
fi
if [ -n "$data" ] && [ ! -d "$data" ]; then
  echo "scale.sh: expected a data set; found no folder $data" >&2
  exit 1
fi

./venv.sh requirements-dev.txt
export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD OMP_NUM_THREADS=1
mkdir -p "$work"
if [ -z "$data" ]; then
  data=$work/data
  python -m phantom "$data" --cases 40 --seed 16 --workers 2
fi

run() {
  local name=$1 more=("${@:2}")
  python -m evaluation run "$data" --model resources/demo --output "$work/$name" --device cpu --threads 1 "${more[@]}"
}

shards() {
  run shard-0 --workers 1 --shard 0/2 &
  run shard-1 --workers 1 --shard 1/2
  wait $!
  python -m evaluation merge "$work/shard-0" "$work/shard-1" --output "$work/shards"
}

table="| way | seconds | efficiency |\n|---|---|---|"
serial=
# Takes the time of a way, and compares its answers with the serial run's.
measure() {
  local name=$1 start seconds
  shift
  start=$(date +%s.%N)
  "$@"
  seconds=$(awk "BEGIN { printf \"%.1f\", $(date +%s.%N) - $start }")
  serial=${serial:-$seconds}
  diff -r --exclude=record.json --exclude=run.json --exclude=.slurm "$work/serial" "$work/$name"
  table+="\n| $name | $seconds | $(awk "BEGIN { printf \"%.2f\", $serial / $seconds / $([ "$name" = serial ] && echo 1 || echo 2) }") |"
}

# The caches of the disk are warm for each way alike.
find "$data" -name '*.mha' -exec cat {} + >/dev/null
measure serial run serial --workers 1
measure local run local --workers 2
measure ray run ray --backend ray --workers 2
measure slurm run slurm --backend slurm --workers 2
measure shards shards

echo
echo "All answers are the serial run's, byte for byte. Load of the machine: $(cut -d' ' -f1-3 /proc/loadavg)"
echo -e "$table"
