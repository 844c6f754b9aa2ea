#!/usr/bin/env bash
# Writes the files to upload, the image and apart from it the weights, and checks what the platform would refuse.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

max_bytes=10000000000 # the platform's limit for an image
image=${IMAGE:-acouslic}

usage() {
  cat <<'TEXT'
usage: ./export.sh [--demo] [FOLDER]

  --demo    pack the demo bundle, which is trained on simulated images, where model/ holds no bundle
  FOLDER    where the files go (default: export)

  IMAGE     the image's name (default: acouslic)

Builds the image, and writes acouslic.tar.gz (the image), model.tar.gz (the weights, for /opt/ml/model)
and a .sha256 beside each.
TEXT
}

fail() { echo "export.sh: $*" >&2; exit 1; }

parse_arguments() {
  demo=no
  folder=
  while [ $# -gt 0 ]; do
    case "$1" in
      --demo) demo=yes ;;
      --help | -h) usage; exit ;;
      -*) usage >&2; exit 2 ;;
      *)
        [ -z "$folder" ] || { usage >&2; exit 2; }
        folder=$1
        ;;
    esac
    shift
  done
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

check_image() {
  local user architecture
  user=$(docker image inspect --format '{{.Config.User}}' "$image")
  architecture=$(docker image inspect --format '{{.Os}}/{{.Architecture}}' "$image")
  case "$user" in
    '' | root | root:* | 0 | 0:*)
      fail "expected an image whose USER is not root; found '${user:-none}'; set USER in the Dockerfile" ;;
  esac
  [ "$architecture" = linux/amd64 ] ||
    fail "expected an image for linux/amd64; found $architecture; rebuild with DOCKER_BUILD_FLAGS='--platform linux/amd64'"
  echo "export.sh: user $user, $architecture"
}

# The image's own loader reads the bundle as the platform will, so a damaged one is not uploaded.
check_bundle() {
  docker run --rm --network none --volume "$PWD/$bundle:/opt/ml/model:ro" --entrypoint python "$image" \
    -c 'from acouslic.command import MODEL, load; load(MODEL, device="cpu", sweep_prior="calibrated")' ||
    fail "$bundle is no bundle that the image can load"
}

compress() {
  if command -v pigz >/dev/null; then pigz --no-name; else gzip --no-name; fi
}

save_image() {
  echo "export.sh: saving the image (some minutes)"
  docker save "$image" | compress >"$partial/acouslic.tar.gz"
  local bytes
  bytes=$(wc -c <"$partial/acouslic.tar.gz")
  [ "$bytes" -lt "$max_bytes" ] ||
    fail "expected an image below $max_bytes bytes; found $bytes; leave out what inference does not need"
}

# The same bundle gives the same bytes: sorted, no times, no owners.
save_bundle() {
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=a+rX --exclude=./README.md \
    -C "$bundle" -c . | gzip --no-name >"$partial/model.tar.gz"
}

write_sha256() {
  local file
  for file in acouslic.tar.gz model.tar.gz; do
    (cd "$partial" && sha256sum "$file" >"$file.sha256")
  done
}

parse_arguments "$@"
choose_bundle
./build.sh
check_image
check_bundle
mkdir -p "$folder"
partial=$(mktemp -d "$folder/partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
save_bundle
save_image
write_sha256
mv "$partial"/* "$folder"
rmdir "$partial"
ls -l "$folder"
