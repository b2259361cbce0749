"""Prices every resource of an environment's templates: what it costs as it stands, as a workbench, and for each run."""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dml.cost import clusters
from dml.cost.assembly import Assembly, Resource
from dml.cost.prices import Prices, Rate
from dml.cost.schedules import runs_per_month
from dml.estate.platform import PAUSED

# When a line is paid: each month that the stacks stand, each hour that the workbench is up, for each run of a pipeline,
# and in a run that starts a cluster of its own.
STANDING, WORKBENCH, RUN, TRANSIENT = "standing", "workbench", "run", "transient"

CLUSTERS_MADE = ("aws-sdk:emr:runJobFlow", "elasticmapreduce:createCluster", "elasticmapreduce:createCluster.sync")
CRAWLER_DPUS = 2
CRAWL_MINUTES = 10  # the least that Glue bills for a crawl
JOB_MINUTES = 1  # the least that it bills for a job

# Types that cost nothing by themselves, and why. What is neither here nor in PRICED is reported as unknown.
FREE = {
    "AWS::Budgets::Budget": "a budget without actions is free",
    "AWS::CDK::Metadata": "says which CDK made the stack",
    "AWS::EC2::InternetGateway": "free; what passes it is billed by the NAT gateway",
    "AWS::EC2::Route": "free",
    "AWS::EC2::RouteTable": "free",
    "AWS::EC2::SecurityGroup": "free",
    "AWS::EC2::SecurityGroupEgress": "free",
    "AWS::EC2::SecurityGroupIngress": "free",
    "AWS::EC2::Subnet": "free",
    "AWS::EC2::SubnetRouteTableAssociation": "free",
    "AWS::EC2::VPC": "free",
    "AWS::EC2::VPCGatewayAttachment": "free",
    "AWS::EMR::InstanceFleetConfig": "priced as nodes of its cluster",
    "AWS::EMR::InstanceGroupConfig": "priced as nodes of its cluster",
    "AWS::EMR::SecurityConfiguration": "free; the key that it names is priced by itself",
    "AWS::Events::Rule": "rules on AWS's own events and schedules are free; scheduled runs are priced as runs",
    "AWS::Glue::Classifier": "free",
    "AWS::Glue::DataCatalogEncryptionSettings": "free; the key that it names is priced by itself",
    "AWS::Glue::Database": "the first million objects of the Data Catalog are free",
    "AWS::Glue::SecurityConfiguration": "free; the key that it names is priced by itself",
    "AWS::Glue::Table": "the first million objects of the Data Catalog are free",
    "AWS::IAM::InstanceProfile": "free",
    "AWS::IAM::ManagedPolicy": "free",
    "AWS::IAM::Policy": "free",
    "AWS::IAM::Role": "free",
    "AWS::KMS::Alias": "free",
    "AWS::Logs::ResourcePolicy": "free",
    "AWS::S3::BucketPolicy": "free",
    "AWS::SNS::Subscription": "the first thousand e-mails a month are free",
    "AWS::SNS::Topic": "the first million requests a month are free, and a run sends one",
    "AWS::SNS::TopicPolicy": "free",
    "AWS::Scheduler::Schedule": "the first 14 million calls a month are free; scheduled runs are priced as runs",
    "AWS::Scheduler::ScheduleGroup": "free",
}
CDK_OWN = re.compile(r"^(Custom|LogRetention|AWS[0-9a-f]{20,})")  # CDK's functions, which run when a stack is changed


@dataclass(frozen=True)
class Line:
    """One product of a quantity and a price. `quantity` is for a month (STANDING), an hour (WORKBENCH), or a run.

    `run`: for RUN and TRANSIENT, the state machine's dataset.
    """

    when: str
    stack: str
    what: str
    quantity: float
    unit: str
    price: float
    resources: tuple[str, ...]
    run: str = ""
    unverified: bool = False

    @property
    def usd(self) -> float:
        return self.quantity * self.price

    def as_json(self) -> dict[str, Any]:
        names = ("when", "stack", "what", "quantity", "unit", "price", "usd", "unverified")
        told = {name: getattr(self, name) for name in names} | {"resources": list(self.resources)}
        return told | ({"dataset": self.run} if self.run else {})


@dataclass(frozen=True)
class Unknown:
    """A resource that the price table says nothing about: the totals lack it."""

    stack: str
    name: str
    what: str

    @property
    def sentence(self) -> str:
        return f"{self.what} ({self.stack}: {self.name})"


