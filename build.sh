#!/usr/bin/env bash
# Builds the image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./build.sh [--api exec|invoke | --evaluation]

  --api exec     runs once a case (default: what ACOUSLIC-AI asks for)
  --api invoke   a web server that answers many cases
  --evaluation   what scores a submission, for organisers

  IMAGE                the image's name (default: acouslic, acouslic-invoke or acouslic-evaluation)
  BUNDLE_ID            the only bundle that the image shall take, such as acouslic-demo-1471c1b8b781 (default: any)
  DOCKER_BUILD_FLAGS   more flags for `docker build`, such as `--network host` behind a proxy
TEXT
}

case "$*" in
  '' | '--api exec') stage="exec" default_image=acouslic ;;
  '--api invoke') stage=invoke default_image=acouslic-invoke ;;
  --evaluation) stage=evaluation default_image=acouslic-evaluation ;;
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

docker build --target "$stage" "${flags[@]+"${flags[@]}"}" \
  --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' acouslic/__init__.py)" \
  --build-arg "REVISION=$(revision)" \
  --build-arg "BUNDLE_ID=${BUNDLE_ID:-}" \
  --tag "${IMAGE:-$default_image}" .
