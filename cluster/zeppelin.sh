#!/usr/bin/env bash
# EMR runs this on every node of the workbench, after bootstrap.sh and before it installs Zeppelin: on the primary node
# Zeppelin asks for a login from its first start on. Usage: zeppelin.sh PARAMETER_PATH REGION
#
# shiro.ini is what has Zeppelin ask (Zeppelin 0.11, "Apache Shiro authentication"). It is made here of the environment's
# secret, whose ARN the parameter login has, and a drop-in of Zeppelin's unit (systemd.unit(5)) puts it into Zeppelin's
# folder of settings right before each start: there is no Zeppelin without it, and one that cannot have it does not start.
# Unit and folder are called as AWS shows them (re:Post, "How do I restart a service in Amazon EMR?": zeppelin.service,
# started with --config /etc/zeppelin/conf).
set -euo pipefail

parameters=${1:?usage: zeppelin.sh PARAMETER_PATH REGION}
region=${2:?usage: zeppelin.sh PARAMETER_PATH REGION}
home=${DML_HOME:-/opt/dml}
instance=${DML_INSTANCE_INFO:-/mnt/var/lib/info/instance.json}
units=${DML_UNITS:-/etc/systemd/system}

fail() { echo "dml zeppelin: $*" >&2; exit 1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

[ -r "$instance" ] || fail "$instance is missing: EMR says there which node is the primary one"
grep -q '"isMaster"[[:space:]]*:[[:space:]]*true' "$instance" || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077
"$home/python/bin/python" - "$parameters/login" "$region" > "$work/shiro.ini" <<'PY' || fail "no login is made, and without one Zeppelin must not run"
import base64
import hashlib
import json
import os
import sys

import boto3

name, region = sys.argv[1:]
arn = boto3.client("ssm", region_name=region).get_parameter(Name=name)["Parameter"]["Value"]
secret = boto3.client("secretsmanager", region_name=region).get_secret_value(SecretId=arn)
login = json.loads(secret["SecretString"])

# Shiro's own form of a hashed password (Shiro 1.10: Shiro1CryptFormat, SimpleHash): what it reads from a file it need
# not be able to tell. As many rounds as Shiro makes itself (DefaultPasswordService).
rounds, salt = 500_000, os.urandom(16)
digest = hashlib.sha256(salt + login["password"].encode()).digest()
for _ in range(rounds - 1):
    digest = hashlib.sha256(digest).digest()
salted, hashed = (base64.b64encode(part).decode() for part in (salt, digest))

print(f"""# Made by cluster/zeppelin.sh when this node started. Shiro reads it when Zeppelin starts.
[users]
{login["user"]} = $shiro1$SHA-256${rounds}${salted}${hashed}, analyst

[main]
passwordMatcher = org.apache.shiro.authc.credential.PasswordMatcher
iniRealm.credentialsMatcher = $passwordMatcher
sessionManager = org.apache.shiro.web.session.mgt.DefaultWebSessionManager
cookie = org.apache.shiro.web.servlet.SimpleCookie
cookie.name = JSESSIONID
cookie.httpOnly = true
# No page of another site has a browser send it. Pages of other ports of localhost are of the same site.
cookie.sameSite = STRICT
sessionManager.sessionIdCookie = $cookie
securityManager.sessionManager = $sessionManager
# A day, in milliseconds.
securityManager.sessionManager.globalSessionTimeout = 86400000
shiro.loginUrl = /api/login

[roles]
analyst = *

[urls]
/api/version = anon
/** = authc""")
PY

as_root mkdir -p "$home/zeppelin" "$units/zeppelin.service.d"
as_root install -m 0600 "$work/shiro.ini" "$home/zeppelin/shiro.ini"
umask 022
cat > "$work/login.conf" <<UNIT
# Made by cluster/zeppelin.sh: no start without a login.
[Service]
ExecStartPre=+/usr/bin/install -o zeppelin -g zeppelin -m 0400 $home/zeppelin/shiro.ini /etc/zeppelin/conf/shiro.ini
UNIT
as_root install -m 0644 "$work/login.conf" "$units/zeppelin.service.d/login.conf"
echo "dml zeppelin: a login is asked for from Zeppelin's first start on"
