"""EMR clusters whose bootstrap actions and steps really run, on this machine; in the server's process.

A cluster goes STARTING, BOOTSTRAPPING, then WAITING (or RUNNING while a step runs); one thread a cluster does its work
in order and ends when there is none. Steps of one cluster run one after the other, whatever its StepConcurrencyLevel:
on local Spark or, if it is asked for (`Place.yarn`), on a YARN of the cluster's own, which its first step starts.
"""

import io
import json
import logging
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from dml.local import hooks
from dml.local.access import iam
from dml.local.access.authorise import Authoriser
from dml.local.clients import client
from dml.local.place import Place
from dml.local.running import SHUT_DOWN, Handle, Running
from dml.local.services.emr_roles import (
    ClusterError,
    NodeLogs,
    ServiceRole,
    encryption_of,
    know_service_policy,
    subnets,
)
from dml.local.services.node import BootstrapError, Node, instance_of, node_folder, node_python
from dml.local.services.step_logs import Archiving, StepLogs, YarnLogs, failure_details, step_logs
from dml.local.services.submission import submission, submission_to_yarn
from dml.local.spark.process import SparkProcess
from dml.local.yarn.daemons import Yarn
from dml.local.yarn.step import YarnStep

log = logging.getLogger("dml.emr")

ALIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
GONE = ("TERMINATED", "TERMINATED_WITH_ERRORS")
TERMINATING_ACTIONS = ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW")
# What RunJobFlow is told and DescribeCluster tells again, but ministack drops.
KEPT = (
    "SecurityConfiguration",
    "LogEncryptionKmsKeyId",
    "Configurations",
    "ScaleDownBehavior",
    "CustomAmiId",
    "EbsRootVolumeSize",
    "OSReleaseLabel",
)
NETWORK = (
    "ServiceAccessSecurityGroup",
    "Ec2SubnetIds",
    "AdditionalMasterSecurityGroups",
    "AdditionalSlaveSecurityGroups",
)


