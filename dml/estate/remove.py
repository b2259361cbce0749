"""`dml dataset remove`: one dataset's stack goes, and nothing else; what it has in the shared buckets, if asked."""

from dataclasses import dataclass

from dml.errors import UserError
from dml.estate import inventory
from dml.estate.existence import unless_gone
from dml.estate.inventory import Contents, Stack
from dml.estate.platform import Platform, answering
from dml.estate.receipt import Receipt, size
from dml.estate.teardown import Say, Taking, empty
from stacks.outputs import Output, dataset_of, dataset_stack

NOTES = "zeppelin/notebook/"  # in the workspace bucket (stacks/emr.py)


@dataclass
class Removal:
    """What is to be done. `places`: bucket and prefix of the dataset's objects, with what lies there."""

    dataset: str
    stack: Stack | None
    places: dict[tuple[str, str], Contents]
    data: bool

    @property
    def kept(self) -> list[inventory.Resource]:
        """What CloudFormation would leave standing (keep_data = true)."""
        return [one for one in self.stack.resources if one.keep] if self.stack else []

    @property
    def sentences(self) -> list[str]:
        """What is about to happen, for people."""
        gone = [f"This deletes the stack {self.stack.name}."] if self.stack else []
        lies = {f"s3://{bucket}/{prefix}": one for (bucket, prefix), one in self.places.items() if one.versions}
        told = [
            f"{'Deleted' if self.data else 'Kept'}: {place} ({one.objects:,} objects, {size(one.bytes)})"
            for place, one in lies.items()
        ]
        word = "Deleted, although it outlives its stack" if self.data else "Kept"
        told += [f"{word}: {one.type} {one.id}" for one in self.kept]
        return gone + told + (["To delete all of that too: --data."] if told and not self.data else [])


def plan(platform: Platform, dataset: str, *, data: bool, say: Say) -> Removal:
    """What `remove` would do. Raises UserError if there is nothing of the dataset, or it is at work."""
    if dataset_of(dataset_stack(dataset)) != dataset:
        raise UserError(f"{dataset} is no dataset's name; deployed are: {_deployed(platform)}.")
    say("reading the stacks")
    standing = inventory.stacks(platform)
    stack = next((one for one in standing if one.part == dataset_stack(dataset)), None)
    if stack:
        at_work = inventory.work(platform, [stack])
        if busy := [*at_work.executions, *(job for job, _ in at_work.job_runs), *at_work.crawlers]:
            raise UserError(f"{dataset} is not removed, since it is at work: {', '.join(busy)}. Wait for its end.")
    places = {
        (platform.output(bucket), f"{below}{dataset}/"): Contents()
        for bucket, below in (
            (Output.RAW_BUCKET, ""),
            (Output.LAKE_BUCKET, ""),
            (Output.MODELS_BUCKET, ""),
            (Output.WORKSPACE_BUCKET, NOTES),
        )
    }
    for bucket, prefix in places:
        say(f"counting what is in {bucket}/{prefix}")
        places[bucket, prefix] = inventory.contents(platform, bucket, prefix=prefix)
    if stack is None and not (data and any(one.versions for one in places.values())):
        raise UserError(
            f"There is no dataset {dataset} in {platform.environment}; deployed are: {_deployed(platform)}."
        )
    return Removal(dataset, stack, places, data)


def _deployed(platform: Platform) -> str:
    return ", ".join(platform.datasets) or "none"


def remove(platform: Platform, found: Removal, *, say: Say, every: float) -> None:
    """Deletes the stack, and then, if asked, the data: nothing writes there any more. Raises UserError."""
    if found.stack:
        receipt = Receipt(platform.environment, "", "", "", "", "", stacks=[found.stack])
        Taking(platform, receipt, say=say, every=every).delete(found.stack)
        if receipt.problems:
            raise UserError("\n".join(receipt.problems))
    if not found.data:
        return
    with answering(f"delete the data of {found.dataset}"):
        for bucket, prefix in found.places:
            empty(platform, bucket, prefix=prefix, say=say)
        for one in found.kept:
            say(f"deleting {one.id}")
            with unless_gone():
                if one.type == "AWS::Glue::Database":
                    platform.client("glue").delete_database(Name=one.id)
                elif one.type == "AWS::Logs::LogGroup":
                    platform.client("logs").delete_log_group(logGroupName=one.id)
                else:
                    raise UserError(f"{one.id} ({one.type}) outlives its stack. Delete it yourself.")
