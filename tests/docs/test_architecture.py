"""The map is the land: folders, rooms, who may stand on whom, and every path that a document names."""

import ast
import re
import tomllib
from fnmatch import fnmatchcase
from functools import cache
from pathlib import PurePosixPath

from tests.docs.tree import ROOT, files, text

MAP = "docs/architecture.md"
FLOORS = ("dml", "jobs")  # what joins the rooms of a package: "On this floor" says what stands there beside them
# What set-up, runs and deployments make: files that a document may name though none is in the tree.
MADE = {
    "calls.jsonl",
    "CURRENT.json",
    "dataset.json",
    "drift.json",
    "failure.json",
    "figures.json",
    "gate.json",
    "manifest.json",
    "metrics.json",
    "model-card.md",
    "predict.json",
    "prepare.json",
    "profile.json",
    "run.json",
    "tree.json",
    "tree.sql",
}
ENDINGS = ("css", "in", "j2", "json", "jsonl", "md", "py", "sh", "sql", "svg", "toml", "txt", "yaml", "yml")


@cache
def folders() -> set[str]:
    """Every folder of the tree, without a / at its end."""
    return {str(parent) for path in files() for parent in PurePosixPath(path).parents} - {"."}


def exists(path: str) -> bool:
    """A file or folder of the tree. A part in capitals, or …, stands for any name: datasets/NAME/dataset.toml."""
    path = path.rstrip("/")
    if path in files() or path in folders():
        return True
    pattern = re.sub(r"(?<![\w.-])[A-Z]{2,}(?![\w-])", "*", path).replace("…", "*")
    known = [one for one in (*files(), *folders()) if one.count("/") == pattern.count("/")]
    return "*" in pattern and any(fnmatchcase(one, pattern) for one in known)


def told_in(heading: str) -> list[str]:
    """The first cells of the tables of a section of the map, a path each."""
    section = text(MAP).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return [path.rstrip("/") for cell in cells for path in re.findall(r"`([^`]+)`", cell)]


def faces() -> list[str]:
    return [path for path in files() if path.endswith("/__init__.py") and path.split("/")[0] in FLOORS]


def documents() -> list[str]:
    """What is read: the documents, and the faces of all packages."""
    told = [path for path in files() if path.endswith(".md") and path.count("/") < 2 and path.split("/")[0] != "bench"]
    return [*told, *(path for path in files() if path.endswith("__init__.py"))]


def test_the_table_of_folders_should_name_each_folder_and_no_other() -> None:
    told = told_in("Folders")
    assert sorted(told) == sorted({path.split("/")[0] for path in files() if "/" in path})


def test_the_table_of_rooms_should_name_each_room_and_no_other() -> None:
    rooms = [str(PurePosixPath(face).parent) for face in faces()]
    assert sorted(told_in("Rooms")) == sorted(room for room in rooms if room not in FLOORS)


def test_a_folder_with_code_should_have_a_face() -> None:
    holding = {str(PurePosixPath(path).parent) for path in files() if path.endswith(".py")}
    inside = {folder for folder in holding if folder.split("/")[0] in FLOORS}
    assert sorted(f"{folder}/__init__.py" for folder in inside) == sorted(faces())


def test_a_face_should_say_what_is_never_to_be_in_the_room() -> None:
    for face in faces():
        said = ast.get_docstring(ast.parse(text(face))) or ""
        if face.removesuffix("/__init__.py") in FLOORS:
            assert "On this floor" in said, face
        assert "Never:" in said, face


def drawn() -> list[list[set[str]]]:
    """The pictures of the map: lines from top to bottom, each a set of names that stand beside each other."""
    section = text(MAP).partition("\n## Rooms\n")[2].partition("\n## ")[0]
    pictures = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [
        [re.fullmatch(r"[│▼] (\S+(?: \| \S+)*)(?: {2,}.*)?", line) for line in each.splitlines()] for each in pictures
    ]
    return [[set(line[1].split(" | ")) for line in each if line] for each in lines]


