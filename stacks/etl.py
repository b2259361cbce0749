"""From raw files to features, made at synth time: a dataset's crawler and the Glue job that prepares it."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct, IConstruct

from jobs.tables.settings import Dataset
from stacks import code
from stacks.data import READ, WRITE, DataStack, use_key
from stacks.findings import (
    AWS_KEYS,
    LOG_GROUPS,
    NO_RESOURCE,
    OBJECTS,
    OWN_CODE,
    TABLES,
    accept,
    accept_in_template,
    accept_wildcards,
)
from stacks.outputs import crawler_output, pascal
from stacks.settings import Environment

GLUE_VERSION = "5.1"  # Spark 3.5.6, the same as EMR's (stacks/emr.py) and the local one (requirements.txt)
TABLE_LEVEL = 3  # how deep the folder lies that becomes a table, counting the bucket as 1: s3://RAW/{dataset}/{table}/

READ_TABLES = ["glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:GetPartition", "glue:GetPartitions"]
WRITE_TABLES = ["glue:CreateTable", "glue:UpdateTable"]


class Etl(Construct):
    """A dataset's crawler and Glue job, each with a role of its own: `crawler` and `prepare` are their names."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        dataset: Dataset,
        database: str,
        shipped: code.Shipped,
        data: DataStack,
    ) -> None:
        super().__init__(scope, id)
        self._stack = cdk.Stack.of(self)
        self._environment, self._dataset, self._database, self._data = environment, dataset.name, database, data
        self._code = shipped
        self._security = encrypt(self, environment, dataset.name, data.key) if data.key else None
        self._log_reasons = dict.fromkeys(["WriteLogs", "EncryptLogs"] if data.key else ["WriteLogs"], LOG_GROUPS)
        name = f"dml-{environment.name}-{dataset.name}"
        self.crawler = self._crawler([csv_classifier(self, name, dialect) for dialect in dialects_of(dataset)])
        self.prepare = self._prepare()

    def _crawler(self, classifiers: list[str]) -> str:
        dataset = self._dataset
        role = self._role(
            "CrawlerRole",
            f"Worn by the crawler of {dataset}",
            "crawl",
            self._crawler_rights(),
            {"ReadRaw": OBJECTS, "CatalogueTables": TABLES, **self._security_reasons},
        )
        crawler = glue.CfnCrawler(
            self,
            "Crawler",
            description=f"Catalogues the raw tables of {dataset}: each folder is a table",
            role=role.role_arn,
            database_name=self._database,
            classifiers=classifiers,
            crawler_security_configuration=self._security,
            targets=glue.CfnCrawler.TargetsProperty(
                s3_targets=[glue.CfnCrawler.S3TargetProperty(path=f"s3://{self._data.raw.bucket_name}/{dataset}/")]
            ),
            schema_change_policy=glue.CfnCrawler.SchemaChangePolicyProperty(
                update_behavior="UPDATE_IN_DATABASE", delete_behavior="LOG"
            ),
            configuration=json.dumps(
                {
                    "Version": 1.0,
                    "CrawlerOutput": {"Partitions": {"AddOrUpdateBehavior": "InheritFromTable"}},
                    # Else it makes an index of each partitioned table, which takes more rights and serves nobody here.
                    "CreatePartitionIndex": False,
                    "Grouping": {
                        "TableGroupingPolicy": "CombineCompatibleSchemas",
                        "TableLevelConfiguration": TABLE_LEVEL,
                    },
                }
            ),
        )
        self._accept_own_encryption(crawler, "AwsSolutions-GL1")
        output = crawler_output(dataset)
        cdk.CfnOutput(self, f"{output}Name", value=crawler.ref).override_logical_id(output)
        return crawler.ref

    def _crawler_rights(self) -> list[iam.PolicyStatement]:
        raw = self._data.raw
        return [
            *read_prefix("Raw", raw.bucket_arn, f"{self._dataset}/"),
            iam.PolicyStatement(
                sid="CatalogueTables",
                actions=[
                    *READ_TABLES,
                    *WRITE_TABLES,
                    "glue:BatchGetPartition",
                    "glue:BatchCreatePartition",
                    "glue:CreatePartition",
                    "glue:UpdatePartition",
                ],
                resources=catalog_arns(self._stack, self._database),
            ),
            *self._read_security(),
            *log_statements(self._stack, "/aws-glue/crawlers", encrypted=bool(self._data.key)),
            *use_key(self._data.key, *READ, service="s3"),
        ]

    def _prepare(self) -> str:
        dataset = self._dataset
        role = self._role(
            "PrepareRole",
            f"Worn by the Glue job that prepares {dataset}",
            "prepare",
            self._prepare_rights(),
            {
                "ReadOwnCode": OWN_CODE,
                "ReadRaw": OBJECTS,
                "WriteLake": OBJECTS,
                "PublishFeatures": TABLES,
                "SendMetrics": NO_RESOURCE,
                **self._security_reasons,
            },
        )
        settings = self._environment.etl
        job = glue.CfnJob(
            self,
            "Prepare",
            description=f"Joins and cleans the raw tables of {dataset} into the table `features`",
            role=role.role_arn,
            glue_version=GLUE_VERSION,
            worker_type=settings.worker_type,
            number_of_workers=settings.workers,
            timeout=settings.timeout_minutes,
            security_configuration=self._security,
            max_retries=0,  # whether to try again is the state machine's decision
            # Two runs at once would race for the table `features`: the second one waits (stacks/pipeline.py).
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=1),
            command=glue.CfnJob.JobCommandProperty(
                name="glueetl", python_version="3", script_location=self._code.prepare
            ),
            default_arguments={
                "--extra-py-files": self._code.py_files,
                "--enable-metrics": "true",
                "--enable-observability-metrics": "true",
                "--enable-continuous-cloudwatch-log": "true",
                "--job-language": "python",
                "--dataset": dataset,
                "--database": self._database,
                "--lake": f"s3://{self._data.lake.bucket_name}/",
                "--region": self._stack.region,
            },
        )
        self._accept_own_encryption(job, "AwsSolutions-GL1", "AwsSolutions-GL3")
        return job.ref

    def _role(
        self, id: str, description: str, policy: str, rights: Sequence[iam.PolicyStatement], wildcards: dict[str, str]
    ) -> iam.Role:
        """Worn by Glue, which logs with it; `wildcards`: why its statements have some, but for those about logs."""
        role = iam.Role(
            self,
            id,
            description=description,
            assumed_by=iam.ServicePrincipal("glue.amazonaws.com"),
            inline_policies={policy: iam.PolicyDocument(statements=rights)},
        )
        accept_wildcards(role, rights, {**wildcards, **self._log_reasons})
        return role

    def _read_security(self) -> list[iam.PolicyStatement]:
        """Glue reads the security configuration as whoever runs under it; the action knows no resource."""
        reading = iam.PolicyStatement(
            sid="ReadSecurityConfiguration", actions=["glue:GetSecurityConfiguration"], resources=["*"]
        )
        return [reading] if self._security else []

    @property
    def _security_reasons(self) -> dict[str, str]:
        return {"ReadSecurityConfiguration": NO_RESOURCE} if self._security else {}

    def _accept_own_encryption(self, construct: IConstruct, *findings: str) -> None:
        if not self._security:
            accept(construct, dict.fromkeys(findings, AWS_KEYS))
            accept_in_template(construct, {"CKV_AWS_195": AWS_KEYS})

    def _prepare_rights(self) -> list[iam.PolicyStatement]:
        lake, dataset = self._data.lake.bucket_arn, self._dataset
        return [
            *code.read_statements(self._environment, self._code.asset),
            *read_prefix("Raw", self._data.raw.bucket_arn, f"{dataset}/"),
            *write_prefixes("Lake", lake, [f"{dataset}/{folder}/" for folder in ("features", "quarantine", "runs")]),
            iam.PolicyStatement(
                sid="PublishFeatures",
                actions=[*READ_TABLES, *WRITE_TABLES],
                resources=catalog_arns(self._stack, self._database),
            ),
            *self._read_security(),
            *log_statements(self._stack, "/aws-glue", encrypted=bool(self._data.key)),
            *use_key(self._data.key, *WRITE, service="s3"),
            iam.PolicyStatement(
                sid="SendMetrics",
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],  # this action knows no resources
                conditions={"StringEquals": {"cloudwatch:namespace": "Glue"}},
            ),
        ]


