#!/usr/bin/env bash
# The main job: one stack through the container under the platform's conditions, and its output checked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# No training saw this seed. The demo bundle is not right on every phantom; see docs/log.md.
phantom_seed=900002
memory_gib=16
data_limit_gib=15 # RLIMIT_DATA on the platform: its memory less 1 GiB
port=4743 # the platform's, for the invoke interface

usage() {
  cat <<'TEXT'
usage: ./test.sh [--local] [--api exec|invoke] [--model DIR] [--site A|B|C]
       ./test.sh --exported DIR [--site A|B|C]
       ./test.sh [--local] --evaluation [--site A|B|C]

  --local         the entry point in a virtual environment instead of the container
                  (chosen by itself where no Docker engine answers)
  --evaluation    what organisers score with: it scores the answer that test.sh left before, on a phantom
  --api exec      a process a case (default)
  --api invoke    a server, which is asked for the case twice
  --model DIR     the bundle of weights (default: model; where that is empty, the demo weights are asked
                  for with --demo, which mean nothing for patients)
  --site A|B|C    a phantom of that site (docs/sites.md), with all files in test/site-A and so on: how the answer
                  compares with the truth is told, but only its format decides
  --exported DIR  what ./export.sh wrote: its archive is loaded and answers with its weights; nothing is built

  IMAGE              the image's name (default: acouslic, acouslic-invoke or acouslic-evaluation)
  DOCKER_RUN_FLAGS   more flags for `docker run`, such as `--memory 4g --memory-swap 4g`
  DOCKER_BUILD_FLAGS, PYTHON: see ./build.sh --help and ./venv.sh --help

Reads the stack in test/input, or in test/input/interf0 as the platform's try-out packs have it, and makes a
phantom there if there is none (its truth: test/truth). The output stays in test/output, and a picture of it in
test/preview. Exit code 0: the output is right, or with --site: its format is.
TEXT
}

say() { echo "test.sh: $*"; }
fail() { echo "test.sh: $*" >&2; exit 1; }

need_value() { [ "$1" -ge 2 ] || { usage >&2; exit 2; }; }

parse_arguments() {
  where=container
  api="exec"
  model=
  exported=
  evaluation=no
  site=
  place="test"
  while [ $# -gt 0 ]; do
    case "$1" in
      --local) where=local ;;
      --evaluation) evaluation=yes ;;
      --api)
        need_value $#
        api=$2
        case "$api" in exec | invoke) ;; *) usage >&2; exit 2 ;; esac
        shift
        ;;
      --site)
        need_value $#
        site=$2
        case "$site" in A | B | C) ;; *) usage >&2; exit 2 ;; esac
        place=test/site-$site
        shift
        ;;
      --model)
        need_value $#
        model=$2
        [ -d "$model" ] || fail "expected a folder for --model; found no $model; name a bundle"
        shift
        ;;
      --exported)
        need_value $#
        exported=$2
        [ -f "$exported/acouslic.tar.gz" ] || fail "expected acouslic.tar.gz in $exported; found none; run ./export.sh"
        shift
        ;;
      --help | -h) usage; exit ;;
      *) usage >&2; exit 2 ;;
    esac
    shift
  done
}

# inference.py takes the demo weights only where it is told to.
choose_demo() {
  [ -z "$(find model -mindepth 1 -maxdepth 1 ! -name README.md ! -name .gitignore ! -name lost+found)" ] || return 0
  say "no bundle in model/: passing --demo, so the demo weights answer, which mean nothing for patients"
  demo=(--demo)
}

choose_place() {
  if [ "$where" = container ] && ! docker info >/dev/null 2>&1; then
    [ -z "$exported" ] || fail "expected a Docker engine for --exported; found none that answers; start it"
    say "no Docker engine answers here: running the entry point in a virtual environment instead"
    where=local
  fi
}

prepare() {
  image=${IMAGE:-acouslic}
  [ "$api" = exec ] || image=${IMAGE:-acouslic-invoke}
  [ "$evaluation" = no ] || image=${IMAGE:-acouslic-evaluation}
  if [ -n "$exported" ]; then
    load_export
  elif [ "$evaluation" = yes ] && [ "$where" = container ]; then
    ./build.sh --evaluation
  elif [ "$evaluation" = yes ]; then
    ./venv.sh requirements-dev.txt
  elif [ "$where" = container ]; then
    ./build.sh --api "$api"
  elif [ "$api" = exec ]; then
    ./venv.sh requirements.txt
  else
    ./venv.sh requirements-invoke.txt
  fi
}

