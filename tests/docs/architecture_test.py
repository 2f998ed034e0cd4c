"""docs/architecture.md beside the tree: folders, files, sizes, imports."""

import configparser
import itertools
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from dqa_keras.config import CHOICES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CODE = {".py", ".cc", ".h", ".c", ".kt"}
MOST_LINES = 450
MOST_MODULES = 18


def tracked(*folders):
    """Files of the repository in these folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [Path(name) for name in listed if (ROOT / name).exists()]


def code():
    folders = ("benchmarks", "dqa_keras", "export", "release", "tests")
    return [p for p in tracked(*folders) if p.suffix in CODE]


def named():
    """Paths that the page names."""
    return set(re.findall(r"`([\w./]+/[\w./]*)`", PAGE))


def test_every_file_named_is_there():
    assert [path for path in named() if not (ROOT / path).exists()] == []


def test_every_folder_of_code_is_on_the_page():
    folders = {path.parent for path in code() if path.parts[0] != "tests"}
    known = {Path(path) for path in named() if path.endswith("/")}
    # Below these the layout is Maven's, and that of the tests above.
    known_below = {Path("export/android"), Path("export/native/tests")}
    missing = [
        str(folder)
        for folder in folders - known
        if not known_below & {folder, *folder.parents}
        and folder.parent != Path("export/native/bindings")
        and folder.parent != Path("export/native/include")
    ]
    assert missing == []


def test_folders_are_small_enough_to_look_over():
    modules = Counter()
    for folder, _ in {(p.parent, p.stem) for p in code() if p.stem != "__init__"}:
        modules[folder] += 1
    assert {str(f): n for f, n in modules.items() if n > MOST_MODULES} == {}


def test_long_modules_have_their_reason_on_the_page():
    reasons = PAGE.partition("longer than 450 lines")[2]
    long = {
        str(path)
        for path in code()
        if len((ROOT / path).read_text().splitlines()) > MOST_LINES
    }
    assert long == set(re.findall(r"^\| `([\w./]+)` \|", reasons, re.MULTILINE))


def mirrored(test):
    """Whether a module or folder is there whose path this test's mirrors."""
    path = str(test.relative_to("tests")).removesuffix("_test.py")
    return any(
        (ROOT / base / f"{path}{end}").exists()
        for base in ("dqa_keras", "")
        for end in ("", ".py", ".cc", ".h", ".md")
    )


def test_tests_at_no_mirrored_path_are_on_the_page():
    listed = PAGE.partition("## Where a test lies")[2].partition("\n## ")[0]
    tests = [path for path in tracked("tests") if path.name.endswith("_test.py")]
    elsewhere = {str(path) for path in tests if not mirrored(path)}
    assert elsewhere == set(re.findall(r"^\| `([\w./]+)` \|", listed, re.MULTILINE))


def test_three_steps_end_at_the_line():
    steps = PAGE.partition("## Three steps")[2].partition("\n## ")[0]
    row = r"`([\w/]+\.\w+)` \|[^`|]*(?:`\w+`: )?`([^`|]+)` \|$"
    rows = re.findall(row, steps, re.MULTILINE)
    assert len(rows) == 3
    for path, line in rows:
        assert line in (ROOT / path).read_text(), path


def layers(contract):
    """Layers of import-linter, the highest first: sets of names."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings[f"importlinter:contract:{contract}"]["layers"].split("\n")
    return [set(re.findall(r"\w+", line)) for line in lines if line.strip()]


def test_the_picture_has_the_rooms_that_imports_are_checked_by():
    (picture,) = re.findall(r"^digraph.*?^}", PAGE, re.MULTILINE | re.DOTALL)
    drawn = set(re.findall(r"\w+", picture))
    rooms = set().union(*layers("rooms"), *layers("export")) - {"graph"} | {"graph_"}
    assert rooms - {"version", "options", "android_app", "android_names"} <= drawn


def arrows(picture):
    """Pairs of rooms between which an arrow is drawn."""
    lines = [line.partition("[")[0] for line in picture.splitlines() if "->" in line]
    pairs = [
        pair
        for line in lines
        for above, below in itertools.pairwise(line.split("->"))
        for pair in itertools.product(*(re.findall(r"\w+", x) for x in (above, below)))
    ]
    assert len(pairs) > 20
    return pairs


def test_the_pictures_arrows_go_down():
    (picture,) = re.findall(r"^digraph.*?^}", PAGE, re.MULTILINE | re.DOTALL)
    inside = layers("export")
    outside = layers("rooms")
    at = next(i for i, rooms in enumerate(outside) if "export" in rooms)
    order = [*outside[:at], *inside, *outside[at + 1 :]]
    floor = {room: number for number, rooms in enumerate(order) for room in rooms}
    floor["native"] = len(order)
    for a, b in arrows(picture):
        assert floor[a.rstrip("_")] < floor[b.rstrip("_")], (a, b)


# Modules that the picture shows as part of another room.
INSIDE = {
    "android_app": "android",
    "android_names": "android",
    "datasets": "config",
    "files": "config",
    "graph": "graph_",
    "model_explorer": "file_report",
    "options": "tflite",
}


def imported_rooms():
    """Pairs of rooms, of which the first imports the second."""
    pattern = r"^\s*(?:from|import) (dqa_keras[\w.]*)(?: import (\w+))?"
    for path in code():
        room = path.with_suffix("").parts[1]
        tool = path.parts[:2] in {("export", "native"), ("export", "android")}
        if path.suffix != ".py" or path.parts[0] not in ("dqa_keras", "export") or tool:
            continue
        for module, name in re.findall(pattern, (ROOT / path).read_text(), re.M):
            parts = [*module.split("."), name][1:]
            other = parts[1] if parts[0] == "export" and len(parts) > 1 else parts[0]
            yield INSIDE.get(room, room), INSIDE.get(other, other)


def test_every_import_follows_the_pictures_arrows():
    (picture,) = re.findall(r"^digraph.*?^}", PAGE, re.MULTILINE | re.DOTALL)
    picture = re.sub(r"^.*style=invis.*\n", "", picture, flags=re.MULTILINE)
    below = {}
    for above, under in arrows(picture):
        below.setdefault(above, set()).add(under)

    def reached(room):
        return {room}.union(*(reached(other) for other in below.get(room, ())))

    rooms = set(below).union(*below.values())
    pairs = {pair for pair in imported_rooms() if rooms.issuperset(pair)}
    assert len(pairs) > 40
    assert {(a, b) for a, b in pairs if b not in reached(a)} == set()


@pytest.mark.parametrize("name", ["clipping", "ranking"])
def test_the_method_lists_the_choices_of_the_config(name):
    method = (ROOT / "docs" / "method.md").read_text()
    table = method.partition(f"| `{name}` |")[2].partition("\n\n")[0]
    listed = re.findall(r'^\| `"(\w+)"` \|', table, re.MULTILINE)
    assert set(listed) == set(CHOICES[name]) - {"auto"}


def test_makefiles_name_files_that_are_there():
    built = re.compile(r"^(build|dist)/")
    for makefile in tracked("Makefile", "*.mk", ".ci/run"):
        text = (ROOT / makefile).read_text().replace("$(NATIVE)", "export/native")
        text = text.replace("$(ANDROID)", "export/android")
        paths = re.findall(r"(?<![\w/)*.-])[\w.-]+(?:/[\w.-]+)+\.(?:py|cc|c|h)\b", text)
        assert [
            path
            for path in paths
            if not built.match(path) and not (ROOT / path).exists()
        ] == [], makefile


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_the_page_is_linked(page):
    assert re.search(r"architecture", (ROOT / page).read_text())
