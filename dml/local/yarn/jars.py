"""Hadoop's YARN as jars: which they are, how they are had, and that they are the right ones; operator time.

All else that the daemons need, pip's pyspark has. The jars come by Ivy, which Spark resolves packages with and brings
along: from where Ivy looks by itself, or as the settings file says that DML_IVY_SETTINGS names. Whoever has them by
another way puts them into the folder. Either way only the bytes count.
"""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from dml.cdk import Progress
from dml.errors import UserError
from dml.local.spark.process import JAVA_MISSING, java_home, package

SETTINGS_VARIABLE = "DML_IVY_SETTINGS"
FETCH_SECONDS = 600
# The machine's own certificates for Java, where a distribution has them: a proxy of the company's is known there only.
TRUSTED = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")


class Jar(NamedTuple):
    """A jar of Maven, without what it depends on."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


# In the version of pyspark's own Hadoop jars. With Bouncy Castle the ResourceManager makes its certificate.
JARS = (
    Jar(
        "org.apache.hadoop",
        "hadoop-client-minicluster",
        "3.3.4",
        "cd8a1703393946c302bb3a52d0fcd23f6f8ded4554bc0dac5d2ee673dbe2b40e",
    ),
    Jar(
        "org.bouncycastle",
        "bcprov-jdk15on",
        "1.68",
        "f732a46c8de7e2232f2007c682a21d1f4cc8a8a0149b6b7bd6aa1afdc65a0f8d",
    ),
    Jar(
        "org.bouncycastle",
        "bcpkix-jdk15on",
        "1.68",
        "fb8d0f8f673ad6e16c604732093d7aa31b26ff4e0bd9cae1d7f99984c06b8a0f",
    ),
)


def ready(home: Path, on_progress: Progress) -> Path:
    """The folder with the jars, below `home`, fetched if they are not there. Raises UserError if they cannot be had."""
    folder = home.absolute() / "yarn"
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [jar for jar in JARS if not _is_right(folder / jar.name, jar)]:
        on_progress("fetching Hadoop's YARN, 44 MB, once")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _fetch(missing, Path(scratch), folder)
    return folder


def _fetch(jars: list[Jar], scratch: Path, folder: Path) -> None:
    java = java_home() / "bin" / "java"
    if not java.is_file():
        raise UserError(f"Java is missing: there is no {java}. {JAVA_MISSING}")
    (scratch / "ivy.xml").write_text(ivy_module(jars))
    settings = os.environ.get(SETTINGS_VARIABLE)
    command = [
        str(java),
        *("-Dsun.net.client.defaultConnectTimeout=20000", "-Dsun.net.client.defaultReadTimeout=60000"),  # milliseconds
        *(f"-Djavax.net.ssl.trustStore={store}" for store in TRUSTED if Path(store).is_file()),
        *("-jar", str(next((package("pyspark") / "jars").glob("ivy-*.jar")))),
        *(("-settings", settings) if settings else ("-m2compatible",)),
        *("-cache", str(scratch / "cache"), "-ivy", str(scratch / "ivy.xml"), "-confs", "default"),
        *("-retrieve", f"{scratch}/[artifact]-[revision].[ext]"),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UserError(_way_out(f"they did not come within {FETCH_SECONDS // 60} minutes", folder)) from None
    for jar in jars:
        got = scratch / jar.name
        if not got.is_file():
            raise UserError(_way_out(why(done.stdout + done.stderr), folder))
        if not _is_right(got, jar):
            raise UserError(_way_out(f"what came as {jar.name} has another SHA-256 than {jar.sha256}", folder))
        got.rename(folder / jar.name)


def ivy_module(jars: list[Jar]) -> str:
    """An ivy.xml that asks for these jars and for nothing that they depend on."""
    wanted = "".join(
        f"<dependency org={quoteattr(jar.group)} name={quoteattr(jar.artifact)} rev={quoteattr(jar.version)} "
        'transitive="false" conf="default->default"/>'
        for jar in jars
    )
    return (
        '<ivy-module version="2.0"><info organisation="dml" module="yarn"/>'
        f"<dependencies>{wanted}</dependencies></ivy-module>"
    )


def why(said: str) -> str:
    """The reason out of what Ivy has printed: the first error, else its last words."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = lines[lines.index(":::: ERRORS") + 1 :] if ":::: ERRORS" in lines else []
    return next(iter(errors), lines[-1] if lines else "Ivy said nothing")


def _is_right(file: Path, jar: Jar) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == jar.sha256


def _way_out(reason: str, folder: Path) -> str:
    names = ", ".join(f"{jar.group}:{jar.artifact}:{jar.version}" for jar in JARS)
    return (
        f"The jars of Hadoop's YARN cannot be had: {reason}. If a mirror of Maven's is to be asked, name its Ivy "
        f"settings file in {SETTINGS_VARIABLE}; or put the jars into {folder} yourself ({names}, each by "
        f"`mvn dependency:copy -Dartifact=GROUP:NAME:VERSION -DoutputDirectory={folder}`). "
        "Without --yarn the same steps run on local Spark."
    )
