"""Glue's crawler: catalogues CSV folders as tables, with the rights of the crawler's own role; in the server's process.

One folder under a target's path is one table. Source for what a table looks like: Glue guide, "Parameters set on Data
Catalog tables by crawler", and tables that the real crawler wrote. Folders within it are partitions: their keys are
called as the folders name=value say, others partition_0, partition_1, ... (Glue guide, "Managing partitions for ETL
output"), and are of type string, whatever the values (tables that the real crawler wrote: SS8816/semantic-layer on
GitHub, backend/schema/rdm_changes.sql). Not sourced: files of different depths, and values with %XX
(docs/first-deploy.md).
"""

import json
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from dml.local import hooks
from dml.local.access import iam
from dml.local.clients import client
from dml.local.place import Place
from dml.local.running import SHUT_DOWN, Handle, Running
from dml.local.services import formats
from dml.local.services.glue_telemetry import CRAWLERS, Telemetry, log_group, log_key, read_security
from dml.local.services.inference import BUILT_IN, Classifier, CsvSchema, Sample, infer

SAMPLE_BYTES = 4 * 1024 * 1024
SAMPLED_FILES = 4
MOST_GOT, MOST_CREATED = 1000, 100  # partitions that BatchGetPartition and BatchCreatePartition take (Glue API)
COMMENT = "UPDATED_BY_CRAWLER"
T = TypeVar("T")


class GlueCrawlers:
    """Crawler runs."""

    def __init__(self, place: Place, running: Running) -> None:
        self._place = place
        self._running = running
        self._glue = hooks.module("services.glue")
        self._error = hooks.module("core.responses").error_response_json
        self._reply = hooks.module("core.responses").json_response

    def apply(self) -> None:
        """Extends ministack's Glue, whose crawler only waits."""
        for name in ("_crawlers", "_classifiers"):
            hooks.existing(self._glue, name)
        hooks.replace(self._glue, "_start_crawler", self.start_crawler)
        hooks.replace(self._glue, "_stop_crawler", self.stop_crawler)

    def recover(self) -> None:
        """A crawl that was under way when the embedded cloud died has failed."""
        for crawler in self._glue._crawlers.all_values():
            if crawler["State"] != "READY":
                crawler["LastCrawl"] = _last_crawl(crawler["Name"], time.time(), "FAILED", SHUT_DOWN)
                crawler["State"] = "READY"

    def start_crawler(self, request: Mapping[str, Any]) -> Any:
        """StartCrawler."""
        name = request.get("Name", "")
        crawler = self._glue._crawlers.get(name)
        if crawler is None:
            return self._error("EntityNotFoundException", f"Crawler entry with name {name} does not exist", 400)
        if crawler["State"] != "READY":
            return self._error("CrawlerRunningException", f"Crawler with name {name} has already started", 400)
        crawler["State"] = "RUNNING"
        self._running.start(f"crawler/{name}", lambda handle: self._run(crawler, handle))
        return self._reply({})

    def stop_crawler(self, request: Mapping[str, Any]) -> Any:
        """StopCrawler: the crawl ends before its next table."""
        name = request.get("Name", "")
        handle = self._running.handle(f"crawler/{name}")
        if name not in self._glue._crawlers:
            return self._error("EntityNotFoundException", f"Crawler entry with name {name} does not exist", 400)
        if handle is None:
            return self._error("CrawlerNotRunningException", f"Crawler with name {name} isn't running", 400)
        self._glue._crawlers[name]["State"] = "STOPPING"
        handle.stop("CANCELLED")
        return self._reply({})

    def _run(self, crawler: dict[str, Any], handle: Handle) -> None:
        started = time.time()
        status, message, credentials = "SUCCEEDED", "", None
        try:
            credentials = iam.credentials_of(
                crawler["Role"], "glue.amazonaws.com", "AWS-Crawler", source=f"crawler/{crawler['Name']}"
            )
            read_security(self._place, credentials, crawler.get("CrawlerSecurityConfiguration") or "")
            classifiers = [self._glue._classifiers.get(name, {}) for name in crawler.get("Classifiers", [])]
            Crawl(self._place, crawler, classifiers, credentials, handle).run()
        except (ClientError, iam.RoleError) as error:
            status, message = "FAILED", str(error)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this crawl's failure, and is told as such
            status, message = "FAILED", f"Internal Service Exception: {error!r}"
        if handle.cause:
            status, message = ("CANCELLED", "") if handle.cause == "CANCELLED" else ("FAILED", handle.cause)
        if credentials:
            name, told = crawler["Name"], f"{status}: {message}" if message else status
            security = crawler.get("CrawlerSecurityConfiguration") or ""
            Telemetry(self._place, credentials).send_log(
                log_group(CRAWLERS, security, crawler["Role"]),
                name,
                f"Crawl of {name} ended, {told}",
                key=log_key(security),
            )
        crawler["CrawlElapsedTime"] = round((time.time() - started) * 1000)
        crawler["LastCrawl"] = _last_crawl(crawler["Name"], started, status, message)
        self._running.forget(f"crawler/{crawler['Name']}", handle)  # whoever sees READY may start it again at once
        crawler["State"] = "READY"  # last: whoever waits for it reads LastCrawl next