class EmrClusters:
    """EMR's clusters and steps on this machine."""

    def __init__(self, place: Place, running: Running, authoriser: Authoriser) -> None:
        self._place = place
        self._running = running
        self._authoriser = authoriser
        self._yarns: dict[str, Yarn] = {}
        self._lock = threading.RLock()  # held while a cluster's states change, never while anything runs
        self._emr = hooks.module("services.emr")
        self._error = hooks.module("core.responses").error_response_json
        self._reply = hooks.module("core.responses").json_response
        self._security = hooks.module("core.responses").AccountRegionScopedDict()

    def apply(self) -> None:
        """Extends ministack's EMR, whose request table is filled when the module is imported."""
        for name in ("_clusters", "_steps"):
            hooks.existing(self._emr, name)
        self._run_job_flow = hooks.replace(self._emr, "_run_job_flow", self.run_job_flow)
        self._add_job_flow_steps = hooks.replace(self._emr, "_add_job_flow_steps", self.add_job_flow_steps)
        self._make_step = hooks.replace(self._emr, "_make_step", self.make_step)
        hooks.replace(self._emr, "_terminate_job_flows", self.terminate_job_flows)
        table = hooks.existing(self._emr, "_HANDLERS")
        hooks.replace(table, "RunJobFlow", self.run_job_flow)
        hooks.replace(table, "AddJobFlowSteps", self.add_job_flow_steps)
        hooks.replace(table, "CancelSteps", self.cancel_steps)
        hooks.replace(table, "TerminateJobFlows", self.terminate_job_flows)
        table["DescribeSecurityConfiguration"] = self.describe_security_configuration
        know_service_policy()
        self._persist_security_configurations()

    def recover(self) -> None:
        """What was under way when the embedded cloud died is not any more."""
        for steps in self._emr._steps.all_values():
            for step in steps:
                if step["Status"]["State"] in ("PENDING", "RUNNING", "CANCEL_PENDING"):
                    _end_step(step, "FAILED", details={"Reason": SHUT_DOWN})
        for cluster in self._emr._clusters.all_values():
            state = cluster["Status"]["State"]
            if state in ("STARTING", "BOOTSTRAPPING", "TERMINATING"):
                _change(cluster, "TERMINATED_WITH_ERRORS", "INTERNAL_ERROR", SHUT_DOWN)
            elif state == "RUNNING":
                _change(cluster, "WAITING")

    def close(self) -> None:
        """Ends the YARNs of clusters that go on when the embedded cloud is up again."""
        with self._lock:
            yarns, self._yarns = self._yarns, {}
        for yarn in yarns.values():
            yarn.down()

    def run_job_flow(self, request: Mapping[str, Any], *, may_pass_roles: bool = False) -> Any:
        """RunJobFlow: starts a cluster, if the caller may tag it and pass it the roles that it is to wear.

        `may_pass_roles`: this is known already, as of CloudFormation, which acts by its own execution role.
        """
        try:
            role = iam.role_of_profile(request.get("JobFlowRole", ""))
        except iam.RoleError as error:
            return self._error("ValidationException", str(error), 400)
        service_role = iam.role_arn(request.get("ServiceRole", ""))
        needed: list[tuple[str, str, dict[str, str]]] = [
            ("iam:PassRole", service_role, {"iam:PassedToService": "elasticmapreduce.amazonaws.com"}),
            ("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}),
        ]
        if request.get("Tags"):
            region, account = hooks.module("core.responses").get_region(), service_role.split(":")[4]
            needed.append(("elasticmapreduce:AddTags", f"arn:aws:elasticmapreduce:{region}:{account}:cluster/*", {}))
        for action, resource, context in () if may_pass_roles else needed:
            denied = iam.denial_of_emr(action, resource, context)
            if denied is not None:
                return denied
        response = self._run_job_flow(request)
        if response[0] >= 400:
            return response
        cluster = self._emr._clusters[json.loads(response[2])["JobFlowId"]]
        cluster.update({key: request[key] for key in KEPT if key in request})
        instances = request.get("Instances", {})
        cluster["Ec2InstanceAttributes"].update({key: instances[key] for key in NETWORK if key in instances})
        cluster["Status"] = {
            "State": "STARTING",
            "StateChangeReason": {},
            "Timeline": {"CreationDateTime": time.time()},
        }
        self._work_on(cluster)
        return response

    def make_step(self, config: Mapping[str, Any]) -> Any:
        """A step that has yet to run; ministack's is born COMPLETED."""
        step = self._make_step(config)
        step["Status"] = {"State": "PENDING", "StateChangeReason": {}, "Timeline": {"CreationDateTime": time.time()}}
        return step

    def add_job_flow_steps(self, request: Mapping[str, Any]) -> Any:
        """AddJobFlowSteps: refused unless the cluster is alive; steps wait for the cluster and for each other."""
        with self._lock:
            cluster = self._emr._clusters.get(request.get("JobFlowId"))
            if cluster and cluster["Status"]["State"] not in ALIVE:
                message = "A job flow that is shutting down, terminated, or finished may not be modified."
                return self._error("ValidationException", message, 400)
            response = self._add_job_flow_steps(request)
        if response[0] < 400 and cluster:
            self._work_on(cluster)
        return response

    def cancel_steps(self, request: Mapping[str, Any]) -> Any:
        """CancelSteps: a waiting step is cancelled at once, a running one when its Spark is gone."""
        infos = []
        with self._lock:
            for step in self._emr._steps.get(request.get("ClusterId"), []):
                if step["Id"] not in request.get("StepIds", []):
                    continue
                info = {"StepId": step["Id"], "Status": "SUBMITTED"}
                state = step["Status"]["State"]
                handle = self._running.handle(step["Id"])
                if state == "PENDING":
                    _end_step(step, "CANCELLED", "Cancelled by user.")
                elif state == "RUNNING" and handle:
                    step["Status"]["State"] = "CANCEL_PENDING"
                    threading.Thread(target=handle.stop, args=("CANCELLED",), daemon=True).start()
                else:
                    info |= {"Status": "FAILED", "Reason": f"The step is {state} and cannot be cancelled."}
                infos.append(info)
        return self._reply({"CancelStepsInfoList": infos})

    def terminate_job_flows(self, request: Mapping[str, Any]) -> Any:
        """TerminateJobFlows: ends what the clusters run; a protected cluster refuses."""
        with self._lock:
            clusters = [self._emr._clusters[i] for i in request.get("JobFlowIds", []) if i in self._emr._clusters]
            for cluster in clusters:
                if cluster.get("TerminationProtected"):
                    message = "Could not shut down one or more job flows since they are termination protected."
                    return self._error("ValidationException", message, 400)
            for cluster in clusters:
                self._terminate(cluster)
        return self._reply({})

    def credentials(self, cluster_id: str) -> dict[str, str]:
        """Those of a cluster's nodes, for a program on one of them. KeyError or RoleError if there are none."""
        return self._worn(self._emr._clusters[cluster_id])[1]

    def _worn(self, cluster: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """The role of a cluster's nodes, and credentials of it. Raises RoleError."""
        role = iam.role_of_profile(cluster["Ec2InstanceAttributes"]["IamInstanceProfile"])
        where = next(iter(subnets(cluster)), "")
        return role, iam.credentials_of(role, "ec2.amazonaws.com", instance_of(cluster["Id"]), subnet=where)

    def describe_security_configuration(self, request: Mapping[str, Any]) -> Any:
        """DescribeSecurityConfiguration."""
        found = self._security.get(request.get("Name"))
        if found is None:
            return self._error("InvalidRequestException", "Security configuration does not exist.", 400)
        return self._reply(found)

    def put_security_configuration(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Keeps a security configuration that a template declares."""
        text = json.dumps(configuration)
        self._security[name] = {"Name": name, "SecurityConfiguration": text, "CreationDateTime": time.time()}

    def delete_security_configuration(self, name: str) -> None:
        """Forgets one again."""
        self._security.pop(name, None)

    def wait_until_up(self, cluster_id: str) -> None:
        """Blocks until a cluster has started; raises ValueError with its reason if it does not come up."""
        status = self._emr._clusters[cluster_id]["Status"]
        while status["State"] in ("STARTING", "BOOTSTRAPPING"):
            time.sleep(0.05)
            status = self._emr._clusters[cluster_id]["Status"]
        if status["State"] in (*GONE, "TERMINATING"):
            raise ValueError(status["StateChangeReason"].get("Message", f"The cluster {cluster_id} was terminated."))

    def wait_until_gone(self, cluster_id: str) -> None:
        """Blocks until a cluster that is terminating has let go of its machines."""
        while self._emr._clusters[cluster_id]["Status"]["State"] not in GONE:
            time.sleep(0.05)

    def _terminate(self, cluster: dict[str, Any]) -> None:
        if cluster["Status"]["State"] in (*GONE, "TERMINATING"):
            return
        for step in self._emr._steps.get(cluster["Id"], []):
            if step["Status"]["State"] == "PENDING":
                _end_step(step, "CANCELLED", "Job terminated")
        handle = self._running.handle(cluster["Id"])
        if handle is None:
            self._end(cluster, "TERMINATED", "USER_REQUEST", "Terminated by user request")
            return
        _change(cluster, "TERMINATING", "USER_REQUEST", "Terminated by user request")
        threading.Thread(target=handle.stop, args=("TERMINATED",), daemon=True).start()

    def _work_on(self, cluster: dict[str, Any]) -> None:
        self._running.start(cluster["Id"], lambda handle: self._live(cluster, handle))

    def _live(self, cluster: dict[str, Any], handle: Handle) -> None:
        """A cluster's thread: starts it if it is new, then runs its steps until none is left."""
        try:
            role, credentials = self._worn(cluster)
            if cluster["Status"]["State"] == "STARTING":
                self._start(cluster, role, credentials, handle)
        except (iam.RoleError, ClusterError, BootstrapError) as error:
            code = "BOOTSTRAP_FAILURE" if isinstance(error, BootstrapError) else "VALIDATION_ERROR"
            self._give_up(cluster, code, str(error), handle)
            return
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nobody shall wait for this cluster
            self._give_up(cluster, "INTERNAL_ERROR", f"{type(error).__name__}: {error}", handle)
            return
        while self._next_step(cluster, credentials, handle):
            pass

    def _start(self, cluster: dict[str, Any], role: str, credentials: Mapping[str, str], handle: Handle) -> None:
        encryption = encryption_of(self._security.get(cluster.get("SecurityConfiguration")))
        ServiceRole(self._authoriser, cluster).start_machines(role, encryption)
        _change(cluster, "BOOTSTRAPPING")
        logs = NodeLogs(self._place, cluster, credentials)
        self._fetch_certificate(encryption, credentials)
        node = Node(self._place, cluster["Id"], credentials)
        handle.attach(node)
        try:
            node.run(cluster.get("BootstrapActions", []))
        finally:
            handle.attach(None)
            for name, file in node.files().items():
                logs.push(file, name)
        cluster["Status"]["Timeline"]["ReadyDateTime"] = time.time()

    def _fetch_certificate(self, encryption: Mapping[str, Any], credentials: Mapping[str, str]) -> None:
        """What a node does first where its security configuration wants TLS: it reads its certificate from S3."""
        tls = encryption.get("InTransitEncryptionConfiguration", {}).get("TLSCertificateConfiguration", {})
        if not encryption.get("EnableInTransitEncryption") or tls.get("CertificateProviderType") != "PEM":
            return
        bucket, _, key = tls["S3Object"].removeprefix("s3://").partition("/")
        try:
            body = client(self._place, "s3", credentials).get_object(Bucket=bucket, Key=key)["Body"].read()
            names = set(zipfile.ZipFile(io.BytesIO(body)).namelist())
        except (ClientError, zipfile.BadZipFile) as error:
            raise BootstrapError(f"The certificates {tls['S3Object']} cannot be used: {error}") from None
        if missing := {"privateKey.pem", "certificateChain.pem"} - names:
            raise BootstrapError(f"The certificates {tls['S3Object']} lack {', '.join(sorted(missing))}")

    def _give_up(self, cluster: dict[str, Any], code: str, message: str, handle: Handle) -> None:
        with self._lock:
            asked = handle.cause == "TERMINATED"
            for step in self._emr._steps.get(cluster["Id"], []):
                if step["Status"]["State"] == "PENDING":
                    _end_step(step, "CANCELLED", "Job terminated")
            if asked:
                self._end(cluster, "TERMINATED", "USER_REQUEST", "Terminated by user request")
            else:
                self._end(cluster, "TERMINATED_WITH_ERRORS", code, message)

    def _end(self, cluster: dict[str, Any], state: str, code: str, message: str) -> None:
        """A cluster that is gone, and with it its machines, if it had any."""
        self._end_yarn(cluster)
        if cluster["Status"]["State"] != "STARTING":
            try:
                ServiceRole(self._authoriser, cluster).end_machines()
            except iam.RoleError as error:
                log.error("The machines of %s could not be ended: %s", cluster["Id"], error)
        _change(cluster, state, code, message)

    def _next_step(self, cluster: dict[str, Any], credentials: Mapping[str, str], handle: Handle) -> bool:
        """Runs the cluster's next step; False if its thread has nothing more to do."""
        with self._lock:
            if handle.cause == "TERMINATED":
                self._give_up(cluster, "", "", handle)
                return False
            if handle.cause:  # the embedded cloud goes down; the cluster waits until it is up again
                _change(cluster, "WAITING")
                return False
            pending = [s for s in self._emr._steps.get(cluster["Id"], []) if s["Status"]["State"] == "PENDING"]
            if not pending:
                done = cluster["AutoTerminate"] and bool(self._emr._steps.get(cluster["Id"]))
                if done:
                    self._end(cluster, "TERMINATED", "ALL_STEPS_COMPLETED", "Steps completed")
                else:
                    _change(cluster, "WAITING")
                # Under the lock: a step added from now on starts a new thread.
                self._running.forget(cluster["Id"], handle)
                return False
            step = pending[0]
            _change(cluster, "RUNNING")
            step["Status"]["State"] = "RUNNING"
            step["Status"]["Timeline"]["StartDateTime"] = time.time()
            own = self._running.adopt(step["Id"])  # under the lock: what is seen to run can be cancelled
        failed = self._run_step(cluster, step, credentials, handle, own)
        with self._lock:
            if failed and step["ActionOnFailure"] in TERMINATING_ACTIONS and not handle.cause:
                self._give_up(cluster, "STEP_FAILURE", f"Shut down as step failed: {step['Name']}", handle)
                return False
            if failed and step["ActionOnFailure"] == "CANCEL_AND_WAIT":
                for waiting in self._emr._steps[cluster["Id"]]:
                    if waiting["Status"]["State"] == "PENDING":
                        _end_step(waiting, "CANCELLED", "A step before this one failed.")
        return True

    def _run_step(
        self, cluster: dict[str, Any], step: dict[str, Any], credentials: Mapping[str, str], handle: Handle, own: Handle
    ) -> bool:
        """Blocks until the step has ended, which its own handle or its cluster's can bring about; if it failed."""
        steps, folder = self._emr._steps[cluster["Id"]], self._place.logs / "emr" / cluster["Id"]
        logs: YarnLogs | StepLogs
        if self._place.yarn.is_symlink():
            logs = YarnLogs(folder, step["Id"])
        else:
            self._end_yarn(cluster)
            logs = step_logs(folder, cluster, steps, step)
        failure: str | None
        try:
            failure = self._submit(cluster, step, credentials, logs, (handle, own))
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this step's failure, and is told as such
            failure = f"{type(error).__name__}: {error}"
        with self._lock:
            self._running.forget(step["Id"], own)
            if own.cause == "CANCELLED" or handle.cause == "TERMINATED":
                _end_step(step, "CANCELLED", "Cancelled by user." if own.cause else "Job terminated")
            elif own.cause or failure is not None:
                told = failure_details(own.cause or failure or "", cluster.get("LogUri", ""), cluster["Id"], step["Id"])
                _end_step(step, "FAILED", details=told)
            else:
                _end_step(step, "COMPLETED")
        archiving = Archiving(logs, NodeLogs(self._place, cluster, credentials))

        def archive(archiver: Handle) -> None:
            archiver.attach(archiving)
            archiving.run()

        self._running.start(f"logs of {step['Id']}", archive)
        return bool(step["Status"]["State"] == "FAILED")

    def _submit(
        self,
        cluster: Mapping[str, Any],
        step: Mapping[str, Any],
        credentials: Mapping[str, str],
        logs: YarnLogs | StepLogs,
        handles: Sequence[Handle],
    ) -> str | None:
        """Runs a step's spark-submit; the last error that it prints on EMR, or None if there was none."""
        arguments = step["Config"]["Args"]
        if step["Config"]["Jar"] != "command-runner.jar" or arguments[:1] != ["spark-submit"]:
            given = " ".join([step["Config"]["Jar"], *arguments])
            return f"The embedded cloud runs steps of command-runner.jar spark-submit only, not: {given}"
        node = node_folder(self._place, cluster["Id"])
        run, words = step["Id"], arguments[1:]
        process: YarnStep | SparkProcess
        if isinstance(logs, YarnLogs):
            process = submission_to_yarn(
                self._place,
                run,
                words,
                credentials,
                yarn=self._yarn(cluster),
                output=logs.output,
                errors=logs.errors,
                node=node,
            )
        else:
            process = submission(
                self._place,
                run,
                words,
                credentials,
                logs.stdout,
                errors=logs.stderr,
                container=logs.container,
                node=node,
            )
        for handle in handles:
            handle.attach(process)
        try:
            return logs.tell(process.run())
        finally:
            for handle in handles:
                handle.attach(None)

    def _yarn(self, cluster: Mapping[str, Any]) -> Yarn:
        """The cluster's, made if there is none; its nodes are as many as there are kinds of machines."""
        from stacks.settings import yarn_mb  # with pydantic, for which the server's start need not wait

        node = node_folder(self._place, cluster["Id"])
        labels = ["ON_DEMAND", "SPOT"] if cluster.get("InstanceCollectionType") == "INSTANCE_FLEET" else ["ON_DEMAND"]
        with self._lock:
            if cluster["Id"] not in self._yarns:
                self._yarns[cluster["Id"]] = Yarn(
                    folder=node / "yarn",
                    logs=self._place.logs / "emr" / cluster["Id"],
                    jars=self._place.yarn.resolve(),
                    port=self._place.port,
                    python=node_python(node),
                    configurations=cluster.get("Configurations", []),
                    labels=labels,
                    node_mb=min(map(yarn_mb, _instance_types(cluster))),
                )
            return self._yarns[cluster["Id"]]

    def _end_yarn(self, cluster: Mapping[str, Any]) -> None:
        with self._lock:
            yarn = self._yarns.pop(cluster["Id"], None)
        if yarn:
            yarn.down()

    def _persist_security_configurations(self) -> None:
        state = hooks.existing(self._emr, "get_state")
        restore = hooks.existing(self._emr, "_restore_state")
        clear = hooks.existing(self._emr, "_clear_state")

        def get_state() -> Any:
            return state() | {"_dml_security_configurations": self._security}

        def restore_state(data: Any) -> None:
            restore(data)
            self._security.update((data or {}).get("_dml_security_configurations", {}))

        def clear_state() -> None:
            clear()
            self._security.clear()

        hooks.replace(self._emr, "get_state", get_state)
        hooks.replace(self._emr, "_restore_state", restore_state)
        hooks.replace(self._emr, "_clear_state", clear_state)


def _instance_types(cluster: Mapping[str, Any]) -> list[str]:
    """Of the nodes beside the primary one."""
    groups = [group["InstanceType"] for group in cluster["InstanceGroups"] if group["InstanceGroupType"] != "MASTER"]
    fleets = [fleet for fleet in cluster["InstanceFleets"] if fleet["InstanceFleetType"] != "MASTER"]
    found = groups + [one["InstanceType"] for fleet in fleets for one in fleet["InstanceTypeSpecifications"]]
    return found or ["m5.xlarge"]  # a cluster of one node, as ministack has it


def _change(cluster: dict[str, Any], state: str, code: str = "", message: str = "") -> None:
    reason = {"Code": code, "Message": message} if code else {}
    timeline = cluster["Status"]["Timeline"] | ({"EndDateTime": time.time()} if state in GONE else {})
    cluster["Status"] = {"State": state, "StateChangeReason": reason, "Timeline": timeline}


def _end_step(step: dict[str, Any], state: str, message: str = "", *, details: Mapping[str, str] | None = None) -> None:
    timeline = step["Status"]["Timeline"] | {"EndDateTime": time.time()}
    status = {"State": state, "StateChangeReason": {"Message": message} if message else {}, "Timeline": timeline}
    step["Status"] = status | ({"FailureDetails": dict(details)} if details else {})
