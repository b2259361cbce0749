#!/bin/sh
# setup/venv.sh FOLDER LOCK: a virtual environment of Python 3.11 with exactly what LOCK names, each file by its hash.
#
# uv installs it, several times as fast as pip; uv itself is installed by pip, by its hash too (setup/requirements.txt).
# Where uv cannot fetch (a pip.conf behind a company's proxy says things that only pip knows), pip does. Where there is
# no Python 3.11 but a uv on the PATH, uv brings one.
set -eu
folder=$1 lock=$2
here=$(dirname "$0")
export UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1

is_3_11() { test -n "$1" && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
if is_3_11 "$python"; then
  "$python" -m venv --clear "$folder"
  "$folder/bin/pip" install --quiet --require-hashes -r "$here/requirements.txt"
elif test -z "${PYTHON:-}" && command -v uv >/dev/null; then
  echo "There is no Python 3.11 here; uv brings one"
  uv venv --quiet --clear --seed --python 3.11 "$folder"
  "$folder/bin/pip" install --quiet --require-hashes -r "$here/requirements.txt"
else
  echo "dml needs Python 3.11; found: $("${python:-python3}" --version 2>&1 || echo none). Install it, or uv" \
    "(which then brings it), or say where it is: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi
if ! "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --require-hashes -r "$lock"; then
  echo "uv could not install $lock (above it says why); pip, which knows your pip.conf, tries now" >&2
  "$folder/bin/pip" install --quiet --require-hashes -r "$lock"
fi