@dataclass(frozen=True, order=True)
class Dialect:
    """What Glue's CSV classifiers can be told of a table's files; encoding is not among it, they read UTF-8 only.

    So a Latin-1 table may be catalogued with garbled names or as UNKNOWN. No matter which, prepare.py finds its place.
    """

    delimiter: str
    quote: str
    header: bool

    @property
    def name(self) -> str:
        """In words, such as csv-with-header, or csv-semicolon-with-header: only what is not the usual is named."""
        signs = [
            unicodedata.name(sign, f"character {ord(sign)}").lower().replace(" ", "-")
            for sign, usual in ((self.delimiter, ","), (self.quote, '"'))
            if sign != usual
        ]
        return "-".join(["csv", *signs, "with-header" if self.header else "without-header"])


def dialects_of(dataset: Dataset) -> list[Dialect]:
    """The dialects of a dataset's tables, each once, in the order in which its crawler shall try them.

    A crawler has one list for all its tables and takes the first that fits. A comma fits many a file that is separated
    by something else, since text and decimals hold commas, and so it comes last. Whether there is a header cannot be
    seen: of tables that differ in nothing else, all are taken to have one. Then the catalog's columns are wrong for
    those without, but not the jobs, which know better from dataset.toml.
    """
    of_csv = [table for table in dataset.tables.values() if table.format == "csv"]  # Glue knows the others itself
    dialects = {Dialect(table.delimiter, table.quote, table.header) for table in of_csv}
    return sorted(dialects, key=lambda dialect: (dialect.delimiter == ",", not dialect.header, dialect))


