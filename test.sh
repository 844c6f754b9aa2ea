#!/usr/bin/env bash
# The main job: one stack through the container under the platform's conditions, and its output checked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# No training saw this seed. The demo bundle is not right on every phantom; see docs/log.md.
phantom_seed=900002
memory_gib=16
data_limit_gib=15 # RLIMIT_DATA on the platform: its memory less 1 GiB
stacks=test/input/images/stacked-fetal-ultrasound
image=${IMAGE:-acouslic}

usage() {
  cat <<'TEXT'
usage: ./test.sh [--local] [--model DIR]

  --local       inference.py in a virtual environment instead of the container
                (chosen by itself where no Docker engine answers)
  --model DIR   the bundle of weights (default: model; where that is empty, the demo bundle is used)

  IMAGE              the image's name (default: acouslic)
  DOCKER_RUN_FLAGS   more flags for `docker run`, such as `--gpus all`
  DOCKER_BUILD_FLAGS, PYTHON: see ./build.sh --help and ./venv.sh --help

Reads the stack in test/input, and makes a phantom there if there is none (its truth: test/truth).
The output stays in test/output, and a picture of it in test/preview. Exit code 0: the output is right.
TEXT
}

say() { echo "test.sh: $*"; }
fail() { echo "test.sh: $*" >&2; exit 1; }

parse_arguments() {
  where=container
  model=model
  while [ $# -gt 0 ]; do
    case "$1" in
      --local) where=local ;;
      --model)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        model=$2
        [ -d "$model" ] || fail "expected a folder for --model; found no $model; name a bundle"
        shift
        ;;
      --help | -h) usage; exit ;;
      *) usage >&2; exit 2 ;;
    esac
    shift
  done
  model=$(cd "$model" && pwd) # Docker takes a relative name for that of a volume
}

choose_place() {
  if [ "$where" = container ] && ! docker info >/dev/null 2>&1; then
    say "no Docker engine answers here: running inference.py in a virtual environment instead"
    where=local
  fi
}

prepare() {
  if [ "$where" = local ]; then ./venv.sh requirements.txt; else ./build.sh; fi
}

# Python for the project's own tools. The image has all that they need, so the host needs no Python.
python_tool() {
  if [ "$where" = local ]; then
    .venv/bin/python "$@"
  else
    docker run --rm --network none --user "$(id -u):$(id -g)" --env HOME=/tmp \
      --volume "$PWD:/repository" --workdir /repository --entrypoint python "$image" "$@"
  fi
}

make_phantom() {
  say "no stack in test/input: making phantom $phantom_seed"
  rm -rf test/truth
  mkdir -p "$stacks"
  python_tool -m phantom test/truth --cases 1 --seed "$phantom_seed"
  mv test/truth/images/stacked_fetal_ultrasound/*.mha "$stacks"
}

find_stack() {
  if ! compgen -G "$stacks/*.mha" >/dev/null; then make_phantom; fi
  local found=("$stacks"/*.mha)
  [ ${#found[@]} -eq 1 ] || fail "expected one stack in $stacks; found ${#found[@]}; leave one there"
  stack=${found[0]}
  chmod -R a+rX test/input # for the container's user
}

# What the container's user wrote belongs to it: let the host's user delete it.
release_output() {
  [ "$where" = local ] || docker run --rm --network none \
    --volume "$PWD/test/output:/output" --volume "$PWD/test/preview:/preview" \
    --entrypoint sh "$image" -c 'chmod -R a+rwX /output/* /preview/* 2>/dev/null || true'
}

empty_output() {
  mkdir -p test/output test/preview
  rm -rf test/output/* test/preview/* 2>/dev/null ||
    { release_output && rm -rf test/output/* test/preview/*; }
  chmod 777 test/output test/preview
}

run_locally() {
  (
    ulimit -S -d $((data_limit_gib << 20)) || say "RLIMIT_DATA cannot be set here"
    .venv/bin/python test/tools/measured.py -- .venv/bin/python inference.py \
      --input test/input --output test/output --model "$model" --preview test/preview/preview.png
  )
}

run_in_container() {
  local entrypoint=() flags=() word
  # The image's own entry point, below a process that measures it.
  while IFS= read -r word; do
    [ -z "$word" ] || entrypoint+=("$word")
  done < <(docker image inspect --format '{{range .Config.Entrypoint}}{{println .}}{{end}}' "$image")
  [ ${#entrypoint[@]} -gt 0 ] || fail "image $image has no entry point"
  # shellcheck disable=SC2206 # several flags in one variable
  flags+=(${DOCKER_RUN_FLAGS:-})
  docker run --rm \
    --network none --read-only --cap-drop ALL --security-opt no-new-privileges \
    --memory "${memory_gib}g" --memory-swap "${memory_gib}g" --ulimit "data=$((data_limit_gib << 30))" \
    --shm-size 64m --tmpfs /tmp \
    --volume "$PWD/test/input:/input:ro" --volume "$PWD/test/output:/output" \
    --volume "$PWD/test/preview:/preview" --volume "$model:/opt/ml/model:ro" \
    --volume "$PWD/test/tools/measured.py:/measured.py:ro" "${flags[@]+"${flags[@]}"}" \
    --entrypoint python "$image" /measured.py -- "${entrypoint[@]}" --preview /preview/preview.png
}

run_inference() {
  say "inference ($where)"
  empty_output
  if [ "$where" = local ]; then run_locally; else run_in_container; fi
}

validate() {
  local truth=()
  if [ -f "test/truth/masks/stacked_fetal_abdomen/$(basename "$stack")" ]; then
    truth=(--truth test/truth)
  else
    say "test/truth does not know $(basename "$stack"): only the format is checked"
  fi
  python_tool test/tools/validate_output.py --input test/input --output test/output "${truth[@]+"${truth[@]}"}"
}

parse_arguments "$@"
choose_place
prepare
find_stack
trap release_output EXIT
run_inference
validate
say "a picture of the answer: test/preview/preview.png"
say "passed ($where)"
