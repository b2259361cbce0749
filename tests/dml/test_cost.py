"""`dml cost` on small templates, with figures that can be checked by hand; then on the templates that ship."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dml.cost import assembly, estimate, prices, schedules
from dml.cost.assembly import Assembly
from dml.cost.difference import Difference
from dml.cost.estimate import RUN, STANDING, TRANSIENT, Estimate
from dml.errors import UserError
from stacks.settings import FAMILIES, environment_names

Run = Callable[..., tuple[int, str, str]]
Resources = Mapping[str, Any]
TABLE = prices.load()
HOURS = 730


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


def of(**stacks: Resources) -> Assembly:
    return Assembly("dev", {stack: {"Resources": resources} for stack, resources in stacks.items()})


def price(table: prices.Prices = TABLE, **stacks: Resources) -> Estimate:
    return estimate.estimate(of(**stacks), table)


def volumes(gib: int) -> dict[str, Any]:
    return {"EbsBlockDeviceConfigs": [{"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": gib}}]}


GROUPS = resource(
    "EMR::Cluster",
    Instances={
        "MasterInstanceGroup": {"InstanceCount": 1, "InstanceType": "m7g.xlarge", "EbsConfiguration": volumes(70)},
        "CoreInstanceGroup": {"InstanceCount": 2, "InstanceType": "m7g.xlarge", "EbsConfiguration": volumes(70)},
    },
    EbsRootVolumeSize=30,
    AutoTerminationPolicy={"IdleTimeout": 3600},
)
FLEET = {
    "InstanceFleets": [
        {
            "InstanceFleetType": "MASTER",
            "TargetOnDemandCapacity": 1,
            "InstanceTypeConfigs": [{"InstanceType": "m7g.xlarge", "EbsConfiguration": volumes(70)}],
        },
        {
            "InstanceFleetType": "TASK",
            "TargetOnDemandCapacity": 0,
            "TargetSpotCapacity": 3,
            "InstanceTypeConfigs": [
                {"InstanceType": "m6g.xlarge", "EbsConfiguration": volumes(70)},
                {"InstanceType": "r7g.xlarge", "EbsConfiguration": volumes(70)},
            ],
        },
    ]
}


def machine(**more: Any) -> dict[str, Any]:
    """The templates of a pipeline: its state machine imports crawler and job from another stack."""
    states = {
        "crawl: start": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:glue:startCrawler",
            "Arguments": {"Name": "CRAWLER"},
            "Next": "crawl: wait",
        },
        "crawl: wait": {"Type": "Wait", "Seconds": 20, "Next": "crawl: ended?"},
        "crawl: ended?": {"Type": "Choice", "Choices": [{"Next": "crawl: wait"}], "Default": "prepare"},
        "prepare": {
            "Type": "Task",
            "Resource": "arn:aws:states:::glue:startJobRun.sync",
            "Arguments": {"JobName": "JOB"},
            "Next": "create",
        },
        "create": {
            "Type": "Task",
            "Resource": "arn:aws:states:::elasticmapreduce:createCluster",
            "Arguments": {"Instances": FLEET, "EbsRootVolumeSize": 30},
            "End": True,
        },
    }
    text = json.dumps({"States": states})
    before, _, rest = text.partition("CRAWLER")
    between, _, after = rest.partition("JOB")
    definition = [before, {"Fn::ImportValue": "a-crawler"}, between, {"Fn::ImportValue": "a-job"}, after]
    exports = {
        name: {"Value": {"Ref": ref}, "Export": {"Name": f"a-{name}"}}
        for name, ref in (("crawler", "Crawler"), ("job", "Job"))
    }
    etl = {
        "Crawler": resource("Glue::Crawler"),
        "Job": resource(
            "Glue::Job", WorkerType="G.2X", NumberOfWorkers=3, DefaultArguments={"--dataset": "flights"}, **more
        ),
    }
    pipeline = {
        "Machine": resource("StepFunctions::StateMachine", DefinitionString={"Fn::Join": ["", definition]}),
    }
    return {"etl": {"Resources": etl, "Outputs": exports}, "pipeline": {"Resources": pipeline}}


def test_what_stands_should_cost_its_hours_and_months() -> None:
    found = price(
        network={"Nat": resource("EC2::NatGateway"), "Address": resource("EC2::EIP")},
        data={"Key": resource("KMS::Key"), "One": resource("S3::Bucket"), "Two": resource("S3::Bucket")},
    )
    assert found.sum(STANDING, stacks=["network"]) == pytest.approx(HOURS * (0.045 + 0.005))
    assert found.sum(STANDING, stacks=["data"]) == pytest.approx(1 + TABLE.assumed("data_gb") * 0.023)
    assert found.totals["an idle day"] == pytest.approx(24 / HOURS * found.sum(STANDING))


def test_an_interface_endpoint_should_cost_in_each_zone_and_a_gateway_endpoint_nothing() -> None:
    interface = resource("EC2::VPCEndpoint", VpcEndpointType="Interface", SubnetIds=["a", "b"])
    found = price(network={"Glue": interface, "S3": resource("EC2::VPCEndpoint", VpcEndpointType="Gateway")})
    assert found.sum(STANDING) == pytest.approx(2 * HOURS * 0.01)
    assert found.free == {"AWS::EC2::VPCEndpoint": 1}


def test_a_workbench_should_cost_machines_fees_and_disks() -> None:
    found = price(cluster={"Workbench": GROUPS})
    assert found.workbench_hour == pytest.approx(3 * (0.1632 + 0.0408 + 100 * 0.08 / HOURS))
    assert found.totals["a month forgotten, the workbench kept up"] == pytest.approx(HOURS * found.workbench_hour)
    assert "60 minutes" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("way_out", "rate"),
    [
        (resource("EC2::NatGateway"), 0.045),
        (resource("EC2::VPCEndpoint", VpcEndpointType="Interface", SubnetIds=["a"]), 0.01),
    ],
    ids=["nat", "endpoints"],
)
def test_a_clusters_traffic_should_be_billed_by_what_it_passes(way_out: dict[str, Any], rate: float) -> None:
    with_data = price(cluster={"Workbench": GROUPS}, network={"Out": way_out}).workbench_hour
    assert with_data - price(cluster={"Workbench": GROUPS}).workbench_hour == pytest.approx(
        TABLE.assumed("network_gb_per_cluster_hour") * rate
    )


def test_spot_should_lower_the_price_of_the_machine_and_not_emrs_fee() -> None:
    cluster = resource("EMR::Cluster", Instances=FLEET, EbsRootVolumeSize=30)
    found = price(cluster={"Workbench": cluster})
    disks = 4 * 100 * 0.08 / HOURS
    # Of the task fleet's types the dearest counts: which one EMR gets is not known.
    machines = 0.1632 * 1.25 + 3 * 0.2142 * (TABLE.spot.price_share + 0.25)
    assert found.workbench_hour == pytest.approx(machines + disks)


def test_what_managed_scaling_may_add_should_be_told() -> None:
    limits = {"UnitType": "Instances", "MinimumCapacityUnits": 2, "MaximumCapacityUnits": 9}
    cluster = {**GROUPS, "Properties": {**GROUPS["Properties"], "ManagedScalingPolicy": {"ComputeLimits": limits}}}
    (note, _) = price(cluster={"Workbench": cluster}).notes
    most = 10 * (0.1632 + 0.0408 + 100 * 0.08 / HOURS)
    assert "9 workers" in note and f"{most:.2f} an hour" in note


def test_scaling_should_stop_at_the_limit_of_machines_on_demand() -> None:
    limits = {"UnitType": "InstanceFleetUnits", "MinimumCapacityUnits": 3, "MaximumCapacityUnits": 8}
    cluster = resource(
        "EMR::Cluster",
        Instances=FLEET,
        EbsRootVolumeSize=30,
        ManagedScalingPolicy={"ComputeLimits": limits | {"MaximumOnDemandCapacityUnits": 0}},
    )
    (note, _) = price(cluster={"Workbench": cluster}).notes
    most = 0.1632 * 1.25 + 8 * 0.2142 * (TABLE.spot.price_share + 0.25) + 9 * 100 * 0.08 / HOURS
    assert "8 workers" in note and f"{most:.2f} an hour" in note


def test_a_run_should_cost_crawl_job_state_machine_and_its_own_cluster() -> None:
    found = estimate.estimate(Assembly("dev", machine()), TABLE)
    by_what = {line.what.partition(",")[0]: line.usd for line in found.lines if line.when == RUN}
    assert by_what["crawl"] == pytest.approx(2 * 10 / 60 * 0.44)  # two minutes, billed as ten
    assert by_what["Glue job"] == pytest.approx(3 * 2 * TABLE.assumed("prepare_minutes") / 60 * 0.44)
    # Five states, and two a poll of the crawl: two minutes, every 20 seconds.
    assert by_what["state machine"] == pytest.approx((5 + 6 * 2) * 0.000025)
    hours = (TABLE.assumed("cluster_start_minutes") + TABLE.assumed("step_minutes")) / 60
    machines = 0.1632 * 1.25 + 3 * 0.2142 * (TABLE.spot.price_share + 0.25) + 4 * 100 * 0.08 / HOURS
    assert found.sum(TRANSIENT) == pytest.approx(hours * machines)
    (run,) = found.runs
    assert run.dataset == "flights"
    assert found.totals["a run, with a cluster of its own"] == pytest.approx(found.sum(RUN) + hours * machines)


def test_a_short_job_should_be_billed_its_minute_and_a_flexible_one_less() -> None:
    short = TABLE.assuming(["prepare_minutes=0.1"])
    found = estimate.estimate(Assembly("dev", machine(ExecutionClass="FLEX")), short)
    (job,) = [line for line in found.lines if line.what.startswith("Glue job")]
    assert job.usd == pytest.approx(6 / 60 * 0.29)


@pytest.mark.parametrize(
    ("state", "runs"), [("ENABLED", HOURS / 24 / 7), ("DISABLED", 0)], ids=["when on", "not when off"]
)
def test_scheduled_runs_should_be_in_the_month(state: str, runs: float) -> None:
    templates = machine()
    templates["pipeline"]["Resources"]["Weekly"] = resource(
        "Events::Rule", ScheduleExpression="cron(0 5 ? * MON *)", State=state, Targets=[{"Arn": {"Ref": "Machine"}}]
    )
    found = estimate.estimate(Assembly("dev", templates), TABLE)
    assert found.scheduled_month == pytest.approx(runs * (found.sum(RUN) + found.sum(TRANSIENT)))
    assert found.totals["a month with nobody there"] == pytest.approx(found.sum(STANDING) + found.scheduled_month)


@pytest.mark.parametrize(
    ("expression", "a_month"),
    [
        ("rate(1 day)", 730 / 24),
        ("rate(12 hours)", 730 / 12),
        ("cron(0 5 * * ? *)", 730 / 24),
        ("cron(0/15 8-17 ? * MON-FRI *)", 4 * 10 * 730 / 24 * 5 / 7),
        ("cron(30 6 1,15 * ? *)", 2),
        ("cron(0 0 L * ? *)", 1),
        ("cron(0 0 ? JAN,JUL 2#1 *)", 2 / 12),
    ],
)
def test_a_schedule_should_be_counted(expression: str, a_month: float) -> None:
    assert schedules.runs_per_month(expression, HOURS) == pytest.approx(a_month)


def test_a_schedule_that_nobody_can_count_should_be_named() -> None:
    rule = resource("Events::Rule", ScheduleExpression="cron(at dawn)", Targets=[{"Arn": {"Ref": "Machine"}}])
    templates = machine()
    templates["pipeline"]["Resources"]["Dawn"] = rule
    (unknown,) = estimate.estimate(Assembly("dev", templates), TABLE).unknown
    assert "cron(at dawn)" in unknown.sentence


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (resource("RDS::DBInstance"), "AWS::RDS::DBInstance"),
        (resource("Lambda::Function"), "AWS::Lambda::Function"),
        (resource("EMR::Cluster", Instances={"MasterInstanceGroup": {"InstanceType": "x9.large"}}), "x9.large"),
    ],
)
def test_what_has_no_price_should_be_named_with_its_place(made: dict[str, Any], named: str) -> None:
    (unknown,) = price(cluster={"Thing": made}).unknown
    assert named in unknown.sentence and "cluster: Thing" in unknown.sentence


def test_cdks_own_functions_should_be_free() -> None:
    function = {"CustomS3AutoDeleteObjectsProvider1234ABCD": resource("Lambda::Function")}
    assert not price(data=function).unknown


def test_a_changed_price_should_change_what_depends_on_it_alone() -> None:
    stacks: Mapping[str, Resources] = {"network": {"Nat": resource("EC2::NatGateway"), "Address": resource("EC2::EIP")}}
    rates = {**TABLE.rates, "nat_gateway": TABLE.rates["nat_gateway"].model_copy(update={"usd": 0.1})}
    dearer = price(TABLE.model_copy(update={"rates": rates}), **stacks)
    assert dearer.sum(STANDING) - price(**stacks).sum(STANDING) == pytest.approx(HOURS * (0.1 - 0.045))


def test_what_aws_gives_an_account_should_be_given_once_and_to_what_stays_first() -> None:
    alarms = {f"Alarm{i}": resource("CloudWatch::Alarm", Period=300) for i in range(8)}
    found = price(workbench=alarms, observability=alarms)
    assert found.sum(STANDING) == pytest.approx((16 - 10) * 0.10)
    assert found.totals["a month after dml pause"] == pytest.approx(0)
    assert found.sum(STANDING, stacks=["workbench"]) == pytest.approx((8 - 2) * 0.10)


def test_pause_should_leave_the_stacks_that_it_does_not_take_away() -> None:
    key = {"Key": resource("KMS::Key")}
    found = price(data=key, observability=key, cluster=key, network=key, penguins=key, workbench=key)
    assert found.totals["a month after dml pause"] == pytest.approx(4)


def test_a_difference_should_show_what_was_added_and_removed_and_nothing_that_only_moved() -> None:
    nat, key = resource("EC2::NatGateway"), resource("KMS::Key")
    one_zone = price(network={"Nat1": nat}, cluster={"Key": key}, data={"Old": resource("CloudWatch::Dashboard")})
    two_zones = price(network={"Nat1": nat, "Nat2": nat}, data={"Key": key})
    difference = Difference("main", one_zone, two_zones)
    changes = {change.what: change for change in difference.changes}
    assert set(changes) == {"NAT gateway", "dashboard", "dashboards that AWS gives an account"}
    assert changes["NAT gateway"].added == ("Nat2",)
    assert changes["NAT gateway"].after - changes["NAT gateway"].before == pytest.approx(HOURS * 0.045)
    assert changes["dashboard"].removed == ("Old",)
    before, after = difference.totals["a month with nobody there"]
    assert after - before == pytest.approx(HOURS * 0.045)


def test_an_assumption_should_be_named_and_a_number() -> None:
    assert price(TABLE.assuming(["data_gb=100"]), data={"One": resource("S3::Bucket")}).sum(STANDING) == pytest.approx(
        2.3
    )
    for wrong, told in (("gigabytes=1", "data_gb"), ("data_gb=many", "number"), ("data_gb=-1", "number")):
        with pytest.raises(UserError, match=told):
            TABLE.assuming([wrong])


def test_a_size_should_be_priced_in_proportion_and_an_older_fee_be_capped() -> None:
    large, huge, old = (TABLE.instance(name) for name in ("m7g.large", "m7g.16xlarge", "m5.8xlarge"))
    assert large and huge and old
    assert (large.ec2, large.emr) == pytest.approx((0.0816, 0.0204))
    assert (huge.ec2, huge.vcpu, huge.gib) == pytest.approx((2.6112, 64, 256))
    assert old.emr == pytest.approx(0.27)
    assert TABLE.instance("m7g.metal") is None


def test_every_family_that_an_environment_may_choose_should_have_a_price() -> None:
    names = [
        f"{kind}{generation}" for kind in "cmr" for generation in ("5", "5a", "6g", "6i", "6a", "7g", "7i", "7a", "8g")
    ]
    allowed = [name for name in names if any(re.match(pattern, f"{name}.") for pattern in FAMILIES.values())]
    assert len(allowed) >= 27 and set(allowed) <= set(TABLE.families)


# --- The templates that ship ---


@pytest.fixture(scope="module")
def assemblies(assembly_of: Callable[[str], Path]) -> dict[str, Assembly]:
    """Every environment of this checkout."""
    return {found.environment: found for name in environment_names() for found in assembly.read(assembly_of(name))}


def test_every_resource_that_ships_should_be_priced_or_known_to_be_free(assemblies: dict[str, Assembly]) -> None:
    for templates in assemblies.values():
        found = estimate.estimate(templates, TABLE)
        assert not found.unknown, [each.sentence for each in found.unknown]
        assert found.runs and all(run.common > 0 and run.transient > 0 for run in found.runs)


def test_a_paused_dev_should_cost_little(assemblies: dict[str, Assembly]) -> None:
    found = estimate.estimate(assemblies["dev"], TABLE)
    # The key of the clusters' disks, what looks after lost clusters, Zeppelin's login, and alarms beyond those that AWS
    # gives an account.
    assert 1 < found.totals["a month after dml pause"] < 4.5
    assert found.totals["an hour with the workbench up"] > found.standing_hour > 0


def test_dml_cost_should_print_the_totals_the_date_and_what_a_change_costs(
    dml: Run, assemblies: dict[str, Assembly], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dml.cost.pricing.synthesize", assemblies.__getitem__)  # as is done for them
    nats = [each for each in assemblies["dev"].resources if each.type == "AWS::EC2::NatGateway"]
    for stack, template in assemblies["dev"].templates.items():
        kept = {k: v for k, v in template["Resources"].items() if k not in {nat.name for nat in nats}}
        file = tmp_path / f"dml-dev-{stack}.template.json"
        file.write_text(json.dumps({**template, "Resources": kept}))
    code, printed, _ = dml("cost", "--env", "dev", "--against", str(tmp_path), "--markdown")
    assert code == 0
    assert f"{TABLE.checked}" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("| NAT gateway")]
    assert f"| 0.00 | {len(nats) * HOURS * 0.045:.2f} |" in line


def test_dml_cost_of_a_revision_should_be_that_revisions(assemblies: dict[str, Assembly]) -> None:
    earlier = assembly.synthesize_revision("HEAD", "dev")
    found = estimate.estimate(earlier, TABLE)
    assert set(earlier.templates) == set(assemblies["dev"].templates) and found.runs


def test_a_revision_that_does_not_exist_should_be_refused_with_what_to_give() -> None:
    with pytest.raises(UserError, match=r"no revision 'no-such-branch'.*Give a branch"):
        assembly.synthesize_revision("no-such-branch", "dev")


def test_a_folder_without_templates_should_be_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no templates"):
        list(assembly.read(tmp_path))


def test_dml_cost_should_end_with_1_if_a_price_is_missing(dml: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = of(network={"Nat": resource("EC2::NatGateway"), "Ball": resource("Crystal::Ball")})
    monkeypatch.setattr("dml.cost.pricing.synthesize", lambda name: strange)
    code, printed, told = dml("cost", "--env", "dev")
    assert code == 1 and "AWS::Crystal::Ball (network: Ball)" in told
    assert "32.85" in printed and "Not in the price table" in printed
