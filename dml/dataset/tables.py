"""Which of the files given to `dml dataset new` are one table, and what they agree on.

Files of one header are one table, others are others. Folders called name=value between what was given and a file are
columns of it (jobs/tables/folders.py). What is nearly alike is asked about, never guessed.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
from datasets import DatasetError
from dml.dataset.csv_file import TAKEN_COLUMNS, CsvFile, Dialect, lost_rows, open_csv, plain, table_name, unique
from dml.errors import UserError
from dml.models.cells import types_of
from dml.terminal.words import counted, listed
from jobs.tables import folders
from jobs.tables.settings import PUBLISHED_TABLES, Encoding

SHARED = 0.8  # of the names of two headers, for them to be nearly alike
# How files are called that a folder may hold: none else is taken for a table because it lies there.
DATA = re.compile(r"(?i)(^[^.]+|\.(csv|tsv|psv|ssv|txt|tab|dat|data|parquet|pq|jsonl|ndjson|json|zip|xlsx?))(\.gz)?$")
READS = {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSON lines"}


@dataclass(frozen=True)
class _Found:
    """A file, the folder that was given and holds it (None: the file itself was given), and what it is."""

    path: Path
    given: Path | None
    file: CsvFile


def tables_of(
    name: str,
    given: Sequence[Path],
    columns: Sequence[str] = (),
    skip: int | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[Path, list[CsvFile]]:
    """The folder that all files lie below, and a table for each header of them. `name`: the dataset's.

    `columns`, `skip`: see `open_csv`. Raises UserError as that does, and, naming the files, for headers that are nearly
    the same, and for files of one header that are written differently or lie in other folders name=value.
    """
    files = _files(given)
    root = Path(os.path.commonpath([(home or path).parent for path, home in files.items()]))
    found = []
    for number, (path, home) in enumerate(files.items()):
        on_progress(f"looking at {path.name}" + (f": {number:,} of {len(files):,} files" if len(files) > 1 else ""))
        found.append(_Found(path, home, open_csv(path, columns, skip)))
    groups: dict[tuple[str, ...], list[_Found]] = {}
    for each in found:
        groups.setdefault(_header(each), []).append(each)
    _check_unlike(list(groups.values()), root)
    return root, [_table(name, group, root, on_progress) for group in groups.values()]


def difference(one: CsvFile, other: CsvFile, least: float = SHARED) -> str:
    """How two headers differ that share so many of their names, in a clause; '' if they do not."""
    mine, others = ({header.strip().lower(): header.strip() for header in file.own.values()} for file in (one, other))
    shared = mine.keys() & others.keys()
    if not shared or len(shared) < least * max(len(mine), len(others)):
        return ""
    clauses = [
        f"{file.path.name} alone has {listed([repr(has[key]) for key in has if key not in shared])}"
        for file, has in ((one, mine), (other, others))
        if has.keys() - shared
    ]
    return "; ".join(clauses)


def _files(given: Sequence[Path]) -> dict[Path, Path | None]:
    found: dict[Path, Path | None] = {}
    for path in (Path(os.path.normpath(each.absolute())) for each in given):
        if path.is_dir():
            try:
                below = list(datasets.files_below(path).values())
            except DatasetError as error:
                raise UserError(str(error)) from None
            if not below:
                raise UserError(f"{path} is a folder without files.")
            if odd := [file.name for file in below if not DATA.search(file.name)]:
                raise UserError(
                    f"{path} holds {listed(odd)}, which by the name is no data: take it away, or name the files that "
                    "are."
                )
        else:
            below = [path]
        for file in below:
            if file in found:
                raise UserError(f"{file} is given twice.")
            other = file.with_suffix("") if file.suffix == ".gz" else file.with_name(f"{file.name}.gz")
            if other in found:
                raise UserError(f"{file} and {other.name} are one file, packed and as it is: leave one of them out.")
            found[file] = path if path.is_dir() else None
    return found


def _header(each: _Found) -> tuple[str, ...]:
    """What files of one table have in common; Spark does not tell capitals apart in it."""
    if each.file.dialect.format == "jsonl" and each.given:
        return ("jsonl", str(each.given))  # not each line, and so not each file, has each key
    names = tuple(header.strip().lower() for header in each.file.headers.values())
    return names if each.file.dialect.format == "csv" else tuple(sorted(names))


def _check_unlike(groups: Sequence[list[_Found]], root: Path) -> None:
    """Raises UserError for headers that differ in the order of their columns, or in how these are written, only."""
    for at, (one, *_) in enumerate(groups):
        for other, *_ in groups[:at]:
            names = [[header.strip() for header in each.file.own.values()] for each in (other, one)]
            of = [each.path.relative_to(root).as_posix() for each in (other, one)]
            formats = [READS[each.file.dialect.format] for each in (other, one)]
            if formats[0] != formats[1] and sorted(map(plain, names[0])) == sorted(map(plain, names[1])):
                raise UserError(
                    f"{of[0]} and {of[1]} have the same columns, but one is {formats[0]} and the other {formats[1]}, "
                    "and a table is written in one way: write them alike."
                )
            if sorted(map(str.lower, names[0])) == sorted(map(str.lower, names[1])):
                first = next(i for i, pair in enumerate(zip(*names, strict=True)) if pair[0].lower() != pair[1].lower())
                raise UserError(
                    f"{of[0]} and {of[1]} have the same columns in another order: column {first + 1} is "
                    f"{names[0][first]!r} there and {names[1][first]!r} here. If they are one table, write both in the "
                    "same order (such as by `csvcut -c` or a spreadsheet); else name the columns differently."
                )
            if sorted(map(plain, names[0])) == sorted(map(plain, names[1])):
                pairs = dict(zip(map(plain, names[0]), names[0], strict=True))
                odd = next(name for name in names[1] if pairs[plain(name)].lower() != name.lower())
                raise UserError(
                    f"{of[0]} and {of[1]} have the same header, but for how it is written: {pairs[plain(odd)]!r} there "
                    f"is {odd!r} here. If they are one table, write both headers alike; else name the columns "
                    "differently."
                )


def _table(name: str, group: Sequence[_Found], root: Path, on_progress: Callable[[str], None]) -> CsvFile:
    first = group[0]
    home, source = _place(group, root)
    if len(group) == 1 and home is None:
        return replace(first.file, source=first.path.relative_to(root).as_posix())
    below = home or root
    keys, values = _folders(group, below)
    headers, kinds = dict(first.file.headers), first.file.kinds
    nested: Sequence[str] = first.file.nested
    if first.file.dialect.format == "jsonl":
        headers = {name: text for each in reversed(group) for name, text in each.file.headers.items()}
        headers = {name: headers[name] for each in group for name in each.file.headers}
        nested = list(dict.fromkeys(field for each in group for field in each.file.nested))
        kinds = dict.fromkeys(headers, "string")
    _check_alike(group, below)
    table = plain(home.name) if home else _common(group) if len(group) > 1 else table_name(first.path)
    table = table or plain(name)
    partitions: dict[str, str] = {}
    for key in keys:
        same = [text for text in headers.values() if key.lower() == text.strip().lower() or plain(text) == plain(key)]
        if same:
            raise UserError(
                f"{first.path.relative_to(root).as_posix()} lies in a folder {key}=…, and has a column {same[0]!r} "
                "too: which of them is meant? Rename the folders or the column."
            )
        partitions[unique(plain(key) or "folder", {*headers, *partitions, *TAKEN_COLUMNS})] = key
    return replace(
        first.file,
        table=f"{table}_raw" if table in PUBLISHED_TABLES else table,
        dialect=_dialect(group, below, on_progress),
        headers={**headers, **partitions},
        kinds=kinds,
        nested=tuple(nested),
        letters=next((each.file.letters for each in group if each.file.letters), ""),
        quotes=any(each.file.quotes for each in group),
        partitions=partitions,
        parts={each.path: told for each, told in zip(group, values, strict=True)},
        home=home,
        source=source,
    )


def _place(group: Sequence[_Found], root: Path) -> tuple[Path | None, str | tuple[str, ...]]:
    """The folder that holds the group and nothing else, if one was given; and what [source.files] says of it."""
    paths = [each.path for each in group]
    given = group[0].given
    listed_there = tuple(path.relative_to(root).as_posix() for path in paths)
    if given is None or any(each.given != given for each in group):
        return None, listed_there
    home = Path(os.path.commonpath([path.parent for path in paths]))
    while home != given and "=" in home.name:
        home = home.parent
    if set(datasets.files_below(home).values()) != set(paths):
        return None, listed_there
    if len(group) == 1 and home.name and home == paths[0].parent and home != given:
        return None, listed_there  # a file of its own is called by its own name
    return home, home.relative_to(root).as_posix()


def _folders(group: Sequence[_Found], home: Path) -> tuple[list[str], list[tuple[str | None, ...]]]:
    """The names of the folders name=value that all files lie in, and for each file their values."""
    told: list[Mapping[str, str | None]] = []
    for each in group:
        try:
            told.append(folders.of_path(each.path.relative_to(home).as_posix()))
        except ValueError as error:
            raise UserError(f"{each.path} {error}: take one of them away.") from None
    deepest = max(range(len(told)), key=lambda at: len(told[at]))
    keys, example = list(told[deepest]), group[deepest].path.relative_to(home).as_posix()
    for each, has in zip(group, told, strict=True):
        if lacking := [key for key in keys if key not in has] or [key for key in has if key not in keys]:
            raise UserError(
                f"{each.path.relative_to(home).as_posix()} and {example} have the same header, but only one of them "
                f"lies in a folder {lacking[0]}=…, which would be a column of their table: put both into such folders "
                f"({lacking[0]}={folders.NOTHING} is one without a value), or leave one out."
            )
    return keys, [tuple(has[key] for key in keys) for has in told]


def _common(group: Sequence[_Found]) -> str:
    """What the files' names begin with, without what tells them apart: bikes of bikes_Jan.csv and bikes_Feb.csv."""
    stems = [each.path.name.removesuffix(".gz").rpartition(".")[0] for each in group]
    first, last = min(stems), max(stems)
    shared = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return plain(re.sub(r"[\W\d_]+$", "", first[:shared]))