@dataclass(frozen=True)
class Run:
    """What one run of a dataset's pipeline costs, in USD, and how often a schedule starts it each month."""

    dataset: str
    common: float
    transient: float
    share: float
    per_month: float

    @property
    def own_cluster(self) -> float:
        return self.common + self.transient

    @property
    def on_workbench(self) -> float:
        """With the part of the workbench's hours that it takes, which are billed with or without it."""
        return self.common + self.share


@dataclass(frozen=True)
class Estimate:
    """What an environment costs, in USD."""

    environment: str
    prices: Prices
    lines: Sequence[Line]
    unknown: Sequence[Unknown]
    free: Mapping[str, int]
    notes: Sequence[str]
    schedules: Mapping[str, float] = field(default_factory=dict)

    def sum(self, *whens: str, stacks: Sequence[str] | None = None, run: str | None = None) -> float:
        """Of the lines of these kinds; of some stacks, or one dataset's run."""
        return sum(
            line.usd
            for line in self.lines
            if line.when in whens and (stacks is None or line.stack in stacks) and (run is None or line.run == run)
        )

    @cached_property
    def runs(self) -> list[Run]:
        share = self.workbench_hour * self.prices.assumed("step_minutes") / 60
        datasets = dict.fromkeys(line.run for line in self.lines if line.when == RUN)
        return [
            Run(
                name,
                self.sum(RUN, run=name),
                self.sum(TRANSIENT, run=name),
                share,
                self.schedules.get(name, 0),
            )
            for name in datasets
        ]

    @property
    def standing_hour(self) -> float:
        return self.sum(STANDING) / self.prices.hours_per_month

    @property
    def workbench_hour(self) -> float:
        """The workbench alone."""
        return self.sum(WORKBENCH)

    @property
    def scheduled_month(self) -> float:
        """The runs that schedules start, each with a cluster of its own unless there is a workbench."""
        return sum(run.per_month * (run.common if self.workbench_hour else run.own_cluster) for run in self.runs)

    @cached_property
    def totals(self) -> dict[str, float]:
        """The figures that people ask for, by name."""
        hours = self.prices.hours_per_month
        kept = {line.stack for line in self.lines} - set(PAUSED)
        told = (
            {"an hour with the workbench up": self.standing_hour + self.workbench_hour} if self.workbench_hour else {}
        )
        for run in self.runs:
            name = "a run" if self.runs_alike else f"a run of {run.dataset}"
            if self.workbench_hour:
                told[f"{name}, on the workbench"] = run.on_workbench
            told[f"{name}, with a cluster of its own"] = run.own_cluster
        told["an idle day"] = 24 * self.standing_hour
        told["a month with nobody there"] = self.sum(STANDING) + self.scheduled_month
        if self.workbench_hour:
            told["a month forgotten, the workbench kept up"] = (
                self.sum(STANDING) + hours * self.workbench_hour + self.scheduled_month
            )
        told["a month after dml pause"] = self.sum(STANDING, stacks=sorted(kept))
        return told

    @property
    def runs_alike(self) -> bool:
        """Whether every dataset's run costs the same."""
        return len({(round(run.common, 9), round(run.transient, 9)) for run in self.runs}) <= 1

    def as_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "prices": self.prices.as_json(),
            "totals": self.totals,
            "lines": [line.as_json() for line in self.lines],
            "scheduled_runs_a_month": dict(self.schedules),
            "assumptions": {name: each.model_dump() for name, each in self.prices.assumptions.items()},
            "free": {kind: {"count": count, "why": why_free(kind)} for kind, count in self.free.items()},
            "unknown": [{"stack": each.stack, "resource": each.name, "what": each.what} for each in self.unknown],
            "notes": list(self.notes),
        }


def why_free(kind: str) -> str:
    return FREE.get(kind, "costs nothing by itself")


def estimate(assembly: Assembly, prices: Prices) -> Estimate:
    """Prices all of an environment's templates."""
    return _Pricing(assembly, prices).estimate()


