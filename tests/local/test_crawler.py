"""The crawler catalogues what lies in the raw bucket as Glue's own does, under its role."""

import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest

from dml.estate import data
from dml.local.services.inference import BUILT_IN, Classifier, CsvSchema, Sample, infer
from jobs.tables.settings import Source
from tests.embedded import Clients
from tests.jobs import points
from tests.local.conftest import until

WITH_HEADER = Classifier(delimiter=",", quote='"', header=True)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        pytest.param("Year,carrier,dep\n2013,UA,1.5\n2014,AA,2\n", "year:bigint carrier:string dep:double", id="types"),
        pytest.param('a,b\n"x, y",1\n"two\nlines",2\n', "a:string b:bigint", id="quoted delimiters and newlines"),
        pytest.param("a,b\r\n1,x\r\n2,y\r\n", "a:bigint b:string", id="windows line ends"),
        pytest.param("\ufeffa,b\n1,x\n2,y\n", "a:bigint b:string", id="byte order mark"),
        pytest.param("a,b\n1,\n,2\n3,\n", "a:bigint b:bigint", id="empty values"),
        pytest.param("a,b\n1,NA\n2,3\n", "a:bigint b:string", id="NA is a word"),
        pytest.param("a,b,c\n1,2,3\n1,2\n1,2,3,4\n5,6,7\n", "a:bigint b:bigint c:bigint", id="ragged rows"),
        pytest.param(
            "when,ok\n2013-01-01 05:00:00,true\n2013-01-02 06:00:00,false\n", "when:string ok:boolean", id="times"
        ),
        pytest.param("A,a,B\n1,2,3\n4,5,6\n", "a:bigint a_1:bigint b:bigint", id="names that differ in case only"),
        pytest.param("a,b\n", "a:string b:string", id="a header and nothing else"),
        pytest.param("a,b", "a:string b:string", id="a header without a line end"),
        pytest.param("id,big\n1,99999999999\n2,3\n", "id:bigint big:bigint", id="large numbers"),
        pytest.param("größe,naïve name\n1,2\n3,4\n", "größe:bigint naïve name:bigint", id="names beyond ASCII"),
    ],
)
def test_csv_with_a_header_should_be_understood(text: str, columns: str) -> None:
    schema = infer([Sample("a.csv", text.encode(), whole=True)], [WITH_HEADER])
    assert schema is not None
    assert " ".join(f"{name}:{kind}" for name, kind in schema.columns.items()) == columns


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"PAR1\x00\x15\x04\x15\xff\xfe\x00PAR1", b"one column\nof text\n", b"\x80\x81,\xff\n\xfe,1\n"],
)
def test_what_is_not_csv_should_be_left_unknown(content: bytes) -> None:
    assert infer([Sample("a.csv", content, whole=True)], [WITH_HEADER]) is None


def test_without_a_classifier_the_dialect_should_be_found_out() -> None:
    schema = infer([Sample("a.csv", b"id;price\n1;2.5\n2;3.5\n", whole=True)], [BUILT_IN])
    assert schema == CsvSchema({"id": "bigint", "price": "double"}, ";", True)


SEMICOLONS = Classifier(delimiter=";", quote='"', header=True)
NO_HEADER = Classifier(delimiter=",", quote='"', header=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "id;price;note\n1;2,5;x\n2;3,5;y\n",
            CsvSchema({"id": "bigint", "price": "string", "note": "string"}, ";", True),
        ),
        ("id,note\n1,a;b\n2,c\n", CsvSchema({"id": "bigint", "note": "string"}, ",", True)),
        (
            "id\tnote\n1\ta\n2\tb\n",
            CsvSchema({"id": "bigint", "note": "string"}, "\t", True),
        ),  # the built-in one's turn
    ],
)
def test_the_first_classifier_that_fits_should_decide(text: str, expected: CsvSchema) -> None:
    assert infer([Sample("a.csv", text.encode(), whole=True)], [SEMICOLONS, WITH_HEADER, BUILT_IN]) == expected


def test_columns_without_a_header_should_be_numbered() -> None:
    schema = infer([Sample("a.csv", b"39, State-gov, <=50K\n50, Private, >50K\n", whole=True)], [NO_HEADER])
    assert schema == CsvSchema({"col0": "bigint", "col1": "string", "col2": "string"}, ",", False)


def test_files_of_one_folder_should_get_the_types_that_hold_all_their_values() -> None:
    texts = (b"a,b\n1,2\n3,4\n", b"a,b\n1.5,x\n2.5,y\n", b"a,b,c\n1,2,3\n4,5,6\n")
    schema = infer([Sample(f"{n}.csv", text, whole=True) for n, text in enumerate(texts)], [WITH_HEADER])
    assert schema is not None
    assert schema.columns == {"a": "double", "b": "string", "c": "bigint"}


