"""What a job of EMR or Glue says to spark-submit: what of it counts on this machine, and what is not there for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Options of spark-submit 3.5 (org.apache.spark.launcher.SparkSubmitOptionParser); all others take a value.
FLAGS = frozenset({"--help", "-h", "--supervise", "--usage-error", "--verbose", "-v", "--version"})
# What sizes or places a job on a cluster means nothing here: Spark is one process, as large as this machine allows.
CLUSTER_OPTIONS = frozenset(
    {
        "--master",
        "--deploy-mode",
        "--num-executors",
        "--executor-memory",
        "--executor-cores",
        "--total-executor-cores",
        "--driver-memory",
        "--driver-cores",
        "--driver-java-options",
        "--driver-library-path",
        "--driver-class-path",
        "--queue",
        "--principal",
        "--keytab",
        "--proxy-user",
        "--supervise",
    }
)
CLUSTER_SETTINGS = (
    "spark.master",
    "spark.submit.deployMode",
    "spark.yarn.",
    "spark.executor.",
    "spark.executorEnv.",
    "spark.dynamicAllocation.",
    "spark.shuffle.service.",
    "spark.pyspark.",
    "spark.driver.",
    "spark.hadoop.fs.s3",
    "spark.hadoop.fs.viewfs.",
)
# What names files to Spark: a list with commas, each with the name that it is to have behind a "#".
FILE_OPTIONS = ("--py-files", "--jars", "--files", "--archives", "--properties-file")
FILE_SETTINGS = ("spark.jars", "spark.files", "spark.archives", "spark.submit.pyFiles")
# What has Spark fetch libraries from the internet.
MAVEN = ("--packages", "--repositories", "spark.jars.packages", "spark.jars.repositories", "spark.jars.ivySettings")
S3 = ("s3", "s3a", "s3n")


def parsed(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options of a spark-submit with their values (none if it is a flag), and the application with its own."""
    options: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option not in FLAGS and not equals and rest:
            value = rest.pop(0)
        options.append(("--conf" if option == "-c" else option, value))
    return options, rest


def submit_arguments(arguments: Sequence[str], defaults: Mapping[str, str], fixed: Mapping[str, str]) -> list[str]:
    """spark-submit's arguments for this machine: cluster-only options dropped, the application's own left as they are.

    Of two settings for one key spark-submit takes the later: `defaults` come first, then the job's own, then `fixed`.
    """
    options, application = parsed(arguments)
    kept: list[str] = []
    for option, value in options:
        if option in CLUSTER_OPTIONS or (option == "--conf" and value.startswith(CLUSTER_SETTINGS)):
            continue
        kept += [option] if option in FLAGS else [option, value]
    return [*as_options(defaults), *kept, *as_options(fixed), *application]


def as_options(settings: Mapping[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]


def missing_file(arguments: Sequence[str], shipped: Path | None) -> str:
    """Why a submission cannot have one of the files that it names, or nothing.

    A cluster has what lies in S3 and what its own node has below `shipped`; this machine's files are not there. Hadoop
    says it in these words where YARN takes a job's files up.
    """
    options, application = parsed(arguments)
    named = application[:1]
    for option, value in options:
        name, _, setting = value.partition("=") if option == "--conf" else (option, "", value)
        if name.strip() in MAVEN:
            return (
                f"{name} {setting}: the embedded cloud fetches nothing from Maven. Upload the jars to S3: --jars s3://"
            )
        if name.strip() in (*FILE_OPTIONS, *FILE_SETTINGS):
            named += setting.split(",")
    for name in filter(None, (name.strip() for name in named)):
        if not _is_there(name, shipped):
            shown = name.replace("file://", "file:") if ":" in name.partition("/")[0] else f"file:{name}"
            return (
                f"java.io.FileNotFoundException: File {shown} does not exist. "
                "A job has no files of this machine: upload it to S3 and name it s3://BUCKET/KEY."
            )
    return ""


def _is_there(name: str, shipped: Path | None) -> bool:
    """Whether it is in S3, as far as its name says, or a file of the node."""
    url = urlsplit(name)
    if url.scheme in S3:
        return True
    if shipped is None or url.scheme not in ("", "file") or url.netloc:
        return False
    path = Path(unquote(url.path) if url.scheme else name.partition("#")[0])
    return path.is_absolute() and path.is_file() and path.resolve().is_relative_to(shipped.resolve())