# What the platform does with the two files: it loads the image, and unpacks the weights.
load_export() {
  say "loading $exported/acouslic.tar.gz"
  image=$(docker load --input "$exported/acouslic.tar.gz" | sed -n 's/^Loaded image: //p')
  [ -n "$image" ] || fail "expected an image with a name in $exported/acouslic.tar.gz; found none; run ./export.sh"
  api=$(docker image inspect --format '{{index .Config.Labels "org.grand-challenge.api-method"}}' "$image")
  model=$work/model
  mkdir "$model"
  tar -C "$model" -xzf "$exported/model.tar.gz"
}

choose_model() {
  demo=()
  [ -n "$model" ] || choose_demo
  model=$(cd "${model:-model}" && pwd) # Docker takes a relative name for that of a volume
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
  local look=(--look realistic)
  [ -z "$site" ] || look=(--site "$site")
  say "no stack in $input: making phantom $phantom_seed${site:+ of site $site}"
  rm -rf "$place/truth"
  mkdir -p "$stacks"
  python_tool -m phantom "$place/truth" --cases 1 --seed "$phantom_seed" "${look[@]}"
  mv "$place/truth/images/stacked_fetal_ultrasound"/*.mha "$stacks"
}

find_stack() {
  input=$place/input
  [ ! -d "$place/input/interf0" ] || input=$place/input/interf0
  local stacks=$input/images/stacked-fetal-ultrasound
  if ! compgen -G "$stacks/*.mha" >/dev/null; then make_phantom; fi
  local found=("$stacks"/*.mha)
  [ ${#found[@]} -eq 1 ] || fail "expected one stack in $stacks; found ${#found[@]}; leave one there"
  stack=${found[0]}
  chmod -R a+rX "$place/input" # for the container's user
}

# What the container's user wrote belongs to it: let the host's user delete it.
release_output() {
  [ "$where" = local ] || docker run --rm --network none --user 0 \
    --volume "$PWD/$place/output:/output" --volume "$PWD/$place/preview:/preview" \
    --entrypoint sh "$image" -c 'chmod -R a+rwX /output/* /preview/* 2>/dev/null || true'
}

empty_output() {
  mkdir -p "$place/output" "$place/preview"
  rm -rf "$place/output"/* "$place/preview"/* 2>/dev/null ||
    { release_output && rm -rf "$place/output"/* "$place/preview"/*; }
  chmod 777 "$place/output" "$place/preview"
}

# Takes the place of the shell that it is called in.
become_entry_point() {
  local program=inference.py more=()
  [ "$api" = exec ] || { program=app.py && more=(--port "$port"); }
  ulimit -S -d $((data_limit_gib << 20)) || say "RLIMIT_DATA cannot be set here"
  exec .venv/bin/python test/tools/measured.py -- .venv/bin/python "$program" \
    --input "$input" --output "$place/output" --model "$model" --preview "$place/preview/preview.png" \
    "${more[@]+"${more[@]}"}" "${demo[@]+"${demo[@]}"}"
}

# The image's own entry point, below a process that measures it, under the platform's conditions.
run_in_container() {
  local entrypoint=() flags=() word
  while IFS= read -r word; do
    [ -z "$word" ] || entrypoint+=("$word")
  done < <(docker image inspect --format '{{range .Config.Entrypoint}}{{println .}}{{end}}' "$image")
  [ ${#entrypoint[@]} -gt 0 ] || fail "image $image has no entry point"
  if docker info --format '{{json .Runtimes}}' | grep -q '"nvidia"'; then flags+=(--gpus all); fi
  say "GPU: ${flags[*]:-none, as the engine has no nvidia runtime}"
  run_under_limits "$@" --volume "$PWD/$input:/input:ro" --volume "$PWD/$place/output:/output" \
    --volume "$PWD/$place/preview:/preview" --volume "$model:/opt/ml/model:ro" \
    "${flags[@]+"${flags[@]}"}" \
    --entrypoint python "$image" /measured.py -- "${entrypoint[@]}" --preview /preview/preview.png \
    "${demo[@]+"${demo[@]}"}"
}

# `docker run` with what is the same for every container of the platform.
run_under_limits() {
  local more=()
  read -ra more <<<"${DOCKER_RUN_FLAGS:-}"
  docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges \
    --memory "${memory_gib}g" --memory-swap "${memory_gib}g" --ulimit "data=$((data_limit_gib << 30))" \
    --shm-size 64m --tmpfs /tmp --volume "$PWD/test/tools/measured.py:/measured.py:ro" "${more[@]+"${more[@]}"}" "$@"
}

# A server on a network without outside, and beside it who plays the platform.
serve_in_container() {
  network=acouslic-test-$$
  docker network create --internal "$network" >/dev/null
  run_in_container --network "$network" --name "$network" &
  server=$!
  docker run --rm --network "$network" --volume "$PWD/test/tools/play.py:/play.py:ro" \
    --entrypoint python "$image" /play.py "$network" "$port"
  docker kill --signal TERM "$network" >/dev/null
}

serve_locally() {
  become_entry_point &
  server=$!
  .venv/bin/python test/tools/play.py 127.0.0.1 "$port"
  kill -TERM "$server"
}

# A server has to end by itself, with exit code 0, when it is told to.
end_server() {
  local start=$SECONDS code=0
  wait "$server" || code=$?
  server=
  [ "$code" -eq 0 ] || fail "expected the server to end with exit code 0 after SIGTERM; found $code"
  [ $((SECONDS - start)) -le 3 ] || fail "expected the server to end within 2 s after SIGTERM; found $((SECONDS - start))"
}

run_case() {
  say "$api ($where)"
  empty_output
  case "$api-$where" in
    exec-local) (become_entry_point) ;;
    exec-container) run_in_container --network none ;;
    invoke-local) serve_locally ;;
    invoke-container) serve_in_container ;;
  esac
  [ "$api" = exec ] || end_server
}

validate() {
  local truth=() format_only=()
  [ -z "$site" ] || format_only=(--format-only)
  if [ -f "$place/truth/masks/stacked_fetal_abdomen/$(basename "$stack")" ]; then
    truth=(--truth "$place/truth")
  else
    say "$place/truth does not know $(basename "$stack"): only the format is checked"
  fi
  python_tool test/tools/validate_output.py --input "$input" --output "$place/output" "${truth[@]+"${truth[@]}"}" \
    "${format_only[@]+"${format_only[@]}"}"
}

require_answer() {
  [ -f "$place/output/fetal-abdomen-frame-number.json" ] && [ -d "$place/truth" ] ||
    fail "expected an answer in $place/output and its truth in $place/truth; found none; run ./test.sh on a phantom first"
}

# What the platform makes of a submission's answers, the organisers' container on it, and its figures checked.
evaluate() {
  local tool=test/tools/evaluation_input.py folder=$place/evaluation
  say "evaluation ($where)"
  rm -rf "$folder" 2>/dev/null || fail "expected to remove the old $folder; found no right to; remove it"
  python_tool "$tool" make --input "$input" --answer "$place/output" --truth "$place/truth" "$folder"
  chmod 777 "$folder/output"
  if [ "$where" = local ]; then
    .venv/bin/python test/tools/measured.py -- .venv/bin/python evaluate.py \
      --input "$folder/input" --ground-truth "$folder/ground_truth" --output "$folder/output"
  else
    run_under_limits --network none --volume "$PWD/$folder/input:/input:ro" \
      --volume "$PWD/$folder/ground_truth:/opt/ml/input/data/ground_truth:ro" --volume "$PWD/$folder/output:/output" \
      --entrypoint python "$image" /measured.py -- python evaluate.py
  fi
  python_tool "$tool" check "$folder"
}

clean_up() {
  if [ -n "${server:-}" ]; then kill -TERM "$server" 2>/dev/null || true; fi
  if [ -n "${network:-}" ]; then
    docker kill "$network" >/dev/null 2>&1 || true
    docker network rm "$network" >/dev/null 2>&1 || true
  fi
  release_output || true
  rm -rf "$work"
}

parse_arguments "$@"
choose_place
[ "$evaluation" = no ] || require_answer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prepare
if [ "$evaluation" = yes ]; then
  find_stack
  evaluate
  say "passed ($where)"
  exit
fi
choose_model
find_stack
trap clean_up EXIT
run_case
validate
say "a picture of the answer: $place/preview/preview.png"
say "passed ($where)"