def test_the_pictures_should_show_the_layers_that_import_linter_holds() -> None:
    contracts = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    held = [[set(layer.split(" | ")) for layer in each["layers"]] for each in contracts if each["type"] == "layers"]
    assert drawn() == held


def test_a_module_that_stands_beside_the_rooms_should_be_in_the_picture() -> None:
    # import-linter's contracts are exhaustive, but for the project's own: there no name may be lacking, either.
    packages = {path.split("/")[0] for path in files() if re.fullmatch(r"[a-z]+/__init__\.py", path)}
    assert set().union(*drawn()[0]) == packages


def paths_in(document: str) -> list[str]:
    """What looks like a file or folder of ours among the words in backticks, outside of blocks of code."""
    if document.endswith(".py"):
        read = ast.get_docstring(ast.parse(text(document))) or ""
    else:
        read = re.sub(r"^```.*?^```", "", text(document), flags=re.MULTILINE | re.DOTALL)
    tops = {path.split("/")[0] for path in files()}
    words = [word for quoted in re.findall(r"`([^`]+)`", read) for word in re.split(r"[\s=,;:()\"]+", quoted)]
    return [
        word
        for word in words
        if ("/" in word and word.split("/")[0] in tops)
        or ("." in word and word.rpartition(".")[2] in ENDINGS and word[0] not in "/.*")
        or (document.endswith(".py") and re.fullmatch(r"\w+/", word))
    ]


def test_a_path_that_a_document_names_should_exist() -> None:
    missing = []
    names = {PurePosixPath(path).name for path in files()}
    for document in documents():
        here = PurePosixPath(document).parent
        for path in paths_in(document):
            known = path in MADE or (path in names if "/" not in path else exists(path))
            if not known and not exists(str(here / path)):
                missing.append(f"{document}: {path}")
    assert missing == []
    assert "jobs/judges/gate.py" in paths_in("docs/models.md")  # paths are found at all
    assert "report/" in paths_in("dml/models/__init__.py")


def test_a_module_that_a_face_names_should_be_in_its_room() -> None:
    missing = []
    for face in faces():
        room = str(PurePosixPath(face).parent)
        for list_of_names in re.findall(r"\(([^()]*`[^()]*)\)", ast.get_docstring(ast.parse(text(face))) or ""):
            for name in re.findall(r"`(\w+)`", list_of_names):
                if not exists(f"{room}/{name}.py") and not exists(f"{room}/{name}"):
                    missing.append(f"{face}: {name}")
    assert missing == []


def test_a_link_within_the_documents_should_lead_somewhere() -> None:
    missing = []
    for document in (path for path in documents() if path.endswith(".md")):
        for link in re.findall(r"\]\(([^)\s]+)\)", text(document)):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = (ROOT / document).parent / path if path else ROOT / document
            if not target.exists():
                missing.append(f"{document}: {link}")
            elif anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                if anchor not in [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings]:
                    missing.append(f"{document}: {link}")
    assert missing == []


def test_a_path_that_code_or_a_comment_names_should_exist() -> None:
    """From the root, wherever it is said. Tests make datasets of their own, so theirs are not looked for."""
    tops = "|".join(sorted({re.escape(path.split("/")[0]) for path in files() if "/" in path}))
    path_of_ours = re.compile(rf"(?<![\w./{{}}$*-])((?:{tops})/[\w./-]*\w\.(?:{'|'.join(ENDINGS)}))\b")
    missing = []
    for file in files():
        if file.endswith((".json", ".svg")):
            continue
        for path in path_of_ours.findall(text(file)):
            if not exists(path) and not (file.startswith("tests/") and path.startswith("datasets/")):
                missing.append(f"{file}: {path}")
    assert missing == []


def test_a_word_in_capitals_should_stand_for_any_name_and_no_other_word_should() -> None:
    assert exists("datasets/NAME/dataset.toml")
    assert exists("dml/local/")
    assert not exists("/".join(["dml", "local", "spark.py"]))
    assert not exists("/".join(["dml", "NAME", "nothing.py"]))
