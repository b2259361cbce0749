#!/bin/sh
# setup/venv.sh FOLDER LOCK: a virtual environment of Python 3.11 with exactly what LOCK names, each file by its hash.
#
# uv installs it, several times as fast as pip; uv itself is installed by pip, by its hash too (setup/requirements.txt).
# uv trusts whom the machine trusts, and is told what a pip.conf says of index, certificate and proxy, which it does not
# read. Where it cannot fetch all the same, pip does. Where there is no Python 3.11 but a uv on the PATH, uv brings one.
set -eu
folder=$1 lock=$2
here=$(dirname "$0")
export UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What is about to be emptied makes nothing: neither its Python nor its uv is taken.
case $PATH in "$PWD/$folder/bin:"*) PATH=${PATH#"$PWD/$folder/bin:"} ;; esac

is_3_11() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }

python= # a python3.11 on the PATH need not run: pyenv puts one there for versions that are switched off
for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3; do
  if is_3_11 "$candidate"; then python=$candidate; break; fi
  if test -n "${PYTHON:-}"; then break; fi # whoever names one wants no other
done

if test -n "$python"; then
  "$python" -m venv --clear "$folder"
elif test -z "${PYTHON:-}" && command -v uv >/dev/null; then
  echo "There is no Python 3.11 here; uv brings one"
  rm -rf "$folder" # a uv older than 0.8 has no --clear
  uv venv --quiet --seed --python 3.11 "$folder"
else
  found=$("${PYTHON:-python3}" --version 2>&1) || found="no ${PYTHON:-python3} that runs"
  echo "dml needs Python 3.11; found: $found. Install it, or uv (which then brings it)," \
    "or say where it is: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi
"$folder/bin/python" -m pip install --quiet --require-hashes -r "$here/requirements.txt"

settings=$("$folder/bin/python" -m pip config list) # a line each: global.cert='/etc/ssl/cert.pem'
told_to_pip() { printf '%s\n' "$settings" | sed -n "s/^[a-z:]*\.$1='\(.*\)'\$/\1/p" | head -n 1; }
hand_on() { if test -n "$2"; then export "$1=$2"; fi; }
hand_on UV_DEFAULT_INDEX "${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-$(told_to_pip index-url)}}"
hand_on SSL_CERT_FILE "${SSL_CERT_FILE:-$(told_to_pip cert)}"
hand_on HTTPS_PROXY "${HTTPS_PROXY:-${https_proxy:-$(told_to_pip proxy)}}"
export UV_SYSTEM_CERTS=1 # uv has a list of its own otherwise, which lacks a company's authority
if ! "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --require-hashes -r "$lock"; then
  echo "uv could not install $lock (above it says why); pip tries now" >&2
  "$folder/bin/python" -m pip install --quiet --require-hashes -r "$lock"
fi
