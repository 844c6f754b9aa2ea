#!/usr/bin/env bash
# Builds the image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./build.sh

  IMAGE                the image's name (default: acouslic)
  DOCKER_BUILD_FLAGS   more flags for `docker build`, such as `--network host` behind a proxy
TEXT
}

case "${1:-}" in
  '') ;;
  --help | -h) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

# The commit that the image holds, marked where the working tree differs from it.
revision() {
  local commit
  commit=$(git rev-parse HEAD 2>/dev/null) || { echo unknown; return; }
  [ -z "$(git status --porcelain)" ] || commit+=+changes
  echo "$commit"
}

if ! engine=$(docker version --format '{{.Server.Arch}}' 2>/dev/null); then
  echo "build.sh: expected a Docker engine, found none that answers; start it, or use ./test.sh --local" >&2
  exit 1
fi
flags=()
# The platform takes amd64 only; naming it is needed elsewhere, and refused by old engines.
[ "$engine" = amd64 ] || flags+=(--platform linux/amd64)
# shellcheck disable=SC2206 # several flags in one variable
flags+=(${DOCKER_BUILD_FLAGS:-})

docker build "${flags[@]+"${flags[@]}"}" \
  --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' acouslic/__init__.py)" \
  --build-arg "REVISION=$(revision)" \
  --tag "${IMAGE:-acouslic}" .