def _check_alike(group: Sequence[_Found], home: Path) -> None:
    """Raises UserError for files of one header that no single [tables.NAME] describes."""
    first = group[0]
    for each in group[1:]:
        for what, mine, its in (
            ("the same format", READS[first.file.dialect.format], READS[each.file.dialect.format]),
            ("the same delimiter", repr(first.file.dialect.delimiter), repr(each.file.dialect.delimiter)),
            ("as many lines above it", first.file.dialect.skip, each.file.dialect.skip),
        ):
            if mine != its:
                raise UserError(
                    f"{_both(first, each, home)} have the same header, but not {what} ({mine} and {its}), and a table "
                    "is written in one way: write them alike."
                )
    if first.file.dialect.format == "parquet":
        types = types_of(first.path)
        for each in group[1:]:
            its_types = types_of(each.path)
            if odd := [field for field in types if types[field] != its_types.get(field)]:
                raise UserError(
                    f"{_both(first, each, home)} are one table by their columns, but {odd[0]} is {types[odd[0]]} in "
                    f"one and {its_types.get(odd[0], 'absent')} in the other, which Spark does not put together: write "
                    "them with the same types."
                )


def _both(one: _Found, other: _Found, home: Path) -> str:
    return f"{one.path.relative_to(home).as_posix()} and {other.path.relative_to(home).as_posix()}"


