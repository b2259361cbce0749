#!/usr/bin/env bash
# EMR runs this on every node before Spark starts: our Python with the locked packages, our code beside them, and on the
# primary node the Zeppelin notes and the way to reach Zeppelin. Usage: bootstrap.sh PARAMETER_PATH REGION
#
# The script and its arguments stay the same from deploy to deploy, because a changed bootstrap action replaces the cluster.
# What does change is found through SSM parameters below PARAMETER_PATH: wheels and code (zips), notebook (where notes live), and
# below datasets/ one for each dataset (a zip with its settings and its notes).
set -euo pipefail

parameters=${1:?usage: bootstrap.sh PARAMETER_PATH REGION}
region=${2:?usage: bootstrap.sh PARAMETER_PATH REGION}
home=${DML_HOME:-/opt/dml}
instance=${DML_INSTANCE_INFO:-/mnt/var/lib/info/instance.json}

say() { echo "dml bootstrap: $*"; }
complain() { echo "dml bootstrap: $*" >&2; }
fail() { complain "$@"; exit 1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

parameter() {
  aws ssm get-parameter --region "$region" --name "$parameters/$1" --query Parameter.Value --output text \
    || fail "could not read the SSM parameter $parameters/$1 in $region: is the cluster stack deployed, may this node read it?"
}

# unpack URI DIRECTORY
unpack() {
  aws s3 cp --region "$region" --only-show-errors "$1" "$work/fetched.zip" || { complain "could not fetch $1"; return 1; }
  mkdir -p "$2"
  python3.11 -m zipfile -e "$work/fetched.zip" "$2" || { complain "$1 is not a zip file"; return 1; }
}

# fetch NAME DIRECTORY: unpack the zip that the parameter NAME points at
fetch() {
  local uri
  uri=$(parameter "$1")
  say "$1 from $uri"
  unpack "$uri" "$2" || exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
as_root mkdir -p "$home"
as_root chown "$(id -u)" "$home"

# 1. Python. Whether EMR's image has 3.11 before EMR installs the applications, no document says; Amazon Linux 2023 has it
# as a package, from a bucket in S3 that private subnets reach by NAT or by the gateway endpoint.
if ! python3.11 -c '' 2>/dev/null; then
  say "python3.11 is not here yet: from the distribution"
  as_root dnf install -y --quiet python3.11 && python3.11 -c '' \
    || fail "python3.11 is not on this image, and dnf could not install it: do the route tables of this subnet lead to S3?"
fi
# --platform names the wheels' processor, so that pip takes them as they are, checked against the lock's hashes: a line each.
fetch wheels "$work/wheels"
# pip is one of the wheels and runs as it lies there, which it provides for (pip/__main__.py): to install one into the
# venv takes longer than all the rest.
python3.11 -m venv --without-pip --clear "$home/python"
packages=$("$home/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pip=$(echo "$work"/wheels/pip-*.whl)
"$home/python/bin/python" "$pip/pip" install --quiet --disable-pip-version-check --no-compile --no-index --find-links "$work/wheels" \
  --require-hashes --no-deps --requirement "$work/wheels/requirements.txt" \
  --only-binary=:all: --python-version 3.11 $(sed 's/^/--platform /' "$work/wheels/platform") --target "$packages" --upgrade \
  || fail "pip could not install the locked wheels"

# 2. Code. A job brings its own newer copy by --py-files, which comes first on Python's path; notes import this one.
rm -rf "$home/code"
fetch code "$home/code"
echo "$home/code" > "$packages/dml.pth"
as_root chmod -R a+rX "$home"
say "$home/python is ready"

# 3. Each dataset's settings and notes, on the primary node. A note that an analyst has edited stays. What cannot be brought is
# said to be so: jobs need none of it.
[ -r "$instance" ] || fail "$instance is missing: EMR says there which node is the primary one"
grep -q '"isMaster"[[:space:]]*:[[:space:]]*true' "$instance" || exit 0
aws ssm get-parameters-by-path --region "$region" --path "$parameters/datasets" --query 'Parameters[].Value' --output text \
  > "$work/datasets" || complain "could not read the SSM parameters below $parameters/datasets: no dataset's notes are brought"
for uri in $(cat "$work/datasets"); do
  say "a dataset from $uri"
  unpack "$uri" "$home/code" || say "its notes and settings are not on this node"
done
as_root chmod -R a+rX "$home/code"
notebook=$(parameter notebook)
mkdir -p "$home/code/notes"
"$home/python/bin/python" - "$region" "$notebook" "$home/code/notes" <<'PY' || complain "notes are not brought: jobs need none"
# By boto3, which comes with our wheels: not every AWS CLI knows conditional writes.
import hashlib
import sys
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

region, place, notes = sys.argv[1:]
bucket, _, prefix = place.removeprefix("s3://").partition("/")
s3 = boto3.client("s3", region_name=region)


def put(key, body, seed, **condition):
    """Whether it is written; False if the note is another one than the condition says."""
    given = {"ContentType": "application/json", "Metadata": {"dml-seed": seed}, **condition}
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, **given)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
            return False
        raise
    return True


def bring(note):
    """What became of one note. Whatever Zeppelin saves has no such metadata: one that has ours may be replaced."""
    body, key = note.read_bytes(), prefix + note.relative_to(notes).as_posix()
    seed, shown = hashlib.sha256(body).hexdigest(), f"s3://{bucket}/{key}"
    try:
        if put(key, body, seed, IfNoneMatch="*"):
            return f"new note {shown}"
        there = s3.head_object(Bucket=bucket, Key=key)
        if there["Metadata"].get("dml-seed", seed) == seed:
            return f"kept note {shown}"
        if put(key, body, seed, IfMatch=there["ETag"]):
            return f"newer note {shown}"
    except ClientError as error:
        return f"could not bring {shown}: {error}"
    return f"kept note {shown}, which has just been edited"


for note in sorted(Path(notes).rglob("*.zpln")):
    print(f"dml bootstrap: {bring(note)}", flush=True)
PY

# 4. Session Manager's agent, by which people reach Zeppelin: no port is open. Amazon Linux has it, EMR's image need not.
agent() { as_root systemctl enable --now amazon-ssm-agent; }
{ agent || { as_root dnf install -y --quiet amazon-ssm-agent && agent; }; } \
  || say "Session Manager's agent does not run: jobs do, but nobody reaches Zeppelin on this node"
