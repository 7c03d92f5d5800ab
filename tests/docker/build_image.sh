#!/usr/bin/env bash
# Builds docker/Dockerfile without a container engine and without a registry: the base image is made
# from Debian's packages, buildah runs the steps in a chroot. Proves that the package list of ./dev
# is complete, since nothing else is in that system. Needs root, mmdebstrap and buildah.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

work=build/image
mkdir -p "$work"
work=$(readlink -f "$work")
buildah() {
  command buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"
}
fail() {
  echo "build_image: $*" >&2
  exit 1
}

containers=()
clean_up() {
  if ((${#containers[@]} > 0)); then
    buildah rm "${containers[@]}" >/dev/null || true
  fi
}
trap clean_up EXIT

base=$work/bookworm.tar
if [[ ! -s $base ]]; then
  mmdebstrap --variant=minbase bookworm "$base.part"
  mv "$base.part" "$base"
fi
if ! buildah inspect --type image docker.io/library/debian:bookworm-slim >/dev/null 2>&1; then
  container=$(buildah from scratch)
  containers+=("$container")
  buildah add --quiet "$container" "$base" /
  buildah commit --quiet "$container" docker.io/library/debian:bookworm-slim
fi

buildah bud --isolation chroot --pull=never --format docker -f docker/Dockerfile -t sluice-image-test .

buildah inspect --type image sluice-image-test | /usr/bin/python3 -c '
import json, sys
config = json.load(sys.stdin)["Docker"]["config"]
wanted = {"User": "10001:10001", "StopSignal": "SIGTERM", "Entrypoint": ["sluice"]}
for key, value in wanted.items():
    assert config[key] == value, (key, config[key])
assert config["Healthcheck"]["Test"] == ["CMD", "sluice", "healthcheck"], config["Healthcheck"]
' || fail "the image is not configured as the Dockerfile says"

container=$(buildah from --pull-never sluice-image-test)
containers+=("$container")
in_image() {
  buildah run --isolation chroot "$container" -- "$@"
}
in_image sluice version
[[ $(in_image id -u) == 10001 ]] || fail "does not run as user 10001"
status=0
in_image sluice run -c /no/such/file || status=$?
((status == 78)) || fail "a missing configuration gives exit status $status, not 78"
echo "the image builds and its binary runs"