class _Pricing:
    def __init__(self, assembly: Assembly, prices: Prices) -> None:
        self.assembly, self.prices = assembly, prices
        self.lines: list[Line] = []
        self.unknown: list[Unknown] = []
        self.free: Counter[str] = Counter()
        self.notes: list[str] = []
        self.schedules: dict[str, float] = {}
        self._watches: dict[tuple[str, str], tuple[Resource, int]] = {}  # machines that start nothing, with transitions
        self.types = Counter(resource.type for resource in assembly.resources)

    def estimate(self) -> Estimate:
        started = {name for machine in self._of("AWS::StepFunctions::StateMachine") for name in self._run(machine)}
        for resource in self.assembly.resources:
            kind = resource.type
            if kind in PRICED:
                PRICED[kind](self, resource)
            elif kind in ("AWS::Glue::Job", "AWS::Glue::Crawler"):
                if (resource.stack, resource.name) not in started:
                    self.notes.append(f"{resource.name} costs something only when it is started; no pipeline does.")
            elif kind in FREE or kind.startswith("Custom::") or _is_cdks_own(resource):
                self.free[kind] += 1
            elif kind != "AWS::StepFunctions::StateMachine":
                self._unknown(resource, kind)
        self._schedules()
        self._allowances()
        return Estimate(
            self.assembly.environment,
            self.prices,
            _merged(self.lines),
            self.unknown,
            dict(sorted(self.free.items())),
            self.notes,
            self.schedules,
        )

    # --- what stands ---

    def _standing(self, resource: Resource, what: str, rate: str, quantity: float) -> None:
        """`quantity` is for an hour if the rate's unit is one of hours, else for a month."""
        hourly = self.prices.rates[rate].unit.endswith("-hour")
        self._line(STANDING, resource, what, rate, quantity * (self.prices.hours_per_month if hourly else 1))

    def nat(self, resource: Resource) -> None:
        self._standing(resource, "NAT gateway", "nat_gateway", 1)

    def address(self, resource: Resource) -> None:
        self._standing(resource, "public IPv4 address", "public_ipv4", 1)

    def endpoint(self, resource: Resource) -> None:
        if resource.properties.get("VpcEndpointType", "Gateway") == "Gateway":
            self.free[resource.type] += 1
            return
        zones = len(resource.properties.get("SubnetIds", ())) or 1
        self._standing(resource, "interface endpoint, by zone", "interface_endpoint", zones)

    def flow_log(self, resource: Resource) -> None:
        to_s3 = resource.properties.get("LogDestinationType") == "s3"
        gigabytes = self.prices.assumed("flow_log_gb_per_hour") * self.prices.hours_per_month
        self._standing(resource, "flow log records", "vended_logs_s3" if to_s3 else "logs_ingest", gigabytes)

    def key(self, resource: Resource) -> None:
        self._standing(resource, "KMS key", "kms_key", 1)

    def secret(self, resource: Resource) -> None:
        self._standing(resource, "secret", "secret", 1)

    def bucket(self, resource: Resource) -> None:
        share = self.prices.assumed("data_gb") / self.types[resource.type]
        self._standing(resource, "S3 storage", "s3_storage", share)

    def log_group(self, resource: Resource) -> None:
        share = self.prices.assumed("log_gb") / self.types[resource.type]
        self._standing(resource, "log storage", "logs_storage", share)

    def alarm(self, resource: Resource) -> None:
        metrics = [each for each in resource.properties.get("Metrics", ()) if "MetricStat" in each]
        periods = [each["MetricStat"]["Period"] for each in metrics] or [resource.properties.get("Period", 300)]
        rate = "alarm_high_resolution" if min(map(int, periods)) < 60 else "alarm"
        self._standing(resource, "alarm", rate, max(1, len(metrics)))

    def composite_alarm(self, resource: Resource) -> None:
        self._standing(resource, "composite alarm", "composite_alarm", 1)

    def dashboard(self, resource: Resource) -> None:
        self._standing(resource, "dashboard", "dashboard", 1)

    def parameter(self, resource: Resource) -> None:
        match resource.properties.get("Tier", "Standard"):
            case "Standard":
                self.free[resource.type] += 1
            case tier:
                what = "advanced parameter" + (", if it is one" if tier != "Advanced" else "")
                self._standing(resource, what, "parameter_advanced", 1)

    # --- clusters ---

    def workbench(self, resource: Resource) -> None:
        extra = [
            {**each.properties, **({"InstanceRole": "TASK"} if each.type.endswith("GroupConfig") else {})}
            for kind in ("AWS::EMR::InstanceGroupConfig", "AWS::EMR::InstanceFleetConfig")
            for each in self._of(kind)
            if self.assembly.referred(each.stack, each.properties.get("ClusterId")) == resource
        ]
        if self._cluster(WORKBENCH, resource, resource.properties, hours=1, extra=extra):
            idle = resource.properties.get("AutoTerminationPolicy", {}).get("IdleTimeout")
            self.notes.append(
                f"The workbench ends itself after {int(idle) // 60} minutes without work; a new one takes a deployment."
                if idle
                else "The workbench has no auto-termination: it is billed until somebody ends it."
            )

    def _cluster(
        self,
        when: str,
        resource: Resource,
        properties: Mapping[str, Any],
        *,
        hours: float,
        run: str = "",
        extra: Sequence[Mapping[str, Any]] = (),
    ) -> bool:
        try:
            cluster = clusters.read(properties, self.prices, extra=extra)
        except clusters.UnknownInstance as error:
            self._unknown(resource, f"the instance type {error} of an EMR cluster")
            return False

        def add(what: str, quantity: float, unit: str, price: float, unverified: bool) -> None:
            names = (resource.name,)
            self.lines.append(Line(when, resource.stack, what, quantity * hours, unit, price, names, run, unverified))

        for nodes in cluster.nodes:
            market = "spot" if nodes.spot else "on demand"
            among = f", dearest of {len(nodes.among)} types" if len(nodes.among) > 1 else ""
            price = clusters.ec2(nodes, self.prices)
            unverified = nodes.spot and self.prices.spot.unverified
            add(f"EC2 {nodes.instance.name} {market}{among}", nodes.count, "instance-hour", price, unverified)
        for nodes in cluster.nodes:
            unverified = self.prices.emr.fee_unverified
            add(f"EMR fee {nodes.instance.name}", nodes.count, "instance-hour", nodes.instance.emr, unverified)
        disks = sum(nodes.count * (nodes.gib + cluster.root_gib) for nodes in cluster.nodes)
        gp3 = self.prices.rates["gp3"]
        add("EBS gp3, root and data volumes", disks / self.prices.hours_per_month, gp3.unit, gp3.usd, gp3.unverified)
        if by := self._way_out():
            what, rate = by
            gigabytes = self.prices.assumed("network_gb_per_cluster_hour")
            add(what, gigabytes, rate.unit, rate.usd, rate.unverified)
        workers = sum(nodes.count for nodes in cluster.most if nodes.role != "primary")
        if workers > sum(nodes.count for nodes in cluster.nodes if nodes.role != "primary"):
            most = clusters.usd_per_hour(cluster.most, cluster.root_gib, self.prices)
            name = "The workbench" if when == WORKBENCH else "A run's own cluster"
            note = (
                f"{name} is priced as it starts; managed scaling may take it to {workers} workers, {most:.2f} an hour."
            )
            if note not in self.notes:
                self.notes.append(note)
        return True

    def _way_out(self) -> tuple[str, Rate] | None:
        """What a cluster's traffic to other services than S3 passes, and is billed by."""
        if self.types["AWS::EC2::NatGateway"]:
            return "data through the NAT gateway", self.prices.rates["nat_data"]
        if any(each.properties.get("VpcEndpointType") == "Interface" for each in self._of("AWS::EC2::VPCEndpoint")):
            return "data through interface endpoints", self.prices.rates["interface_endpoint_data"]
        return None

    # --- a run ---

    def _run(self, machine: Resource) -> Iterator[tuple[str, str]]:
        """Adds the lines of one run of a state machine; yields the stack and name of each thing that it starts."""
        properties = machine.properties
        if properties.get("StateMachineType", "STANDARD") != "STANDARD" or "DefinitionString" not in properties:
            self._unknown(machine, "a state machine that is not of type STANDARD with its definition in the template")
            return
        definition = json.loads(self.assembly.text(machine.stack, properties["DefinitionString"]))
        states: dict[str, Any] = definition["States"]
        calls = [
            (state["Resource"].partition(":states:::")[2], state.get("Arguments") or state.get("Parameters") or {})
            for state in states.values()
            if state["Type"] == "Task"
        ]
        names = {"glue:startJobRun.sync": "JobName", "aws-sdk:glue:startCrawler": "Name"}
        started = dict.fromkeys(
            found
            for action, given in calls
            if action in names and (found := self.assembly.marked(given[names[action]]))
        )
        transitions = self._transitions(states)
        if not started and not any(action.lower().endswith(("createcluster", "runjobflow")) for action, _ in calls):
            self._watches[machine.stack, machine.name] = machine, transitions
            return
        jobs = [each for each in started if each.type == "AWS::Glue::Job"]
        run = next((str(job.properties.get("DefaultArguments", {}).get("--dataset", "")) for job in jobs), "")
        run = run or machine.name
        for each in started:
            yield each.stack, each.name
            self._started(each, run)
        self._line(RUN, machine, "state machine", "step_functions", transitions, run)
        for what, rate, assumed in (
            ("logs written", "logs_ingest", "log_gb_per_run"),
            ("S3 writes and listings", "s3_put", "s3_puts_per_run"),
            ("S3 reads", "s3_get", "s3_gets_per_run"),
        ):
            self._line(RUN, machine, what, rate, self.prices.assumed(assumed), run)
        if self.types["AWS::KMS::Key"]:
            self._line(RUN, machine, "KMS calls", "kms_requests", self.prices.assumed("kms_requests_per_run"), run)
        metrics = sum(
            len(given["MetricData"]) if isinstance(given.get("MetricData"), list) else 1
            for action, given in calls
            if action == "aws-sdk:cloudwatch:putMetricData"
        )
        if metrics:  # a metric is billed for the hours in which it is written
            self._line(RUN, machine, "own metrics", "metric", metrics / self.prices.hours_per_month, run)
        minutes = self.prices.assumed("cluster_start_minutes") + self.prices.assumed("step_minutes")
        for action, given in calls:
            if action in CLUSTERS_MADE:
                self._cluster(TRANSIENT, machine, given, hours=minutes / 60, run=run)

    def _started(self, resource: Resource, run: str) -> None:
        if resource.type == "AWS::Glue::Crawler":
            hours = max(CRAWL_MINUTES, self.prices.assumed("crawl_minutes")) / 60
            what = f"crawl, {CRAWLER_DPUS} DPUs, at least {CRAWL_MINUTES} min"
            self._line(RUN, resource, what, "crawler_dpu", CRAWLER_DPUS * hours, run)
            return
        settings = resource.properties
        worker, workers = str(settings.get("WorkerType", "")), int(settings.get("NumberOfWorkers", 0))
        dpus = self.prices.glue_workers.get(worker)
        if dpus is None or not workers:
            self._unknown(resource, f"a Glue job of {workers} workers of type {worker or 'unknown'}")
            return
        hours = max(JOB_MINUTES, self.prices.assumed("prepare_minutes")) / 60
        rate = "glue_dpu_flex" if settings.get("ExecutionClass") == "FLEX" else "glue_dpu"
        self._line(RUN, resource, f"Glue job, {workers} {worker} workers", rate, dpus * workers * hours, run)

    def _transitions(self, states: Mapping[str, Any]) -> int:
        """Not more than this: each state once, and the loops that wait for crawl and cluster."""
        polls = 0.0
        for stage, minutes in (("crawl", "crawl_minutes"), ("cluster", "cluster_start_minutes")):
            waits = [
                name
                for name, state in states.items()
                if state["Type"] == "Wait" and "Seconds" in state and name.partition(":")[0] == stage
            ]
            if waits:
                wait = min(waits, key=lambda name: int(states[name]["Seconds"]))
                times = self.prices.assumed(minutes) * 60 / int(states[wait]["Seconds"])
                polls += times * _loop(states, wait)
        return len(states) + round(polls)

    # --- what concerns all of it ---

    def _schedules(self) -> None:
        """How often the rules and schedules that are on start each dataset's pipeline."""
        machines = {(line.stack, line.resources[0]): line.run for line in self.lines if line.what == "state machine"}
        for resource in [*self._of("AWS::Events::Rule"), *self._of("AWS::Scheduler::Schedule")]:
            properties = resource.properties
            expression = properties.get("ScheduleExpression")
            if not expression or properties.get("State", "ENABLED") == "DISABLED":
                continue
            targets = properties.get("Targets") or [properties["Target"]]
            found = [self.assembly.referred(resource.stack, target.get("Arn")) for target in targets]
            runs = [run for each in found if each and (run := machines.get((each.stack, each.name)))]
            watches = [watch for each in found if each and (watch := self._watches.get((each.stack, each.name)))]
            times = runs_per_month(expression, self.prices.hours_per_month) if isinstance(expression, str) else None
            if times is None or not (runs or watches):
                self._unknown(resource, f"what the schedule {expression} starts, and how often")
                continue
            for machine, transitions in watches:
                self._standing(machine, "state machine on watch", "step_functions", times * transitions)
                # A metric each time, billed for the hours in which it is written.
                self._standing(machine, "own metrics", "metric", times / self.prices.hours_per_month)
            for run in runs:
                self.schedules[run] = self.schedules.get(run, 0) + times

    def _allowances(self) -> None:
        """What AWS gives every account each month, as lines of their own: the rest of the account may use it up."""
        for name in ("alarm", "dashboard"):
            rate = self.prices.rates[name]
            lines = [line for line in self.lines if line.when == STANDING and line.what == name]
            left = rate.free
            for stack in sorted({line.stack for line in lines}, key=lambda stack: (stack in PAUSED, stack)):
                of_stack = [line for line in lines if line.stack == stack and line.price == rate.usd]
                given = min(left, sum(line.quantity for line in of_stack))
                left -= given
                if given:
                    names = tuple(each for line in of_stack for each in line.resources)
                    what = f"{name}s that AWS gives an account"
                    self.lines.append(Line(STANDING, stack, what, -given, rate.unit, rate.usd, names))

    def _line(self, when: str, resource: Resource, what: str, rate: str, quantity: float, run: str = "") -> None:
        found = self.prices.rates[rate]
        if quantity:
            self.lines.append(
                Line(
                    when, resource.stack, what, quantity, found.unit, found.usd, (resource.name,), run, found.unverified
                )
            )

    def _unknown(self, resource: Resource, what: str) -> None:
        found = Unknown(resource.stack, resource.name, what)
        if found not in self.unknown:
            self.unknown.append(found)

    def _of(self, kind: str) -> list[Resource]:
        return [resource for resource in self.assembly.resources if resource.type == kind]


