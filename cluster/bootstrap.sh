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
# --platform names the wheels' processor, so that pip takes them as they are, checked against the lock's hashes.
fetch wheels "$work/wheels"
python3.11 -m venv --clear "$home/python"
packages=$("$home/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$home/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-index --find-links "$work/wheels" \
  --require-hashes --no-deps --requirement "$work/wheels/requirements.txt" \
  --only-binary=:all: --python-version 3.11 --platform "$(cat "$work/wheels/platform")" --target "$packages" --upgrade \
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
bucket=${notebook#s3://} && prefix=${bucket#*/} && bucket=${bucket%%/*}
mkdir -p "$home/code/notes" && cd "$home/code/notes"
put() { # put NOTE KEY OPTION...: prints why it was refused
  aws s3api put-object --region "$region" --bucket "$bucket" --key "$2" --body "$1" --content-type application/json \
    --metadata "dml-seed=$sum" "${@:3}" 2>&1 >/dev/null
}
find . -name '*.zpln' -print0 | while IFS= read -r -d '' note; do
  key=$prefix${note#./}
  sum=$(sha256sum "$note" | cut -d ' ' -f 1)
  if refusal=$(put "$note" "$key" --if-none-match '*'); then
    say "new note s3://$bucket/$key"
    continue
  fi
  if [[ $refusal != *PreconditionFailed* && $refusal != *412* ]]; then
    say "could not write s3://$bucket/$key: $refusal"
    continue
  fi
  # Whatever Zeppelin saves has no such metadata: a note that still has ours is as we brought it, and may be replaced.
  read -r seed etag < <(aws s3api head-object --region "$region" --bucket "$bucket" --key "$key" \
    --query '[Metadata."dml-seed", ETag]' --output text) || { say "could not look at s3://$bucket/$key" && continue; }
  if [ "$seed" = None ] || [ "$seed" = "$sum" ]; then
    say "kept note s3://$bucket/$key"
  elif refusal=$(put "$note" "$key" --if-match "$etag"); then
    say "newer note s3://$bucket/$key"
  else
    say "kept note s3://$bucket/$key, which has just been edited"
  fi
done

# 4. Session Manager's agent, by which people reach Zeppelin: no port is open. Amazon Linux has it, EMR's image need not.
agent() { as_root systemctl enable --now amazon-ssm-agent; }
{ agent || { as_root dnf install -y --quiet amazon-ssm-agent && agent; }; } \
  || say "Session Manager's agent does not run: jobs do, but nobody reaches Zeppelin on this node"
