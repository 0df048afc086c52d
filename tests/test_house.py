"The house is in order: packaging, notebooks, README, imports and what may lie in the repository."
import ast
import base64
import configparser
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
ROOMS = [p for p in NOTEBOOKS if p.parent == NBS and re.match(r"\d\d[a-z]?_", p.name)]
MODULES = sorted(p for p in (ROOT / "privnb").glob("*.py") if not p.name.startswith("_"))
names = {"ids": lambda p: str(p.relative_to(ROOT))}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, **names)
each_room = pytest.mark.parametrize("path", ROOMS, **names)
each_module = pytest.mark.parametrize("path", MODULES, **names)


@functools.cache
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def cells(path, kind):
    return [cell for cell in notebook(path)["cells"] if cell["cell_type"] == kind]


def directive(cell, name):
    return re.search(rf"^#\|\s*{name}\b", source(cell), re.M) is not None


def images(path):
    "(kind, bytes) of every picture that is stored in a notebook."
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/"):
                    data = "".join(data)
                    yield kind, data.encode() if "svg" in kind else base64.b64decode(data)


@functools.cache
def repository():
    "Files that git tracks or would track."
    listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             cwd=ROOT, capture_output=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    found = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in found if path.is_file()]


# packaging

@functools.cache
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@functools.cache
def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def test_settings_are_complete():
    required = """repo lib_name version min_python license black_formatting doc_path lib_path nbs_path
        recursive tst_flags put_version_in_init update_pyproject branch custom_sidebar doc_host
        doc_baseurl git_url title audience author author_email copyright description keywords language
        status user requirements dev_requirements console_scripts readme_nb jupyter_hooks clean_ids
        clear_all allowed_metadata_keys allowed_cell_metadata_keys"""
    assert not set(required.split()) - set(settings())


def test_settings_equal_the_project_table():
    project = pyproject()["project"]
    licences = {"agpl3": "AGPL-3.0-or-later"}
    stated = dict(
        lib_name=project["name"], description=project["description"],
        keywords=" ".join(project["keywords"]), author=project["authors"][0]["name"],
        author_email=project["authors"][0]["email"], git_url=project["urls"]["Repository"],
        min_python=project["requires-python"].removeprefix(">="),
        requirements=" ".join(project["dependencies"]),
        dev_requirements=" ".join(project["optional-dependencies"]["dev"]),
        console_scripts="\n".join(f"{k}={v}" for k, v in project["scripts"].items()))
    assert {key: settings()[key] for key in stated} == stated
    assert licences[settings()["license"]] == project["license"]
    assert f"Intended Audience :: {settings()['audience']}" in project["classifiers"]
    assert f"Natural Language :: {settings()['language']}" in project["classifiers"]
    assert any(c.startswith(f"Development Status :: {settings()['status']} ")
               for c in project["classifiers"])


def test_settings_equal_the_nbdev_table():
    def plain(value):
        if isinstance(value, list):
            return " ".join(value)
        return str(value)

    table = pyproject()["tool"]["nbdev"]
    assert {key: settings()[key] for key in table} == {k: plain(v) for k, v in table.items()}
    documentation = pyproject()["project"]["urls"].get("Documentation", "")
    host_and_path = (settings()["doc_host"] + settings()["doc_baseurl"]).rstrip("/")
    assert host_and_path == documentation.rstrip("/")


def test_version_is_stated_once():
    assert pyproject()["project"]["dynamic"] == ["version"]
    text = (ROOT / "privnb" / "__init__.py").read_text(encoding="utf-8")
    assert text.strip() == f'__version__ = "{settings()["version"]}"'
    assert f"## {settings()['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_package_data_match_existing_assets():
    (pattern,) = pyproject()["tool"]["setuptools"]["package-data"]["privnb"]
    assert settings()["package_data"] == pattern
    files = [p for p in (ROOT / "privnb" / "assets").rglob("*") if p.is_file()]
    matched = [p for p in (ROOT / "privnb").glob(pattern + "/*") if p.is_file()]
    assert set(files) == set(matched)


def test_licence_is_the_agpl():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in text
    assert "13. Remote Network Interaction" in text


# README and links