def csv_classifier(scope: Construct, whose: str, dialect: Dialect) -> str:
    """CSV whose header line is said rather than guessed: of an all-text file Glue calls the columns col0, col1, ...

    Glue's API wants a name for a classifier, hence the physical one; it begins with `whose`.
    """
    classifier = glue.CfnClassifier(
        scope,
        pascal(dialect.name.replace("-", "_")),
        csv_classifier=glue.CfnClassifier.CsvClassifierProperty(
            name=f"{whose}-{dialect.name}",
            contains_header="PRESENT" if dialect.header else "ABSENT",
            delimiter=dialect.delimiter,
            quote_symbol=dialect.quote,
            # With one column any text would fit, and the next classifier would not be tried.
            allow_single_column=False,
        ),
    )
    return classifier.ref


def read_prefix(what: str, bucket_arn: str, prefix: str) -> list[iam.PolicyStatement]:
    """The rights to list a bucket and to read what lies under one of its prefixes.

    Listing is not narrowed to the prefix: without the plain right S3 answers 403 instead of 404 for a key that isn't
    there, and Spark, which asks for a folder as if it were a file first, stops at that.
    """
    return [
        iam.PolicyStatement(
            sid=f"List{what}", actions=["s3:ListBucket", "s3:GetBucketLocation"], resources=[bucket_arn]
        ),
        iam.PolicyStatement(sid=f"Read{what}", actions=["s3:GetObject"], resources=[f"{bucket_arn}/{prefix}*"]),
    ]


def write_prefixes(what: str, bucket_arn: str, prefixes: Sequence[str]) -> list[iam.PolicyStatement]:
    """The rights that Spark needs to write under some prefixes of a bucket; it deletes its own temporary files."""
    return [
        iam.PolicyStatement(
            sid=f"List{what}",
            actions=["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
            resources=[bucket_arn],
        ),
        iam.PolicyStatement(
            sid=f"Write{what}",
            actions=[
                "s3:GetObject",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            resources=[f"{bucket_arn}/{prefix}*" for prefix in prefixes],
        ),
    ]


def catalog_arns(stack: cdk.Stack, *databases: str) -> list[str]:
    """The catalog, these databases and their tables: Glue checks a call on a table against all three."""
    return [
        stack.format_arn(service="glue", resource="catalog"),
        *(stack.format_arn(service="glue", resource="database", resource_name=database) for database in databases),
        *(stack.format_arn(service="glue", resource="table", resource_name=f"{database}/*") for database in databases),
    ]


def log_statements(stack: cdk.Stack, group: str, *, encrypted: bool) -> list[iam.PolicyStatement]:
    """The rights to write logs to the groups whose names begin with `group`, and to have Glue encrypt them."""
    groups = stack.format_arn(
        service="logs",
        resource="log-group",
        resource_name=f"{group}*",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    writing = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    return [
        iam.PolicyStatement(sid="WriteLogs", actions=writing, resources=[groups]),
        *(
            [iam.PolicyStatement(sid="EncryptLogs", actions=["logs:AssociateKmsKey"], resources=[groups])]
            if encrypted
            else []
        ),
    ]


def encrypt(scope: Construct, environment: Environment, dataset: str, key: kms.Key) -> str:
    """Glue's security configuration: its name. What crawler and job log and write goes under the customer's key."""
    sse = {"kms_key_arn": key.key_arn}
    made = glue.CfnSecurityConfiguration(
        scope,
        "Security",
        name=f"dml-{environment.name}-{dataset}",  # Glue's API wants one; log groups are named after it
        encryption_configuration=glue.CfnSecurityConfiguration.EncryptionConfigurationProperty(
            cloud_watch_encryption=glue.CfnSecurityConfiguration.CloudWatchEncryptionProperty(
                cloud_watch_encryption_mode="SSE-KMS", **sse
            ),
            job_bookmarks_encryption=glue.CfnSecurityConfiguration.JobBookmarksEncryptionProperty(
                job_bookmarks_encryption_mode="CSE-KMS", **sse
            ),
            s3_encryptions=[glue.CfnSecurityConfiguration.S3EncryptionProperty(s3_encryption_mode="SSE-KMS", **sse)],
        ),
    )
    return made.ref