class Crawl:
    """One run of one crawler."""

    def __init__(
        self,
        place: Place,
        crawler: Mapping[str, Any],
        classifiers: Sequence[Mapping[str, Any]],
        credentials: Mapping[str, str],
        handle: Handle,
    ) -> None:
        self._crawler = crawler
        self._handle = handle
        self._s3 = client(place, "s3", credentials)
        self._catalog = client(place, "glue", credentials)
        csv = [record["CsvClassifier"] for record in classifiers if "CsvClassifier" in record]
        self._classifiers = [*map(Classifier.of, csv), BUILT_IN]

    def run(self) -> None:
        """Catalogues every target; raises ClientError where the role or the catalog refuses."""
        self._catalog.get_database(Name=self._crawler["DatabaseName"])
        seen: set[str] = set()
        for target in self._crawler["Targets"].get("S3Targets", []):
            for location, objects in self._folders(target["Path"]):
                if self._handle.cause:
                    return
                name = self._crawler.get("TablePrefix", "") + _table_name(location)
                if self._catalogue(name, location, objects):
                    seen.add(name)
        self._retire(seen)

    def _folders(self, path: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """The folders of a target that hold data, each with its objects. Files right in the target are a table too."""
        bucket, _, prefix = path.removeprefix("s3://").partition("/")
        prefix = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        folders: dict[str, list[dict[str, Any]]] = {}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                folder, slash, _ = found["Key"].removeprefix(prefix).partition("/")
                hidden = found["Key"].rsplit("/", 1)[-1].startswith(("_", "."))
                if found["Size"] and not hidden and not found["Key"].endswith("/"):
                    folders.setdefault(f"s3://{bucket}/{prefix}" + (f"{folder}/" if slash else ""), []).append(found)
        yield from sorted(folders.items())

    def _catalogue(self, name: str, location: str, objects: Sequence[Mapping[str, Any]]) -> bool:
        """Writes one folder's table; False if the folder holds no data at all."""
        bucket = location.removeprefix("s3://").partition("/")[0]
        samples = [self._sample(bucket, found) for found in objects[:SAMPLED_FILES]]
        samples = [sample for sample in samples if sample.content.strip()]
        if not samples:
            return False

        def ends(file: int, length: int) -> bytes:
            ranged = self._s3.get_object(Bucket=bucket, Key=samples[file].key, Range=f"bytes=-{length}")
            found: bytes = ranged["Body"].read()
            return found

        known = formats.known(samples, ends)
        if known:
            first, counted = objects[0]["Key"], _counted(known, objects)
        else:
            schema = infer(samples, self._classifiers)
            known, first = _of_csv(schema), samples[0].key
            counted = _csv_parameters(schema, samples, len(objects)) if schema else {}
        zipped = first.endswith(".gz")
        keys, folders = _partitions(location, objects)
        table = _table(name, location, known, counted, objects, self._crawler["Name"], compressed=zipped)
        table["PartitionKeys"] = [{"Name": key, "Type": "string"} for key in keys]
        self._write(table)
        self._write_partitions(table, folders)
        return True

    def _write_partitions(self, table: Mapping[str, Any], folders: Mapping[tuple[str, ...], str]) -> None:
        """Adds the partitions that the catalog lacks, each like its table (InheritFromTable), in its own folder."""
        of = {"DatabaseName": self._crawler["DatabaseName"], "TableName": table["Name"]}
        new: list[dict[str, Any]] = []
        for some in _in_parts(list(folders), MOST_GOT):
            asked = [{"Values": list(values)} for values in some]
            answer = self._catalog.batch_get_partition(**of, PartitionsToGet=asked)
            there = {tuple(found["Values"]) for found in answer["Partitions"]}
            for values in some:
                if values not in there:
                    storage = {**table["StorageDescriptor"], "Location": folders[values]}
                    new.append({"Values": list(values), "StorageDescriptor": storage, "Parameters": {}})
        for part in _in_parts(new, MOST_CREATED):
            self._catalog.batch_create_partition(**of, PartitionInputList=part)

    def _sample(self, bucket: str, found: Mapping[str, Any]) -> Sample:
        key = found["Key"]
        body = self._s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{SAMPLE_BYTES - 1}")["Body"].read()
        whole = len(body) >= found["Size"]
        if key.endswith(".gz"):
            unpacker = zlib.decompressobj(wbits=31)
            try:
                body = unpacker.decompress(body, 4 * SAMPLE_BYTES)
            except zlib.error:
                body = b""
            whole = whole and unpacker.eof
        begun = body if whole or body.startswith(formats.MAGIC) else body[: body.rfind(b"\n") + 1]
        return Sample(key, begun, whole)

    def _write(self, table: dict[str, Any]) -> None:
        database = self._crawler["DatabaseName"]
        try:
            existing = self._catalog.get_table(DatabaseName=database, Name=table["Name"])["Table"]
        except self._catalog.exceptions.EntityNotFoundException:
            self._catalog.create_table(DatabaseName=database, TableInput=table)
            return
        if self._merges_new_columns():
            known = existing["StorageDescriptor"]["Columns"]
            names = {column["Name"] for column in known}
            table["StorageDescriptor"]["Columns"] = known + [
                column for column in table["StorageDescriptor"]["Columns"] if column["Name"] not in names
            ]
        elif self._crawler.get("SchemaChangePolicy", {}).get("UpdateBehavior") == "LOG":
            return
        # A crawl without news leaves the table's version alone.
        if any(existing.get(key) != table[key] for key in ("StorageDescriptor", "Parameters", "PartitionKeys")):
            self._catalog.update_table(DatabaseName=database, TableInput=table)

    def _merges_new_columns(self) -> bool:
        configuration = json.loads(self._crawler.get("Configuration") or "{}")
        tables = configuration.get("CrawlerOutput", {}).get("Tables", {})
        return bool(tables.get("AddOrUpdateBehavior") == "MergeNewColumns")

    def _retire(self, seen: set[str]) -> None:
        """Does what DeleteBehavior says with tables of this crawler whose data is gone."""
        behaviour = self._crawler.get("SchemaChangePolicy", {}).get("DeleteBehavior", "DEPRECATE_IN_DATABASE")
        if behaviour == "LOG":
            return
        database = self._crawler["DatabaseName"]
        for page in self._catalog.get_paginator("get_tables").paginate(DatabaseName=database):
            for table in page["TableList"]:
                parameters = table.get("Parameters", {})
                if parameters.get(COMMENT) != self._crawler["Name"] or table["Name"] in seen:
                    continue
                if behaviour == "DELETE_FROM_DATABASE":
                    self._catalog.delete_table(DatabaseName=database, Name=table["Name"])
                elif "DEPRECATED_BY_CRAWLER" not in parameters:
                    kept = {key: table[key] for key in ("Name", "StorageDescriptor", "PartitionKeys", "TableType")}
                    parameters = parameters | {"DEPRECATED_BY_CRAWLER": str(round(time.time() * 1000))}
                    self._catalog.update_table(DatabaseName=database, TableInput=kept | {"Parameters": parameters})


def _in_parts(whole: list[T], most: int) -> list[list[T]]:
    return [whole[start : start + most] for start in range(0, len(whole), most)]


def _partitions(location: str, objects: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[tuple[str, ...], str]]:
    """The partition keys of a table, and each partition's folder by its values. Only files in the deepest folders are
    in partitions.
    """
    home = location.removeprefix("s3://").partition("/")[2]
    below = sorted({tuple(found["Key"].removeprefix(home).split("/")[:-1]) for found in objects})
    deepest = max(below, key=len)
    parts = [folder.partition("=") for folder in deepest]
    keys = [part[0].lower() if part[1] else f"partition_{level}" for level, part in enumerate(parts)]
    folders = {
        tuple(folder.partition("=")[2] if "=" in folder else folder for folder in path): f"{location}{'/'.join(path)}/"
        for path in below
        if path and len(path) == len(deepest)
    }
    return keys, folders


def _of_csv(schema: CsvSchema | None) -> formats.Known:
    """`schema` None is data that no classifier knows."""
    text = "org.apache.hadoop.mapred.TextInputFormat", "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
    if schema is None:
        return formats.Known("UNKNOWN", {}, "", *text)
    serde = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"
    return formats.Known("csv", schema.columns, serde, *text, serde_parameters={"field.delim": schema.delimiter})


def _table(
    name: str,
    location: str,
    known: formats.Known,
    counted: Mapping[str, str],
    objects: Sequence[Mapping[str, Any]],
    crawler: str,
    *,
    compressed: bool,
) -> dict[str, Any]:
    """A TableInput as the real crawler writes it. `counted`: what it says of the records and how they are written."""
    parameters = {
        COMMENT: crawler,
        "CrawlerSchemaDeserializerVersion": "1.0",
        "CrawlerSchemaSerializerVersion": "1.0",
        "classification": known.classification,
        "compressionType": "gzip" if compressed else "none",
        "objectCount": str(len(objects)),
        "sizeKey": str(sum(found["Size"] for found in objects)),
        "typeOfData": "file",
        **counted,
    }
    serde = {"SerializationLibrary": known.serde, "Parameters": known.serde_parameters} if known.serde else {}
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [],
        "Parameters": parameters,
        "StorageDescriptor": {
            "Columns": [{"Name": column, "Type": kind} for column, kind in known.columns.items()],
            "Location": location,
            "InputFormat": known.input_format,
            "OutputFormat": known.output_format,
            "Compressed": compressed,
            "NumberOfBuckets": -1,
            "SerdeInfo": serde,
            "BucketColumns": [],
            "SortColumns": [],
            "Parameters": parameters,
            "StoredAsSubDirectories": False,
        },
    }