def test_readme_is_fresh():
    run = subprocess.run([sys.executable, "tools/make_readme.py", "--check"], cwd=ROOT,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_readme_rewrites_only_relative_links():
    spec = importlib.util.spec_from_file_location("make_readme", ROOT / "tools" / "make_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "![a](images/a.png) [b](../LICENSE) [c](https://c.org/d) [e](#f)\n```\n[g](h)\n```\n"
    wanted = "![a](nbs/images/a.png) [b](LICENSE) [c](https://c.org/d) [e](#f)\n```\n[g](h)\n```\n"
    assert module.from_root(text) == wanted
    hidden = {"cell_type": "code", "source": ["#| hide\n", "x = 1"], "outputs": []}
    output = {"output_type": "stream", "name": "stdout", "text": ["2\n"]}
    shown = {"cell_type": "code", "source": ["#| eval: false\n", "print(2)"], "outputs": [output]}
    made = module.readme({"cells": [hidden, shown]})
    assert made == f"{module.NOTICE}\n\n```python\nprint(2)\n```\n\n```\n2\n```\n"


def relative_links(text):
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:|#", link):
            yield link.split("#")[0]


def test_readme_links_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [link for link in relative_links(text) if not (ROOT / link).exists()] == []


@each_notebook
def test_notebook_links_exist(path):
    links = [link for cell in cells(path, "markdown") for link in relative_links(source(cell))
             if not link.startswith("attachment:")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_index_lists_every_room():
    text = "\n".join(source(cell) for cell in cells(NBS / "index.ipynb", "markdown"))
    listed = re.findall(r"^\| \[[^]]+\]\((\d\d[a-z]?_\w+\.ipynb)\)", text, re.M)
    assert listed == [path.name for path in ROOMS]


# notebooks

@each_notebook
def test_notebook_opens_with_name_and_line(path):
    first = notebook(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    lines = [line for line in source(first).splitlines() if line.strip()]
    assert re.match(r"# \S", lines[0])
    assert re.match(r"> \S", lines[1])


EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u26ff\u2700-\u27bf\u2b50\u2b55\ufe0f\u200d]")


@each_notebook
def test_notebook_has_no_emoji(path):
    assert [source(c) for c in notebook(path)["cells"] if EMOJI.search(source(c))] == []


def test_modules_and_papers_have_no_emoji():
    kinds = {".py", ".md", ".toml", ".ini", ".sh"}
    files = [p for p in repository() if p.suffix in kinds]
    assert [str(p) for p in files if EMOJI.search(p.read_text(encoding="utf-8"))] == []


@each_notebook
def test_code_cells_are_short_and_narrow(path):
    wide = [line for c in cells(path, "code") for line in source(c).splitlines() if len(line) > 100]
    assert wide == []
    counts = [sum(bool(line.strip()) for line in source(c).splitlines()) for c in cells(path, "code")]
    assert max(counts, default=0) <= 25


@each_notebook
def test_at_most_three_code_cells_in_a_row(path):
    row = longest = 0
    for cell in notebook(path)["cells"]:
        if cell["cell_type"] == "code" and directive(cell, "hide"):
            continue
        row = row + 1 if cell["cell_type"] == "code" else 0
        longest = max(longest, row)
    assert longest <= 3


@each_notebook
def test_notebook_and_its_pictures_are_small(path):
    assert path.stat().st_size <= 2**20
    assert max((len(data) for _, data in images(path)), default=0) <= 150 * 2**10


def test_picture_files_are_small():
    pictures = [p for p in repository() if NBS in p.parents and p.suffix in (".png", ".jpg", ".svg")]
    assert [p.name for p in pictures if p.stat().st_size > 500 * 2**10] == []


@each_notebook
def test_notebook_is_clean(path):
    from nbdev.clean import clean_nb

    for cell in cells(path, "code"):
        assert cell["execution_count"] is None
        assert all(output.get("execution_count") is None for output in cell["outputs"])
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    again = json.loads(path.read_text(encoding="utf-8"))
    keys = pyproject()["tool"]["nbdev"]["allowed_cell_metadata_keys"]
    clean_nb(again, allowed_cell_metadata_keys=keys)
    assert again == notebook(path), "run nbdev-clean"


AMERICAN = re.compile(r"""\b(colors?|colored|coloring|behaviors?|centers?|centered|grays?|grayscale|
    favorites?|labeled|labeling|modeled|modeling|artifacts?|fibers?|neighbors?|neighboring|
    (?:normal|optim|visual|real|initial|regular|recogn|summar|util|minim|maxim|general|anonym|pixel)
    iz(?:e|es|ed|er|ers|ing|ation|ations)|analyz(?:e|es|ed|ing))\b""", re.I | re.X)


def prose(text):
    "Text without code, formulas, link targets and quoted names."
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|<[^>]*>|\"[^\"]*\"", " ", text,
                  flags=re.S)


@each_notebook
def test_prose_is_spelt_the_british_way(path):
    words = [w for c in cells(path, "markdown") for w in AMERICAN.findall(prose(source(c)))]
    assert words == []


@each_module
def test_docstrings_are_spelt_the_british_way(path):
    nodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    docs = [ast.get_docstring(n) or "" for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, nodes)]
    assert [w for doc in docs for w in AMERICAN.findall(prose(doc))] == []


def test_the_spelling_check_finds_what_it_should():
    text = "The color of the center, `color`, is normalized in $color$; see [x](color.md)."
    assert AMERICAN.findall(prose(text)) == ["color", "center", "normalized"]


# modules

def test_modules_equal_notebooks(tmp_path):
    "What nbdev-export writes in an empty copy is what lies in privnb/."
    for name in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path / name)
    for path in NOTEBOOKS:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "privnb").mkdir()
    shutil.copy(ROOT / "privnb" / "__init__.py", tmp_path / "privnb")
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    command = [sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    made = {p.name: p.read_text() for p in (tmp_path / "privnb").glob("*.py")}
    kept = {p.name: p.read_text() for p in (ROOT / "privnb").glob("*.py")}
    assert sorted(made) == sorted(kept)
    assert [name for name in made if made[name] != kept[name]] == [], "run nbdev-export"
    assert (tmp_path / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


def number(path):
    match = re.match(r"(\d\d)([a-z]?)_(\w+)", path.stem)
    return int(match[1]), match[2]


def imported(code):
    "Names of privnb modules that a piece of code imports."
    code = re.sub(r"^\s*[%!].*$", "pass", code, flags=re.M)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("privnb."):
                    yield alias.name.split(".")[1]
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level:
                yield parts[0]
            elif parts[0] == "privnb":
                yield from parts[1:2] or [alias.name for alias in node.names]


@each_room
def test_room_exports_the_module_it_is_named_after(path):
    names = [m for c in cells(path, "code") for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", source(c), re.M)]
    assert names == [re.sub(r"^\d\d[a-z]?_", "", path.stem)]


@each_room
def test_room_imports_only_lower_rooms(path):
    numbers = {re.sub(r"^\d\d[a-z]?_", "", p.stem): number(p) for p in ROOMS}
    for cell in cells(path, "code"):
        for module in imported(source(cell)):
            assert module in numbers, f"privnb.{module} has no notebook"
            exported = directive(cell, "exports?i?")
            ahead = numbers[module] >= number(path) if exported else numbers[module] > number(path)
            assert not ahead, f"{path.name} imports privnb.{module}"


@each_module
def test_public_functions_are_documented(path):
    "A docstring on each public class and function, a same-line comment on each parameter."
    text = path.read_text(encoding="utf-8")
    lines, missing = text.splitlines(), []

    def visit(node, prefix=""):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            if child.name.startswith("_") and child.name not in ("__init__", "__call__"):
                continue
            name = prefix + child.name
            if not ast.get_docstring(child) and not child.name.startswith("_"):
                missing.append(name)
            if isinstance(child, ast.ClassDef):
                visit(child, name + ".")
                continue
            arguments = child.args.posonlyargs + child.args.args + child.args.kwonlyargs
            for argument in arguments:
                if argument.arg not in ("self", "cls") and "#" not in lines[argument.end_lineno - 1]:
                    missing.append(f"{name}({argument.arg})")

    visit(ast.parse(text))
    assert missing == []


def loaded_after(code, *arguments):
    "Modules that are loaded once `code` has run in a fresh interpreter."
    tail = "\nimport sys, json; print('\\n' + json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code + tail, *arguments], cwd=ROOT,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1])), run.stdout


HEAVY = {"torch", "ultralytics", "cv2", "matplotlib", "skimage", "onnxruntime"}


def test_import_is_instant():
    modules, _ = loaded_after("import privnb")
    assert not modules & (HEAVY | {"numpy"})


@pytest.mark.skipif(not (ROOT / "privnb" / "cli.py").exists(), reason="privnb.cli does not exist yet")
def test_help_does_not_import_torch():
    code = """
import runpy, sys
sys.argv = ["privnb", "--help"]
try: runpy.run_module("privnb.cli", run_name="__main__")
except SystemExit as stop: assert not stop.code, stop.code
"""
    modules, text = loaded_after(code)
    assert "privnb.images" in modules or "usage" in text.lower()
    assert all(command in text for command in ("demo", "enhance", "recover", "train", "evaluate"))
    assert not modules & HEAVY


# what may lie in the repository

def text_of(path):
    "The text of a file without the pictures of a notebook; empty for binary files."
    if path.suffix == ".ipynb":
        kept = json.loads(path.read_text(encoding="utf-8"))
        for cell in kept["cells"]:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                for kind in [k for k in data if k.startswith("image/")]:
                    del data[kind]
        return json.dumps(kept, ensure_ascii=False)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_path_of_one_machine():
    roots = "|".join(("work", "root", "home/[a-z]+", "Users/[A-Za-z]+"))
    pattern = re.compile(rf"(?<![\w.])/(?:{roots})(?:/|\b)|(?<!\w)(?:\.\./)?share" + r"d/")
    found = {str(p.relative_to(ROOT)): pattern.search(text_of(p)) for p in repository()}
    assert {name: match[0] for name, match in found.items() if match} == {}


def test_no_pickles():
    kinds = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
    assert [str(p) for p in repository() if p.suffix in kinds] == []
    for path in repository():
        if path.suffix in (".npy", ".npz"):
            arrays = np.load(path, allow_pickle=False)
            for name in getattr(arrays, "files", ()):
                arrays[name]


def test_weights_are_at_most_12_mb():
    kinds = {".safetensors", ".onnx", ".bin", ".tflite"}
    weights = [p for p in repository() if p.suffix in kinds]
    assert all(ROOT / "privnb" / "assets" in p.parents for p in weights)
    assert sum(p.stat().st_size for p in weights) <= 12_000_000


def photographs():
    "The real photographs that packages carry, grey: name -> (H, W) uint8."
    import cv2
    import skimage.data
    from ultralytics.utils import ASSETS

    found = {"astronaut": cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)}
    for name in ("bus.jpg", "zidane.jpg"):
        found[name] = cv2.imread(str(ASSETS / name), cv2.IMREAD_GRAYSCALE)
    return found


def likeness(picture, photograph, side=40):
    "Best correlation of a photograph with any place of a grey picture, at any scale down to `side` pixels."
    import cv2

    height, width = photograph.shape
    scale = side / min(height, width)
    template = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    best = -1.0
    shrink = 1.0
    while True:
        small = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        if small.shape[0] < template.shape[0] or small.shape[1] < template.shape[1]:
            return best
        best = max(best, float(cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED).max()))
        shrink *= 0.93


def stored_pictures():
    "Name and grey pixels of every picture: files, and figures in notebooks."
    import cv2

    def decode(data):
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)

    for path in repository():
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"):
            yield str(path.relative_to(ROOT)), decode(path.read_bytes())
    for path in NOTEBOOKS:
        for i, (kind, data) in enumerate(images(path)):
            if "svg" not in kind:
                yield f"{path.relative_to(ROOT)}, picture {i}", decode(data)


LIKE = 0.85


def test_the_likeness_check_finds_a_photograph_in_a_grid():
    import cv2

    grid = np.random.default_rng(0).integers(0, 256, (400, 700), dtype=np.uint8)
    for name, photograph in photographs().items():
        other = grid.copy()
        small = cv2.resize(photograph, None, fx=(f := 150 / max(photograph.shape)), fy=f)
        other[60:60 + small.shape[0], 333:333 + small.shape[1]] = small
        assert likeness(other, photograph) > LIKE > likeness(grid, photograph), name


def test_no_real_photograph_in_the_repository():
    known = photographs()
    found = [(name, real) for name, picture in stored_pictures() for real, photograph in known.items()
             if likeness(picture, photograph) > LIKE]
    assert found == []
