"""How Java is told to compile: by how much data lies where a job's arguments point."""

import subprocess
from pathlib import Path

import pytest

from dml.local.place import Place
from dml.local.services import submission
from dml.local.spark import process


def put(place: Place, key: str, size: int) -> None:
    file = place.objects / "000000000000" / key
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.truncate(size)  # no bytes on the disk


def test_jobs_of_large_data_should_be_known_by_the_largest_folder_of_their_dataset(tmp_path: Path) -> None:
    place = Place(tmp_path, 4566)
    for part in range(3):
        put(place, f"raw/many/points/{part}.csv", process.LARGE // 2)
    put(place, "raw/other/points/points.csv", process.LARGE)
    for run in range(5):  # each run leaves its own features, which no later one reads
        put(place, f"lake/other/features/{run}/part.parquet", process.LARGE // 2)
    arguments = ["--py-files", "s3://code/many.zip", "s3://code/train.py", "--dataset", "other", "x" * 5000, ""]
    assert submission.largest_folder(place, arguments) == process.LARGE
    assert submission.largest_folder(place, ["--dataset", "many"]) == 3 * (process.LARGE // 2)
    assert submission.largest_folder(place, ["--dataset", "none"]) == 0


@pytest.mark.parametrize("size", [process.LARGE, process.LARGE + 1])
def test_java_should_compile_well_only_where_there_is_much_data(size: int) -> None:
    told = process.java_options(size)
    command = [str(process.java_home() / "bin" / "java"), *told.replace('"', "").split(), "-XX:+PrintFlagsFinal"]
    flags = subprocess.run([*command, "-version"], capture_output=True, text=True, check=True).stdout
    found = {line.split()[1]: line.split()[3] for line in flags.splitlines() if " = " in line}
    expected = ("1", "5000") if size <= process.LARGE else ("4", "500000")
    assert (found["TieredStopAtLevel"], found["Tier4InvocationThreshold"]) == expected