def _dialect(group: Sequence[_Found], home: Path, on_progress: Callable[[str], None]) -> Dialect:
    """The one way in which all files of the group are read. Raises UserError, naming files, if there is none."""
    dialect = group[0].file.dialect
    if dialect.format != "csv":
        return dialect
    quoted = [each for each in group if each.file.quotes]
    escapes = [each for each in quoted if each.file.dialect.escape]
    for each in (*quoted[:1], *escapes[:1]):  # of a file without quotes nothing is known of them
        dialect = replace(dialect, quote=each.file.dialect.quote, escape=each.file.dialect.escape)
    dialect = replace(dialect, encoding=_encoding(group, home))
    for each in quoted:
        its = each.file.dialect
        if (its.quote, its.quote_escape) == (dialect.quote, dialect.quote_escape):
            continue
        on_progress(f"looking at the quotes of {each.path.name}")
        if its.quote != dialect.quote or lost_rows(each.path, dialect):
            other = (escapes or quoted)[0]
            raise UserError(
                f"{_both(other, each, home)} have the same header, but not the same quotes (a quote within a cell is "
                f"written {dialect.quote_escape}{dialect.quote} and {its.quote_escape}{its.quote}), and a table is "
                "written in one way: write them alike."
            )
    return dialect


def _encoding(group: Sequence[_Found], home: Path) -> Encoding:
    """Of files with other than ASCII characters; Windows-1252 is Latin-1, but for control characters."""
    by: dict[Encoding, _Found] = {}
    for each in group:
        if not each.file.is_ascii:
            by.setdefault(each.file.dialect.encoding, each)
    if len(by) < 2:
        return next(iter(by), "utf-8")
    (one, its), (other, others) = list(by.items())[:2]
    if set(by) == {"latin-1", "windows-1252"} and not any(
        each.file.undefined for each in group if each.file.dialect.encoding == "latin-1"
    ):
        return "windows-1252"
    raise UserError(
        f"{_both(its, others, home)} have the same header, but one is {one} and the other {other}, and a table has one "
        "encoding: convert one of them, such as by `iconv -f ENCODING -t UTF-8`."
    )


def told_of(file: CsvFile) -> str:
    """Of a table of several files: how many they are, which, and what folders tell."""
    names = [file.source] if isinstance(file.source, str) else file.source
    where = f"in {file.home.name}" if file.home else f"of one header ({listed(names)})"
    columns = f"; folders {'/'.join(f'{key}=…' for key in file.partitions.values())} are columns of text"
    return f"{file.table}: {counted(len(file.parts), 'file')} {where}" + (columns if file.partitions else "")
