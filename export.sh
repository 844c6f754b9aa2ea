#!/usr/bin/env bash
# Writes the files to upload, the image and apart from it the weights, and proves that the platform can take them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./export.sh [--api exec|invoke] [--demo] [FOLDER]

  --api     the interface, see ./build.sh --help (default: exec)
  --demo    pack the demo bundle, which is trained on simulated images, where model/ holds no bundle
  FOLDER    where the files go (default: export)

  IMAGE      the image's name (default: acouslic, or acouslic-invoke)
  BUNDLE_ID  binds the image to one bundle, see ./build.sh --help; another one than the packed one fails

Builds the image, and writes acouslic.tar.gz (the image), model.tar.gz (the weights, for /opt/ml/model), a .sha256
beside each, two bills of materials (CycloneDX), and checks.tsv: every check with pass or fail and its figure. One
line for all of them is added to ledger.jsonl. Exit code 1 where a check fails: then there is nothing to upload.
TEXT
}

fail() { echo "export.sh: $*" >&2; exit 1; }

parse_arguments() {
  api="exec"
  demo=no
  folder=
  while [ $# -gt 0 ]; do
    case "$1" in
      --demo) demo=yes ;;
      --api)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        api=$2
        shift
        ;;
      --help | -h) usage; exit ;;
      -*) usage >&2; exit 2 ;;
      *)
        [ -z "$folder" ] || { usage >&2; exit 2; }
        folder=$1
        ;;
    esac
    shift
  done
  case "$api" in
    exec) image=${IMAGE:-acouslic} ;;
    invoke) image=${IMAGE:-acouslic-invoke} ;;
    *) usage >&2; exit 2 ;;
  esac
  folder=${folder:-export}
}

choose_bundle() {
  # What inference.py takes for a bundle as well: anything but the README.
  if [ -n "$(find model -mindepth 1 -maxdepth 1 ! -name README.md ! -name .gitignore)" ]; then
    bundle=model
  elif [ "$demo" = yes ]; then
    bundle=resources/demo
    echo "export.sh: packing the demo bundle: trained on simulated images, it means nothing for patients"
  else
    fail "expected a bundle in model/; found none; see model/README.md, or pass --demo"
  fi
}

# record pass|fail NAME FIGURE
record() { printf '%s\t%s\t%s\n' "$@" | tee -a "$partial/checks.tsv"; }

failed() { grep -q '^fail' "$partial/checks.tsv"; }

# Python of the image for the project's own tools: the host needs none.
python_tool() {
  docker run --rm --network none --user "$(id -u):$(id -g)" --env HOME=/tmp --volume "$PWD/test/tools:/tools:ro" \
    --volume "$(cd "$partial" && pwd):/export" --entrypoint python "$image" "$@"
}

# The image's own loader reads the bundle as the platform will, so a damaged one is not uploaded.
check_bundle() {
  local log
  if log=$(docker run --rm --network none --volume "$PWD/$bundle:/opt/ml/model:ro" --entrypoint python "$image" \
    -c 'import pathlib, sys; from acouslic.command import Compute, load; print(load(pathlib.Path(sys.argv[1]), Compute("cpu"), sweep_prior="calibrated").id)' \
    /opt/ml/model); then
    bundle_id=$log
    record pass "bundle that the image loads" "$bundle_id"
  else
    bundle_id=
    record fail "bundle that the image loads" "$bundle is none"
  fi
}

# The archive is smaller than the image, and is loaded once more to be tried.
check_space() {
  local needed free
  needed=$(docker image inspect --format '{{.Size}}' "$image")
  free=$(df --output=avail --block-size=1 "$partial" | tail -1)
  local result=pass
  [ "$free" -gt "$needed" ] || result=fail
  record "$result" "disk space before saving" "$free bytes free, $needed needed at most"
}

compress() {
  if command -v pigz >/dev/null; then pigz --no-name; else gzip --no-name; fi
}

save_image() {
  echo "export.sh: saving the image (some minutes)"
  docker save "$image" | compress >"$partial/acouslic.tar.gz"
}

# The same bundle gives the same bytes: sorted, no times, no owners.
save_bundle() {
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=a+rX --exclude=./README.md \
    -C "$bundle" -c . | gzip --no-name >"$partial/model.tar.gz"
}

check_archive() {
  python_tool /tools/check_archive.py /export/acouslic.tar.gz /export/model.tar.gz --api "$api" --commit "$commit" \
    --image-id "$(docker image inspect --format '{{.Id}}' "$image")" --bundle-id "$bundle_id" |
    tee -a "$partial/checks.tsv" || record fail "the archive can be read to its end" "see above"
}

# As the platform does it: load the archive, unpack the weights, answer a case under its limits.
check_answer() {
  local start=$SECONDS
  if ./test.sh --exported "$partial"; then
    record pass "a case answered by the archive itself" "$((SECONDS - start)) s with loading it"
  else
    record fail "a case answered by the archive itself" "see above"
  fi
}

write_sha256() {
  local file
  for file in acouslic.tar.gz model.tar.gz; do
    (cd "$partial" && sha256sum "$file" >"$file.sha256")
  done
}

digest() { cut -d ' ' -f 1 "$partial/$1.sha256"; }

# What was exported, when, from which commit, with which checksums.
add_to_ledger() {
  printf '{"time": "%s", "commit": "%s", "api": "%s", "bundle_id": "%s", "image_id": "%s", "sha256": {"acouslic.tar.gz": "%s", "model.tar.gz": "%s"}, "checks": %d}\n' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$commit" "$api" "$bundle_id" \
    "$(docker image inspect --format '{{.Id}}' "$image")" "$(digest acouslic.tar.gz)" "$(digest model.tar.gz)" \
    "$(wc -l <"$partial/checks.tsv")" >>"$folder/ledger.jsonl"
}

# What must not be uploaded is not left; what was found stays.
give_up() {
  cp "$partial/checks.tsv" "$folder"
  fail "expected every check to pass; found $(grep -c '^fail' "$partial/checks.tsv") that failed: see $folder/checks.tsv"
}

parse_arguments "$@"
choose_bundle
./build.sh --api "$api"
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
mkdir -p "$folder"
partial=$(mktemp -d "$folder/partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
check_bundle
check_space
if failed; then give_up; fi
save_bundle
save_image
check_archive
check_answer
if failed; then give_up; fi
python_tool /tools/sbom.py /export --name acouslic --version "$commit"
write_sha256
add_to_ledger
mv "$partial"/* "$folder"
rmdir "$partial"
ls -l "$folder"