@pytest.fixture
def raw(aws: Clients, platform: dict[str, str]) -> Iterator[Callable[..., None]]:
    """raw(**{key: bytes}) puts files under the crawler's target, for the length of a test."""
    keys = []

    def put(files: dict[str, bytes]) -> None:
        for key, body in files.items():
            aws("s3").put_object(Bucket=platform["Data"], Key=f"raw/{key}", Body=body)
            keys.append(f"raw/{key}")

    yield put
    for key in keys:
        aws("s3").delete_object(Bucket=platform["Data"], Key=key)


@pytest.fixture
def crawl(aws: Clients, platform: dict[str, str]) -> Callable[[], dict[str, Any]]:
    """Runs the crawler and returns what GetCrawler says when it is READY again."""

    def run() -> dict[str, Any]:
        aws("glue").start_crawler(Name=platform["Crawler"])

        def ready() -> Any:
            crawler = aws("glue").get_crawler(Name=platform["Crawler"])["Crawler"]
            return crawler if crawler["State"] == "READY" else None

        crawler: dict[str, Any] = until(ready)
        return crawler

    return run


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def partitions_of(aws: Clients, table: dict[str, Any]) -> tuple[Any, dict[tuple[str, ...], str]]:
    """A table's partition keys, and its partitions' places by their values."""
    found = aws("glue").get_partitions(DatabaseName="small", TableName=table["Name"])["Partitions"]
    places = {tuple(each["Values"]): each["StorageDescriptor"]["Location"] for each in found}
    return table["PartitionKeys"], places


def test_each_folder_should_become_a_table_as_the_real_crawler_writes_it(
    aws: Clients, platform: dict[str, str], raw: Callable[..., None], crawl: Callable[[], dict[str, Any]]
) -> None:
    raw(
        {
            "Sale-Items/1.csv": b"Id,Price\n1,2.5\n2,3\n",
            "Sale-Items/2.csv": b"Id,Price\n3,4\n",
            "packed/1.csv.gz": gzip.compress(b"a,b\n1,x\n2,y\n"),
            "nothing/empty.csv": b"",
            "header/only.csv": b"a,b\n",
            "latin/1.csv": "id,ort\n1,Zürich\n".encode("latin-1"),
            "strange/x.csv": b"PAR1\x00\x15\xff\xfePAR1",
            "columns/x.parquet": parquet(Id=pa.array([1, 2]), words=pa.array([["a"], []])),
            "folders/Year=2024/month=01/1.csv": b"a,b\n1,x\n2,y\n",
            "folders/Year=2024/month=02/1.csv": b"a,b\n3,x\n4,y\n",
            "plain/north/1.csv": b"a,b\n1,x\n2,y\n",
            "objects/x.jsonl": b'{"Id": 1, "big": 1, "of": {"a": null}}\n{"big": 5000000000}\n{"Id": 1.5}\n',
        }
    )
    crawler = crawl()
    last = crawler["LastCrawl"]
    assert (last["Status"], last.get("ErrorMessage")) == ("SUCCEEDED", None)
    tables = {table["Name"]: table for table in aws("glue").get_tables(DatabaseName="small")["TableList"]}
    assert set(tables) == {
        "people",
        "sale_items",
        "packed",
        "header",
        "latin",
        "strange",
        "columns",
        "objects",
        "folders",
        "plain",
    }
    table = tables["sale_items"]
    storage = table["StorageDescriptor"]
    assert [(column["Name"], column["Type"]) for column in storage["Columns"]] == [
        ("id", "bigint"),
        ("price", "double"),
    ]
    assert storage["Location"] == f"s3://{platform['Data']}/raw/Sale-Items/"
    assert storage["SerdeInfo"]["SerializationLibrary"] == "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"
    assert storage["SerdeInfo"]["Parameters"]["field.delim"] == ","
    expected = {"classification": "csv", "delimiter": ",", "skip.header.line.count": "1", "recordCount": "3"}
    expected |= {"objectCount": "2", "sizeKey": "32", "compressionType": "none"}
    assert expected.items() <= table["Parameters"].items()
    assert tables["packed"]["Parameters"]["compressionType"] == "gzip"
    assert tables["header"]["Parameters"]["recordCount"] == "0"
    assert tables["strange"]["Parameters"]["classification"] == "UNKNOWN"
    told = {name: tables[name]["Parameters"] for name in ("columns", "objects")}
    assert (told["columns"]["classification"], told["columns"]["recordCount"]) == ("parquet", "2")
    assert told["objects"]["classification"] == "json"
    types = {
        name: {each["Name"]: each["Type"] for each in tables[name]["StorageDescriptor"]["Columns"]} for name in told
    }
    assert types["columns"] == {"id": "bigint", "words": "array<string>"}
    assert types["objects"] == {"id": "double", "big": "bigint", "of": "struct<a:string>"}

    location = f"s3://{platform['Data']}/raw"
    parted = {name: partitions_of(aws, tables[name]) for name in ("folders", "plain", "sale_items")}
    assert parted["folders"] == (
        [{"Name": "year", "Type": "string"}, {"Name": "month", "Type": "string"}],
        {
            ("2024", "01"): f"{location}/folders/Year=2024/month=01/",
            ("2024", "02"): f"{location}/folders/Year=2024/month=02/",
        },
    )
    assert parted["plain"] == ([{"Name": "partition_0", "Type": "string"}], {("north",): f"{location}/plain/north/"})
    assert parted["sale_items"] == ([], {})
    assert tables["folders"]["StorageDescriptor"]["Location"] == f"{location}/folders/"

    versions = {name: table["VersionId"] for name, table in tables.items()}
    crawl()
    raw({"Sale-Items/2.csv": b"Id,Price\nx,4\n", "folders/Year=2025/month=01/1.csv": b"a,b\n5,x\n6,y\n"})
    later = crawl()["LastCrawl"]["StartTime"]
    again = {table["Name"]: table for table in aws("glue").get_tables(DatabaseName="small")["TableList"]}
    changed = {name for name, table in again.items() if table["VersionId"] != versions[name]}
    assert changed == {"sale_items", "folders"}  # of a folder that came, the table's objectCount tells
    assert list(partitions_of(aws, again["folders"])[1]) == [("2024", "01"), ("2024", "02"), ("2025", "01")]
    assert again["sale_items"]["StorageDescriptor"]["Columns"][0] == {"Name": "id", "Type": "string"}
    assert later > last["StartTime"]