PRICED: Mapping[str, Callable[[_Pricing, Resource], None]] = {
    "AWS::CloudWatch::Alarm": _Pricing.alarm,
    "AWS::CloudWatch::CompositeAlarm": _Pricing.composite_alarm,
    "AWS::CloudWatch::Dashboard": _Pricing.dashboard,
    "AWS::EC2::EIP": _Pricing.address,
    "AWS::EC2::FlowLog": _Pricing.flow_log,
    "AWS::EC2::NatGateway": _Pricing.nat,
    "AWS::EC2::VPCEndpoint": _Pricing.endpoint,
    "AWS::EMR::Cluster": _Pricing.workbench,
    "AWS::KMS::Key": _Pricing.key,
    "AWS::Logs::LogGroup": _Pricing.log_group,
    "AWS::S3::Bucket": _Pricing.bucket,
    "AWS::SSM::Parameter": _Pricing.parameter,
    "AWS::SecretsManager::Secret": _Pricing.secret,
}


def _is_cdks_own(resource: Resource) -> bool:
    """A function of CDK's own, which runs only when its stack is deployed or deleted."""
    return resource.type == "AWS::Lambda::Function" and bool(CDK_OWN.match(resource.name))


def _loop(states: Mapping[str, Any], start: str) -> int:
    """The length of the shortest way from a state back to itself; 1 if there is none."""
    ahead = deque((name, 1) for name in _next(states[start]))
    seen: set[str] = set()
    while ahead:
        name, length = ahead.popleft()
        if name == start:
            return length
        if name not in seen:
            seen.add(name)
            ahead.extend((each, length + 1) for each in _next(states.get(name, {})))
    return 1


def _next(state: Mapping[str, Any]) -> Iterator[str]:
    """Where a state leads when nothing fails."""
    for rule in (state, *state.get("Choices", ())):
        yield from (rule[key] for key in ("Next", "Default") if key in rule)


def _merged(lines: Sequence[Line]) -> list[Line]:
    """Lines that differ in nothing but resource and quantity become one."""
    merged: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        key = (line.when, line.stack, line.what, line.unit, line.price, line.run)
        before = merged.get(key)
        quantity = line.quantity + (before.quantity if before else 0)
        names = tuple(dict.fromkeys((*(before.resources if before else ()), *line.resources)))
        merged[key] = Line(line.when, line.stack, line.what, quantity, *key[3:5], names, line.run, line.unverified)
    return list(merged.values())