def _counted(known: formats.Known, objects: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not known.records or len(objects) > SAMPLED_FILES:
        return {}
    size = sum(found["Size"] for found in objects)
    return {"recordCount": str(known.records), "averageRecordSize": str(round(size / known.records))}


def _csv_parameters(schema: CsvSchema, samples: Sequence[Sample], files: int) -> dict[str, str]:
    found = {"delimiter": schema.delimiter, "columnsOrdered": "true", "areColumnsQuoted": "false"}
    if schema.header:
        found["skip.header.line.count"] = "1"
    lines = sum(sample.content.count(b"\n") + (not sample.content.endswith(b"\n")) for sample in samples)
    records = max(0, lines - len(samples) * schema.header)
    if records:
        found["averageRecordSize"] = str(round(sum(len(sample.content) for sample in samples) / records))
    if len(samples) == files and all(sample.whole for sample in samples):
        found["recordCount"] = str(records)  # counted; the real crawler estimates it from the average size
    return found


def _table_name(location: str) -> str:
    """The folder's name as Glue writes it: lower case, anything but letters, digits and _ becomes _."""
    folder = location.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9_]", "_", folder.lower())


def _last_crawl(name: str, started: float, status: str, message: str) -> dict[str, Any]:
    last = {
        "Status": status,
        "LogGroup": "/aws-glue/crawlers",
        "LogStream": name,
        "MessagePrefix": name,
        "StartTime": started,
    }
    return last | ({"ErrorMessage": message} if message else {})