def test_a_crawler_without_a_permission_should_fail_and_name_it(
    platform: dict[str, str], without: Callable[[str, str], None], crawl: Callable[[], dict[str, Any]]
) -> None:
    without(platform["CrawlerRole"], "glue:GetTable")
    last = crawl()["LastCrawl"]
    assert last["Status"] == "FAILED"
    assert f"assumed-role/{platform['CrawlerRole']}/AWS-Crawler is not authorized" in last["ErrorMessage"]
    assert "glue:GetTable on resource: arn:aws:glue:us-east-1:000000000000:table/small/people" in last["ErrorMessage"]


def test_a_running_crawler_should_refuse_to_start_again(aws: Clients, platform: dict[str, str]) -> None:
    glue = aws("glue")
    glue.start_crawler(Name=platform["Crawler"])
    try:
        with pytest.raises(glue.exceptions.CrawlerRunningException):
            glue.start_crawler(Name=platform["Crawler"])
    finally:
        until(lambda: glue.get_crawler(Name=platform["Crawler"])["Crawler"]["State"] == "READY")


def test_pushing_should_keep_the_layout_and_tell_what_the_source_has_not(
    aws: Clients, platform: dict[str, str], tmp_path: Path
) -> None:
    home, bucket = tmp_path / "points", platform["Data"]
    for place in ("year=2024/a.csv", "year=2025/a.csv", "_hidden/b.csv"):
        (home / place).parent.mkdir(parents=True)
        (home / place).write_text(f"id,x\n{place},1\n")
    dataset = replace(points.settings(), source=Source(licence="own", files={"points": "points"}, folder=str(tmp_path)))
    own = SimpleNamespace(s3=aws("s3"), output=lambda _key: bucket, command=lambda text: f"dml {text} --local")

    def push(*, delete: bool = False) -> str:
        return data.push(own, dataset, cache=tmp_path, on_progress=lambda _: None, delete=delete)["points"]  # type: ignore[arg-type]

    def keys() -> list[str]:
        found = aws("s3").list_objects_v2(Bucket=bucket, Prefix="points/points/")
        return [each["Key"].removeprefix("points/points/") for each in found.get("Contents", [])]

    assert (push(), keys()) == ("2 of 2 files uploaded", ["year=2024/a.csv", "year=2025/a.csv"])
    assert push() == "2 files unchanged"
    (home / "year=2024/a.csv").unlink()
    (home / "year=2025/a.csv").write_text("id,x\n3,4\n")
    there = "points/points/year=2024/a.csv"
    assert push() == (
        f"uploaded; 1 file there that the source has not, which runs read as well: {there}. "
        "To delete what the source has not: dml data push points --delete --local"
    )
    assert push(delete=True) == f"unchanged; deleted, since the source has it not: {there}"
    assert (push(), keys()) == ("unchanged", ["year=2025/a.csv"])
