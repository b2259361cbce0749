"""A dataset's state machine as Step Functions reads it (Amazon States Language, JSONata). Plain data, made at synth.

A state is named "stage: what it does"; the CLI shows the part before the colon. What later states need travels in
variables ($run_id, $cluster_id ...), never in inputs. Whatever fails sets $failure and goes the one way out:

    clean up: end the transient cluster, if there is one -> notify: say which stage failed and why -> end: fail

A failed run can be redriven (RedriveExecution): it goes on at the stage that failed, under the same run id.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stacks.arguments import faults
from stacks.outputs import CERTIFICATE_END

State = dict[str, Any]

POLL_SECONDS = 20
CRAWL_MINUTES = 60
CRAWL_POLLS = CRAWL_MINUTES * 60 // POLL_SECONDS
CLUSTER_MINUTES = 40  # a small cluster takes 5 to 10
THROTTLED_POLLS = 15  # five minutes
CLUSTER_POLLS = CLUSTER_MINUTES * 60 // POLL_SECONDS
OTHER_CRAWL_SECONDS = 60
OTHER_CRAWL_POLLS = 60  # an hour

CRAWL = "crawl: note the last crawl"
TODO = "begin: what is to be done?"
CLUSTER = "cluster: look up the workbench"
CERTIFIED = "cluster: read until when the certificate is valid"
NETWORK = "cluster: look up the network"
CREATE = "cluster: create a transient one"
SKIP = "notify: nothing was done"
TOLD = "clean up: read what the job says"
REASONS = "clean up: read the reason"
CLEAN_UP = "clean up: is there a transient cluster?"
REPORT = "notify: how did it go?"
END = "end: fail, or go on if redriven"
RESUME = "end: where does it go on?"
FAILED = "failed"

# What a run tells CloudWatch, for the dashboard and the alarm on quarantined rows.
NAMESPACE = "dml"
ROWS = "RowsPrepared"
QUARANTINED_SHARE = "QuarantinedShare"

# Worth another try: the service was busy, not wrong. Anything else would only fail twice.
BUSY = [
    "Glue.ConcurrentRunsExceededException",
    "Glue.InternalServiceException",
    "Glue.OperationTimeoutException",
    "Glue.ResourceNumberLimitExceededException",
    "Glue.ThrottlingException",
    "CloudWatch.InternalServiceException",
    "ElasticMapReduce.InternalServerErrorException",
    "ElasticMapReduce.InternalServerException",
    "Emr.InternalServerErrorException",
    "Emr.InternalServerException",
    "S3.SdkClientException",
    "SNS.InternalErrorException",
    "SNS.ThrottledException",
    "Ssm.InternalServerErrorException",
    "Ssm.ThrottlingException",
]
BUSY_RETRY = {
    "ErrorEquals": BUSY,
    "IntervalSeconds": 30,
    "BackoffRate": 2,
    "MaxAttempts": 5,
    "MaxDelaySeconds": 300,
    "JitterStrategy": "FULL",
}
# EMR's throttling is no error of its own: as a step is added or a cluster made, it has the name of all that EMR's model
# does not know. Missing permissions have it too, so these few tries are all.
EMR_RETRY = {
    "ErrorEquals": ["ElasticMapReduce.AmazonElasticMapReduceException"],
    "IntervalSeconds": 20,
    "BackoffRate": 2,
    "MaxAttempts": 3,
    "JitterStrategy": "FULL",
}
NO_PARAMETER = "Ssm.ParameterNotFoundException"
# What the schedule gives as its revision (stacks/pipeline.py): a run that nobody is waiting for.
SCHEDULED = "$do = 'run' and $revision = 'scheduled'"
# Where the cause is at hand, it tells them apart.
THROTTLED = "$contains($failure.cause, /Rate exceeded|Throttling/)"
FORGOTTEN = "$contains($failure.cause, /not authorized|AccessDenied/)"
# For ending a cluster only: it can be asked for twice, and one that is left over costs more than waiting does.
ANY_RETRY = {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 10, "BackoffRate": 2, "MaxAttempts": 3}
TOO_LARGE = "States.DataLimitExceeded"
# What went wrong, in a catcher. `end` keeps States.Timeout for itself.
ERROR = "{% $states.errorOutput.Error = 'States.Timeout' ? 'TimedOut' : $states.errorOutput.Error %}"
# Why a Task could not call itself back.
CALLBACK_ERRORS = [
    "Sfn.InvalidTokenException",
    "Sfn.SfnException",
    "Sfn.TaskDoesNotExistException",
    "Sfn.TaskTimedOutException",
    "Sfn.ValidationException",
]

# Where a step's own job has not said why it failed. What follows from each is to be read here, without a log at hand.
UNTOLD = {
    "SILENT": "its job ended before it could say why: its container was over its memory or its machine was lost, most"
    " likely. Read the log; then go on with larger machines (instance_types), or redrive",
    "KILLED": "its application was killed on the cluster, by hand or with the cluster; redrive the run",
    "NEVER": ". What the step asks for is not there or not allowed: mend that, deploy if need be, and redrive",
    "UNKNOWN": "EMR says Unknown Error, and its job said nothing: it was killed before it could, or never started. Read"
    " the log, which EMR archives some minutes after the end",
}
# The reason: what the job itself says in failure.json ($failure.told), else what the service says in $failure.cause:
# Glue's ErrorMessage, or a step's FailureDetails, or the cause itself; with the ids by which logs are found. Regular
# expressions, not $parse: a cause may be cut off, and an error here would end the run uncleaned. \x5c is a backslash,
# \x7b a brace: JSONata's scanner miscounts brackets beside escaped characters. A step that fails tells no more than its
# spark-submit knows: EMR's FailureDetails have the Reason `Unknown Error.` and, if any, its last error as Message.
REASON = re.sub(
    r"\s+|\b(?:SILENT|KILLED|NEVER|UNKNOWN)\b",
    lambda found: f"'{UNTOLD[found[0]]}'" if found[0] in UNTOLD else " ",
    r"""(
      $cause := $failure.cause;
      $told := $failure.told.stage = $failure.stage ? $failure.told;
      $glue := $match($cause, /"ErrorMessage"\s*:\s*"((?:[^\x5c"]|\x5c.)+)"/, 1).groups[0];
      $details := $match($cause, /"FailureDetails"\s*:\s*\x7b(.*)/, 1).groups[0];
      $message := $match($details, /"Message"\s*:\s*"((?:[^\x5c"]|\x5c.)+)"/, 1).groups[0];
      $step := $match($details, /"Reason"\s*:\s*"((?:[^\x5c"]|\x5c.)+)"/, 1).groups[0];
      $state := $match($cause, /"(?:JobRunState|State)"\s*:\s*"([A-Z_]+)"/, 1).groups[0];
      $why := $match($cause, /"StateChangeReason"\s*:\s*\x7b\s*"Message"\s*:\s*"((?:[^\x5c"]|\x5c.)+)"/, 1).groups[0];
      $id := $match($cause, /"(?:JobRunId|StepId|Id)"\s*:\s*"((?:jr_|s-)[0-9A-Za-z]+)"/, 1).groups[0];
      $log := $match($cause, /"LogFile"\s*:\s*"([^"]+)"/, 1).groups[0];
      $submitted := $match($message, /Application (application_[0-9]+_[0-9]+) /, 1).groups[0];
      $ended := $exists($state) ? 'it ended as ' & $state & ($exists($why) ? ': ' & $why : '') : $step;
      $quoted := $exists($glue) ? $glue
        : $contains($message, /Application application_[0-9_]+ finished with failed status/) ? SILENT
        : $contains($message, /Application application_[0-9_]+ is killed/) ? KILLED
        : $contains($message, /^Exception in thread/)
          ? 'it did not start: ' & $replace($message, /^Exception in thread .*?" /, '') & NEVER
        : $exists($message) ? $message
        : $step = 'Unknown Error.' ? UNKNOWN
        : $exists($step) ? $step : $ended;
      $reason := $exists($told) ? $told.sentence
        : $exists($quoted) ? $replace($replace($quoted, /\x5c[nrt]/, ' '), /\x5c(.)/, '$1') : $cause;
      $place := $told.log and $told.log != '' ? $failure.logs & $told.log
        : $exists($log) ? $log
        : $exists($id) and $contains($id, /^s-/) and $exists($failure.logs)
          ? $failure.logs & 'steps/' & $id & '/stderr.gz';
      $substring($reason, 0, 4000)
        & ($exists($id) ? ' [' & $id & ']' : '')
        & ($exists($submitted) and $not($exists($told)) ? ' [' & $submitted & ']' : '')
        & ($exists($place) ? ' (log: ' & $place & ')' : '')
        & ($exists($unread) and $unread != '' ? ' (failure.json could not be read: ' & $unread & ')' : '')
    )""",
)
# How often this execution has been redriven; Step Functions says so only once it has been.
REDRIVES = "($exists($states.context.Execution.RedriveCount) ? $states.context.Execution.RedriveCount : 0)"
# Told to each job: of each attempt it leaves another failure.json (jobs/job.py).
ATTEMPT = f"{{% $string({REDRIVES}) %}}"
# S3 answers 412 when CURRENT.json is no longer what it was, and 409 when another write is under way at this moment.
LOST = (
    "$contains($failure.error & ' ' & $failure.cause,"
    " /PreconditionFailed|ConditionalRequestConflict|Status Code: 4(12|09)/)"
)
LOST_RACE = "LostRace"  # the error's name
LOST_REASON = (
    "another run published first: its model stays, and this one is kept under its run id; run again to compare them"
)


@dataclass(frozen=True)
class Parts:
    """What the state machine of one dataset works with: names, ARNs and URIs, many of them known only when deployed."""

    environment: str
    dataset: str
    database: str
    crawler: str
    prepare_job: str
    lake_bucket: str
    models_bucket: str
    train_script: str
    predict_script: str
    py_files: str
    workbench_parameter: str
    network_parameter: str
    transient_cluster: Mapping[str, Any]  # runJobFlow's parameters
    topic_arn: str
    partition: str
    region: str
    prepare_minutes: int
    step_minutes: int
    figures: Sequence[str]  # which of the model's are sent to CloudWatch
    train_options: Sequence[str] = ()  # of spark-submit, for what the dataset's learner asks of executors
    certificate_bucket: str = ""  # where clusters find the certificate of their nodes; none if they need none


def definition(parts: Parts) -> dict[str, Any]:
    """The whole machine. Input: {"do": "run" | "predict", "revision"?: git's, "table"?: the table to score}."""
    stages = (begin, crawl, prepare, cluster, train, gate, publish, predict, clean_up, notify, end)
    states = {name: state for stage in stages for name, state in stage(parts).items()}
    for name, state in states.items():
        caught_already = any(catcher["ErrorEquals"] == ["States.ALL"] for catcher in state.get("Catch", []))
        if state["Type"] == "Task" and name != END and not caught_already:
            state["Catch"].append(caught(name.partition(":")[0]))
        last = state.get("Catch", [{}])[-1]
        if state["Type"] == "Task" and last["ErrorEquals"] == ["States.ALL"]:
            # The guide says that States.ALL does not catch it; nothing else may stand in one list with States.ALL.
            state["Catch"].insert(-1, last | {"ErrorEquals": [TOO_LARGE]})
    machine = {
        "Comment": f"From the raw data of {parts.dataset} to a published model and its predictions",
        "QueryLanguage": "JSONata",
        "StartAt": "begin: read the input",
        "TimeoutSeconds": longest_run(parts.prepare_minutes, parts.step_minutes),
        "States": states,
    }
    wrong = faults(machine)
    if wrong:
        raise ValueError(f"Step Functions would not take the state machine of {parts.dataset}: {' '.join(wrong)}")
    return machine


def longest_run(prepare_minutes: int, step_minutes: int) -> int:
    """Seconds after which a run times out; no cluster of a run may be older."""
    return (2 * prepare_minutes + 2 * step_minutes) * 60 + 4 * 3600


def cluster_of(name: str, dataset: str) -> str:
    """How a run's own cluster is called, up to the run's id; stacks/watch.py finds it by that."""
    return f"{name} of {dataset} "


# --- The stages, in the order in which they are gone through ---


def begin(parts: Parts) -> dict[str, State]:
    return {
        "begin: read the input": {
            "Type": "Pass",
            "Assign": {
                "run_id": "{% $states.context.Execution.Name %}",
                "do": f"{{% {given('$states.input.do', 'run')} %}}",
                "revision": f"{{% {given('$states.input.revision', 'unknown')} %}}",
                "table": f"{{% {given('$states.input.table', 'features')} %}}",
                "attempts": 0,
                "cluster_id": "",
                "transient": False,
                "trained": False,
                "published": False,
                "reasons": [],
                "unread": "",
                "failed": False,
                "redriven": False,
                "redrives": 0,
            },
            "Next": "begin: is there a network?",
        },
        "begin: is there a network?": look_up_network(
            parts, {"ErrorEquals": [NO_PARAMETER], "Next": "begin: was it started by the clock?"}, Next=TODO
        ),
        "begin: was it started by the clock?": choice(
            when(SCHEDULED, SKIP, reasons=[f"{parts.environment} is paused"]),
            refuse("begin", "Paused", f"'{parts.environment} is paused: bring it back with dml resume'"),
        ),
        TODO: choice(
            when(SCHEDULED, "begin: has there ever been a model?"),
            when("$do = 'run'", CRAWL),
            when("$do = 'predict'", CLUSTER),
            refuse("begin", "BadInput", "'the input says do: ' & $string($do) & ', but it can only be run or predict'"),
        ),
        # The first model is for somebody to look at: until there is one, the clock starts nothing that costs.
        "begin: has there ever been a model?": read(
            parts,
            parts.models_bucket,
            f"{parts.dataset}/CURRENT.json",
            Catch=[
                {
                    "ErrorEquals": ["S3.NoSuchKeyException"],
                    "Assign": {"reasons": ["no model has ever been published, and the first one is yours to start"]},
                    "Next": SKIP,
                }
            ],
            Next=CRAWL,
        ),
    }


def look_up_network(parts: Parts, paused: State, *, Next: str) -> State:
    """Where clusters are started. `dml pause` takes the parameter away with the network; `paused` is its catcher."""
    return task(
        parts,
        "aws-sdk:ssm:getParameter",
        Arguments={"Name": parts.network_parameter},
        TimeoutSeconds=60,
        Assign={"network": "{% $parse($states.result.Parameter.Value) %}"},
        Catch=[paused],
        Next=Next,
    )


def crawl(parts: Parts) -> dict[str, State]:
    """Start the crawler and wait for the end of *this* crawl: at first it may still show the one before."""
    crawler: State = {"Arguments": {"Name": parts.crawler}, "TimeoutSeconds": 60}
    last_crawl = "$states.result.Crawler.LastCrawl"
    started = given(f"$string({last_crawl}.StartTime)", "")
    somebody_elses = {
        "ErrorEquals": ["Glue.CrawlerRunningException"],
        "Assign": {"attempts": "{% $attempts + 1 %}"},
        "Next": "crawl: has somebody else's crawl time left?",
    }
    return {
        CRAWL: task(
            parts,
            "aws-sdk:glue:getCrawler",
            **crawler,
            Assign={"last_crawl": f"{{% {started} %}}"},
            Next="crawl: start the crawler",
        ),
        "crawl: start the crawler": task(
            parts,
            "aws-sdk:glue:startCrawler",
            **crawler,
            Assign={"attempts": 0},
            Catch=[somebody_elses],
            Next="crawl: wait",
        ),
        "crawl: has somebody else's crawl time left?": choice(
            when(f"$attempts <= {OTHER_CRAWL_POLLS}", "crawl: wait for somebody else's crawl"),
            refuse("crawl", "CrawlerBusy", "'the crawler is busy with another crawl that does not end'"),
        ),
        "crawl: wait for somebody else's crawl": wait(OTHER_CRAWL_SECONDS, CRAWL),
        "crawl: wait": wait(POLL_SECONDS, "crawl: ask how far it is"),
        "crawl: ask how far it is": task(
            parts,
            "aws-sdk:glue:getCrawler",
            **crawler,
            Assign={
                "attempts": "{% $attempts + 1 %}",
                "crawl_ended": f"{{% $states.result.Crawler.State = 'READY' and ({started}) != $last_crawl %}}",
                "crawl_status": f"{{% {given(f'{last_crawl}.Status', 'unknown')} %}}",
                "crawl_message": f"{{% {given(f'{last_crawl}.ErrorMessage', 'no reason')} %}}",
            },
            Next="crawl: has it ended?",
        ),
        "crawl: has it ended?": choice(
            when("$crawl_ended and $crawl_status = 'SUCCEEDED'", "prepare: run the Glue job"),
            refuse(
                "crawl", "CrawlFailed", "'the crawl ended as ' & $crawl_status & ': ' & $crawl_message", "$crawl_ended"
            ),
            when(f"$attempts < {CRAWL_POLLS}", "crawl: wait"),
            refuse("crawl", "CrawlTimedOut", f"'the crawl had not ended after {CRAWL_MINUTES} minutes'"),
        ),
    }


def slot_retry(parts: Parts) -> State:
    """Another run's job has the only slot: wait for it, as long as a job may take."""
    return {
        "ErrorEquals": ["Glue.ConcurrentRunsExceededException"],
        "IntervalSeconds": 60,
        "BackoffRate": 1,
        "MaxAttempts": parts.prepare_minutes + 15,
    }


def prepare(parts: Parts) -> dict[str, State]:
    """The Glue job; what doesn't change from run to run is among the job's own default arguments (stacks/etl.py)."""
    return {
        "prepare: run the Glue job": task(
            parts,
            "glue:startJobRun.sync",
            Arguments={
                "JobName": parts.prepare_job,
                "Arguments": {"--run-id": "{% $run_id %}", "--attempt": ATTEMPT},
            },
            TimeoutSeconds=parts.prepare_minutes * 60 + 900,  # the job's own time-out, and what it waits for machines
            Retry=[slot_retry(parts), BUSY_RETRY],
            Catch=[job_failed(parts, "prepare")],
            Next="prepare: read the counts",
        ),
        "prepare: read the counts": read(
            parts,
            parts.lake_bucket,
            f"{{% '{parts.dataset}/runs/' & $run_id & '/prepare.json' %}}",
            Assign={"counts": "{% $parse($states.result.Body) %}"},
            Next="prepare: send the counts",
        ),
        "prepare: send the counts": send_figures(
            parts,
            {
                ROWS: "$counts.rows_out",
                QUARANTINED_SHARE: "$counts.quarantined / $max([1, $sum($counts.tables.*.rows)])",
            },
            Next=CLUSTER,
        ),
    }


def cluster(parts: Parts) -> dict[str, State]:
    """The workbench if it is up or coming up, else a transient cluster.

    runJobFlow takes every field of a cluster, createCluster a closed list. And a loop of our own waits for it: so the
    cluster's id is known from its first moment, and whatever goes wrong while it starts, it can be ended.
    """
    create = CERTIFIED if parts.certificate_bucket else NETWORK
    named = cluster_of(parts.transient_cluster["Name"], parts.dataset)
    paused = {  # while the run was at work, or before it was redriven
        "ErrorEquals": [NO_PARAMETER],
        "Assign": {
            "failed": True,
            "failure": {
                "stage": "cluster",
                "error": "Paused",
                "reason": f"{parts.environment} is paused: bring it back with dml resume",
            },
        },
        "Next": CLEAN_UP,
    }
    begun = choice(
        when("$do = 'predict' or $published", "predict: add the step"),
        when("$trained", "gate: read the verdict"),  # a redriven run, which failed after its training
        otherwise="train: note the current model",
    )
    asked = {
        "cluster_state": "{% $states.result.Cluster.Status.State %}",
        "cluster_message": f"{{% {given('$states.result.Cluster.Status.StateChangeReason.Message', 'no reason')} %}}",
    }
    return {
        CLUSTER: task(
            parts,
            "aws-sdk:ssm:getParameter",
            Arguments={"Name": parts.workbench_parameter},
            TimeoutSeconds=60,
            Assign={"workbench": "{% $states.result.Parameter.Value %}", "attempts": 0},
            Catch=[paused],
            Next="cluster: is there a workbench?",
        ),
        "cluster: is there a workbench?": choice(
            when("$workbench = 'none'", create), otherwise="cluster: ask for the workbench"
        ),
        "cluster: ask for the workbench": task(
            parts,
            "aws-sdk:emr:describeCluster",
            Arguments={"ClusterId": "{% $workbench %}"},
            TimeoutSeconds=60,
            Assign=asked,
            # EMR forgets a cluster some weeks after its end; the parameter may still name it.
            Catch=[
                {"ErrorEquals": ["Emr.InvalidRequestException"], "Next": create},
                not_modelled("cluster: is the workbench forgotten?"),
            ],
            Next="cluster: is the workbench up?",
        ),
        # One that is forgotten has no tags, and by its tags alone it may be asked for: so access is denied.
        "cluster: is the workbench forgotten?": choice(
            when(FORGOTTEN, create),
            when(f"{THROTTLED} and $attempts < {THROTTLED_POLLS}", "cluster: wait for EMR"),
            when("true", REASONS, failed=True),
        ),
        "cluster: wait for EMR": wait(POLL_SECONDS, "cluster: ask for the workbench"),
        "cluster: is the workbench up?": choice(
            when(
                "$cluster_state in ['STARTING', 'BOOTSTRAPPING', 'RUNNING', 'WAITING']",
                "cluster: what is it for?",
                cluster_id="{% $workbench %}",
            ),
            otherwise=create,
        ),
        **(certified(parts) if parts.certificate_bucket else {}),
        NETWORK: look_up_network(parts, paused, Next=CREATE),
        CREATE: task(
            parts,
            "aws-sdk:emr:runJobFlow",
            Arguments={**parts.transient_cluster, "Name": f"{{% '{named}' & $run_id %}}"},
            TimeoutSeconds=300,
            Retry=[BUSY_RETRY, EMR_RETRY | {"ErrorEquals": ["Emr.EmrException"]}],
            Assign={"cluster_id": "{% $states.result.JobFlowId %}", "transient": True, "attempts": 0},
            Next="cluster: wait",
        ),
        "cluster: wait": wait(POLL_SECONDS, "cluster: ask how far it is"),
        "cluster: ask how far it is": task(
            parts,
            "aws-sdk:emr:describeCluster",
            Arguments={"ClusterId": "{% $cluster_id %}"},
            TimeoutSeconds=60,
            Assign={**asked, "attempts": "{% $attempts + 1 %}"},
            Catch=[not_modelled("cluster: may it be asked again?")],
            Next="cluster: is it up?",
        ),
        "cluster: may it be asked again?": choice(
            when(f"{THROTTLED} and $attempts < {CLUSTER_POLLS}", "cluster: wait"),
            when("true", REASONS, failed=True),
        ),
        "cluster: is it up?": choice(
            when("$cluster_state in ['RUNNING', 'WAITING']", "cluster: what is it for?"),
            refuse(
                "cluster",
                "ClusterFailed",
                "'the transient cluster ' & $cluster_id & ' did not start: ' & $cluster_message",
                "$not($cluster_state in ['STARTING', 'BOOTSTRAPPING'])",
            ),
            when(f"$attempts < {CLUSTER_POLLS}", "cluster: wait"),
            refuse(
                "cluster",
                "ClusterTimedOut",
                f"'the transient cluster ' & $cluster_id & ' was not up after {CLUSTER_MINUTES} minutes'",
            ),
        ),
        "cluster: what is it for?": begun,
    }


def certified(parts: Parts) -> dict[str, State]:
    """No cluster starts without a certificate, or with one that has run out: its nodes could not talk to each other.

    Its end is read from a file beside it: who may ask for the certificate itself may also read its private key.
    """
    way_out = f"make one: dml certificates --env {parts.environment}"
    none = f"there is no certificate for the nodes of clusters, or nothing at s3://{parts.certificate_bucket}/"
    now = "$toMillis($states.context.State.EnteredTime)"
    missing = {
        "stage": "cluster",
        "error": "NoCertificate",
        "reason": f"{none}{CERTIFICATE_END} says its end; {way_out}",
    }
    return {
        CERTIFIED: read(
            parts,
            parts.certificate_bucket,
            CERTIFICATE_END,
            Assign={"certificate_ends": "{% $parse($states.result.Body).expires %}"},
            Catch=[
                {
                    "ErrorEquals": ["S3.NoSuchKeyException"],
                    "Assign": {"failed": True, "failure": missing},
                    "Next": CLEAN_UP,
                }
            ],
            Next="cluster: is the certificate valid?",
        ),
        "cluster: is the certificate valid?": choice(
            refuse(
                "cluster",
                "CertificateExpired",
                f"'the certificate for the nodes of clusters ended on ' & $certificate_ends & '; {way_out}'",
                f"$toMillis($certificate_ends) <= {now}",
            ),
            otherwise=NETWORK,
        ),
    }


def train(parts: Parts) -> dict[str, State]:
    """Remember which model is current *before* training: publishing later succeeds only if it is still the same one.

    Its run id and place are noted too: they become the new model's `previous`, which `dml models rollback` reads.
    """
    return {
        "train: note the current model": read(
            parts,
            parts.models_bucket,
            f"{parts.dataset}/CURRENT.json",
            Assign={
                "current": "{% $states.result.ETag %}",
                "previous": "{% $parse($states.result.Body).{'run_id': run_id, 'model': model} %}",
            },
            Catch=[
                {
                    "ErrorEquals": ["S3.NoSuchKeyException"],
                    "Assign": {"current": "", "previous": {}},
                    "Next": "train: add the step",
                }
            ],
            Next="train: add the step",
        ),
        "train: add the step": step(
            parts,
            "train",
            parts.train_script,
            {
                "--dataset": parts.dataset,
                "--database": parts.database,
                "--models": f"s3://{parts.models_bucket}/",
                "--lake": f"s3://{parts.lake_bucket}/",
                "--run-id": "{% $run_id %}",
                "--revision": "{% $revision %}",
                "--region": parts.region,
            },
            options=parts.train_options,
            Assign={"trained": True},
            Next="gate: read the verdict",
        ),
    }


def gate(parts: Parts) -> dict[str, State]:
    return {
        "gate: read the verdict": read(
            parts,
            parts.models_bucket,
            f"{{% '{parts.dataset}/' & $run_id & '/gate.json' %}}",
            Assign={
                "passed": "{% $parse($states.result.Body).passed = true %}",
                "reasons": "{% $append([], $parse($states.result.Body).reasons) %}",
            },
            Next="gate: did the model pass?",
        ),
        "gate: did the model pass?": choice(when("$passed", "publish: read the figures"), otherwise=CLEAN_UP),
    }


def publish(parts: Parts) -> dict[str, State]:
    """Move CURRENT.json to this run, unless another run has moved it since training began.

    An answer of S3 can be lost when it has done the write; the next try then finds CURRENT.json moved, by this run
    itself. So whenever the write seems to have failed, who won is read.
    """
    place = {"Bucket": parts.models_bucket, "Key": f"{parts.dataset}/CURRENT.json", "ContentType": "application/json"}
    folder = f"s3://{parts.models_bucket}/{parts.dataset}/"
    body = {  # an object: a text would be stored as JSON too, in quotes
        "dataset": parts.dataset,
        "run_id": "{% $run_id %}",
        "model": f"{{% '{folder}' & $run_id & '/' %}}",
        "metrics": "{% $metrics %}",
        "previous": "{% $previous %}",
    }
    move: State = {
        "TimeoutSeconds": 60,
        "Assign": {"published": True},
        "Catch": [caught("publish") | {"Next": "publish: read whose model is current"}],
        "Next": "publish: send the figures",
    }
    return {
        "publish: read the figures": read(
            parts,
            parts.models_bucket,
            f"{{% '{parts.dataset}/' & $run_id & '/figures.json' %}}",
            Assign={"metrics": "{% $parse($states.result.Body) %}"},
            Next="publish: is it the first model?",
        ),
        "publish: is it the first model?": choice(
            when("$current = ''", "publish: the first model"), otherwise="publish: replace the current model"
        ),
        "publish: the first model": task(
            parts, "aws-sdk:s3:putObject", Arguments={**place, "Body": body, "IfNoneMatch": "*"}, **move
        ),
        "publish: replace the current model": task(
            parts, "aws-sdk:s3:putObject", Arguments={**place, "Body": body, "IfMatch": "{% $current %}"}, **move
        ),
        "publish: read whose model is current": read(
            parts,
            parts.models_bucket,
            place["Key"],
            Assign={"winner": "{% $parse($states.result.Body).run_id %}"},
            Catch=[{"ErrorEquals": ["States.ALL"], "Next": REASONS}],  # the run fails for what the write said
            Next="publish: is it this run's?",
        ),
        "publish: is it this run's?": choice(
            when("$winner = $run_id", "publish: send the figures", failed=False, published=True), otherwise=REASONS
        ),
        "publish: send the figures": send_figures(
            parts, {name: f"$metrics.{name}" for name in parts.figures}, Next="predict: add the step"
        ),
    }


def predict(parts: Parts) -> dict[str, State]:
    return {
        "predict: add the step": step(
            parts,
            "predict",
            parts.predict_script,
            {
                "--dataset": parts.dataset,
                "--database": parts.database,
                "--models": f"s3://{parts.models_bucket}/",
                "--lake": f"s3://{parts.lake_bucket}/",
                "--table": "{% $table %}",
                "--run-id": "{% $run_id %}",
                "--region": parts.region,
            },
            Next=CLEAN_UP,
        )
    }


def clean_up(parts: Parts) -> dict[str, State]:
    """Every way out leads through here. A cluster that cannot be ended is a failure, told with the first one."""
    first = "$failed ? ($exists($failure.first) ? $failure.first : $failure.stage) : 'clean up'"
    left = (
        "'the transient cluster ' & $cluster_id & ' could not be ended and costs money until it has idled for long: '"
        " & $states.errorOutput.Error"
        " & ($failed ? '. Before that, at stage ' & $failure.stage & ': ' & $failure.reason : '')"
    )
    stays = {
        "stage": "clean up",
        "first": f"{{% {first} %}}",  # where the run goes on when it is redriven and the cluster has ended
        "error": ERROR,
        "reason": f"{{% {left} %}}",
    }
    lost = f"$failure.stage = 'publish' and {LOST}"
    failure_file = f"{{% '{parts.dataset}/runs/' & $run_id & '/attempt-' & $failure.attempt & '/failure.json' %}}"
    told = "{'told': $parse($states.result.Body).{'stage': stage, 'sentence': sentence, 'log': log}}"
    return {
        TOLD: read(
            parts,
            parts.lake_bucket,
            failure_file,
            Assign={"failure": f"{{% $merge([$failure, {told}]) %}}"},
            Catch=[
                {"ErrorEquals": ["S3.NoSuchKeyException"], "Next": REASONS},  # it was killed, or never started
                {
                    "ErrorEquals": ["States.ALL"],
                    "Assign": {"unread": "{% $states.errorOutput.Error %}"},
                    "Next": REASONS,
                },
            ],
            Next=REASONS,
        ),
        REASONS: {
            "Type": "Pass",
            "Assign": {
                "failure": {
                    "stage": "{% $failure.stage %}",
                    "error": f"{{% {lost} ? '{LOST_RACE}' : $failure.error %}}",
                    "reason": f"{{% {lost} ? '{LOST_REASON}' : {REASON} %}}",
                }
            },
            "Next": CLEAN_UP,
        },
        CLEAN_UP: choice(when("$transient", "clean up: end the transient cluster"), otherwise=REPORT),
        "clean up: end the transient cluster": task(
            parts,
            "elasticmapreduce:terminateCluster",
            Arguments={"ClusterId": "{% $cluster_id %}"},
            TimeoutSeconds=300,
            Retry=[BUSY_RETRY, ANY_RETRY],
            Assign={"transient": False},
            Catch=[
                {
                    "ErrorEquals": ["States.ALL"],
                    "Assign": {"failed": True, "redriven": False, "failure": stays},
                    "Next": REPORT,
                }
            ],
            Next=REPORT,
        ),
    }


def notify(parts: Parts) -> dict[str, State]:
    who = f"dml {parts.environment} {parts.dataset}"

    def message(subject: str, text: str, **fields: Any) -> State:
        return task(
            parts,
            "sns:publish",
            Arguments={"TopicArn": parts.topic_arn, "Subject": f"{who}: {subject}", "Message": f"{{% {text} %}}"},
            TimeoutSeconds=60,
            **fields,
        )

    outcome = {
        "run_id": "{% $run_id %}",
        "do": "{% $do %}",
        "published": "{% $published %}",
        "reasons": "{% $reasons %}",
    }
    return {
        REPORT: choice(
            when("$redriven", RESUME),
            when("$failed", "notify: the failure"),
            when("$do = 'predict'", "notify: the predictions"),
            when("$published", "notify: the new model"),
            otherwise="notify: the gate's refusal",
        ),
        "notify: the new model": message(
            "a new model is published",
            "'Run ' & $run_id & ' has published its model and predictions. Its metrics: ' & $string($metrics)",
            Output=outcome,
            End=True,
        ),
        "notify: the gate's refusal": message(
            "the gate refused the model",
            "'The gate refused the model of ' & $run_id & ': ' & $join($reasons, '; ') & '. The current model stays.'",
            Output=outcome,
            End=True,
        ),
        "notify: the predictions": message(
            "predictions are written",
            "'Run ' & $run_id & ' has scored the table ' & $table & ' with the current model.'",
            Output=outcome,
            End=True,
        ),
        SKIP: message(
            "nothing was done",
            "'The scheduled run ' & $run_id & ' has ended at once: ' & $reasons[0] & '.'",
            Output=outcome,
            End=True,
        ),
        "notify: the failure": message(
            "a run failed",
            "'Run ' & $run_id & ' failed at stage ' & $failure.stage & ': ' & $failure.reason",
            Catch=[
                {"ErrorEquals": ["States.ALL"], "Next": END}
            ],  # nobody is told, but the run still fails for its own reason
            Next=END,
        ),
    }


def end(parts: Parts) -> dict[str, State]:
    """Fail in such a way that the run can be redriven.

    A redriven execution enters the state again in which it failed, and a Fail state can only fail again. So this is a
    Task, which waits for a callback and calls itself back: first with the run's failure, which nothing catches; if it
    is redriven, with an error that is caught and leads back to the stage that failed.
    """
    cause = "$failure.stage & ': ' & $failure.reason"
    again = {"failed": False, "redriven": False, "unread": "", "attempts": 0}
    stage = "($exists($failure.first) ? $failure.first : $failure.stage)"
    return {
        END: task(
            parts,
            "aws-sdk:sfn:sendTaskFailure.waitForTaskToken",
            Arguments={
                "TaskToken": "{% $states.context.Task.Token %}",
                "Error": f"{{% {REDRIVES} > $redrives ? 'Redriven' : $failure.error %}}",
                "Cause": f"{{% {cause} %}}",
            },
            TimeoutSeconds=60,
            Retry=[],  # the error is the run's own
            Catch=[
                {
                    "ErrorEquals": ["Redriven"],
                    "Assign": {"redriven": True, "redrives": f"{{% {REDRIVES} %}}"},
                    "Next": CLEAN_UP,
                },
                # It could not call itself back. The run fails all the same, only it cannot be redriven.
                {"ErrorEquals": ["States.Timeout", *CALLBACK_ERRORS], "Next": FAILED},
            ],
            End=True,  # never: no callback of success is sent
        ),
        RESUME: choice(
            # Its verdict was on a model that is no longer the current one: only another run can compare them.
            when(f"$failure.error = '{LOST_RACE}'", FAILED),
            when(f"{stage} in ['begin', 'crawl']", TODO, **again),
            when(f"{stage} = 'prepare'", "prepare: run the Glue job", **again),
            when(f"{stage} in ['clean up', 'notify']", REPORT, **again),
            when("true", CLUSTER, cluster_id="", **again),
        ),
        FAILED: {"Type": "Fail", "Error": "{% $failure.error %}", "Cause": f"{{% {cause} %}}"},
    }


# --- The kinds of states ---


def task(parts: Parts, action: str, *, Catch: list[State] | None = None, **fields: Any) -> State:
    """A call of a service, tried again when the service is busy. What else goes wrong `definition` catches."""
    return {
        "Type": "Task",
        "Resource": f"arn:{parts.partition}:states:::{action}",
        "Retry": [BUSY_RETRY],
        "Catch": list(Catch or ()),
        **fields,
    }


def read(parts: Parts, bucket: str, key: str, **fields: Any) -> State:
    """A small file in S3, whose text is then $states.result.Body."""
    return task(parts, "aws-sdk:s3:getObject", Arguments={"Bucket": bucket, "Key": key}, TimeoutSeconds=60, **fields)


def step(
    parts: Parts, name: str, script: str, arguments: Mapping[str, str], options: Sequence[str] = (), **fields: Any
) -> State:
    """spark-submit on the cluster, by a step that the run waits for."""
    # By its tag a later attempt of the run finds what a cancelled step leaves running (jobs/job.py).
    tag = ["--conf", "{% 'spark.yarn.tags=' & $run_id %}"]
    command = ["spark-submit", "--deploy-mode", "cluster", *tag, *options, "--py-files", parts.py_files, script]
    return task(
        parts,
        "elasticmapreduce:addStep.sync",
        Arguments={
            "ClusterId": "{% $cluster_id %}",
            "Step": {
                "Name": f"{{% '{name} {parts.dataset} ' & $run_id %}}",
                "ActionOnFailure": "CONTINUE",  # the workbench has other users; a transient cluster is ended by the run
                "HadoopJarStep": {
                    "Jar": "command-runner.jar",
                    "Args": [*command, *(part for pair in arguments.items() for part in pair), "--attempt", ATTEMPT],
                },
            },
        },
        TimeoutSeconds=parts.step_minutes * 60,
        Retry=[BUSY_RETRY, EMR_RETRY],
        Catch=[job_failed(parts, name)],
        **fields,
    )


def send_figures(parts: Parts, figures: Mapping[str, str], *, Next: str) -> State:
    """Send figures, as JSONata by name, to CloudWatch. A run doesn't fail for the dashboard's sake."""
    dimensions = [{"Name": "Environment", "Value": parts.environment}, {"Name": "Dataset", "Value": parts.dataset}]
    return task(
        parts,
        "aws-sdk:cloudwatch:putMetricData",
        Arguments={
            "Namespace": NAMESPACE,
            "MetricData": [
                {"MetricName": name, "Value": f"{{% {value} %}}", "Dimensions": dimensions}
                for name, value in figures.items()
            ],
        },
        TimeoutSeconds=60,
        Catch=[{"ErrorEquals": ["States.ALL"], "Next": Next}],
        Next=Next,
    )


def wait(seconds: int, then: str) -> State:
    return {"Type": "Wait", "Seconds": seconds, "Next": then}


def choice(*rules: State, otherwise: str | None = None) -> State:
    return {"Type": "Choice", "Choices": list(rules)} | ({"Default": otherwise} if otherwise else {})


def when(condition: str, then: str, **assign: Any) -> State:
    return {"Condition": f"{{% {condition} %}}", "Next": then} | ({"Assign": assign} if assign else {})


def given(expression: str, otherwise: str) -> str:
    """JSONata for what may not be there: reading it plainly would be an error, and not every state can catch one."""
    return f"$exists({expression}) ? {expression} : '{otherwise}'"


def refuse(stage: str, error: str, reason: str, condition: str = "true") -> State:
    """A rule by which a run fails that no service has failed. `reason` is JSONata."""
    return when(
        condition, CLEAN_UP, failed=True, failure={"stage": stage, "error": error, "reason": f"{{% {reason} %}}"}
    )


def not_modelled(then: str) -> State:
    """The catcher for an error of EMR that only its cause tells apart; $attempts counts these too."""
    failure = {"stage": "cluster", "error": ERROR, "cause": f"{{% {CAUSE} %}}"}
    return {
        "ErrorEquals": ["Emr.EmrException"],
        "Assign": {"failure": failure, "attempts": "{% $attempts + 1 %}"},
        "Next": then,
    }


CAUSE = given("$string($states.errorOutput.Cause)", "Step Functions gave no cause")


def caught(stage: str) -> State:
    """The catcher for whatever goes wrong in `stage`. After the clean-up only the run's own failure can tell of it."""
    failure = {"stage": stage, "error": ERROR}
    if stage == "notify":
        told = failure | {"reason": f"{{% {CAUSE} %}}"}
        return {"ErrorEquals": ["States.ALL"], "Assign": {"failed": True, "failure": told}, "Next": END}
    return {
        "ErrorEquals": ["States.ALL"],
        "Assign": {"failed": True, "failure": failure | {"cause": f"{{% {CAUSE} %}}"}},
        "Next": REASONS,
    }


def job_failed(parts: Parts, stage: str) -> State:
    """The catcher for a job's end in failure: first it is read what the job itself says, in this attempt's file."""
    catcher = caught(stage)
    failure = catcher["Assign"]["failure"] | {"attempt": ATTEMPT}
    if stage != "prepare":  # where EMR archives the cluster's logs
        failure["logs"] = f"{{% '{parts.transient_cluster['LogUri']}' & $cluster_id & '/' %}}"
    return catcher | {"Assign": {"failed": True, "unread": "", "failure": failure}, "Next": TOLD}
