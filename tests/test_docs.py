"The documentation site: pages, links, reference, formulas; without a network or a kernel."
import ast
import functools
import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS, TOOLS = ROOT / "nbs", ROOT / "tools" / "docs"
sys.path.insert(0, str(TOOLS))
mathml, reference, stage = map(importlib.import_module, ("mathml", "reference", "stage"))
NOTEBOOKS = [path.relative_to(NBS) for path in stage.notebooks(NBS)]
MODULES = sorted(path for path in (ROOT / "privnb").glob("*.py") if not path.name.startswith("_"))


# the site as a whole

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The built site; a request to the network would meet a closed door."
    out = tmp_path_factory.mktemp("site")
    closed = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
    command = [sys.executable, str(TOOLS / "make_docs.py"), "--out", str(out), "--jobs", "2"]
    run = subprocess.run(command, env={**os.environ, **closed}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    assert "WARNING" not in run.stderr
    return out / "html"


class Page(HTMLParser):
    "Identifiers, links, resources and visible text of a page."

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.resources, self.text, self.pictures = set(), [], [], [], []
        self.formulas, self.silent = 0, 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, name, attributes):
        given = dict(attributes)
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        self.formulas += name == "math"
        self.silent += name in ("script", "style")
        if name == "a" and "href" in given:
            self.links.append(given["href"])
        elif name == "img":
            self.pictures.append(given)
        if name == "link" and given.get("rel") not in ("index", "search", "next", "prev", "author"):
            self.resources.append(given["href"])
        self.resources += [given[k] for k in ("src", "srcset", "poster", "data") if given.get(k)]
        self.resources += re.findall(r"url\(([^)]*)\)", given.get("style") or "")

    def handle_endtag(self, name):
        self.silent -= name in ("script", "style")

    def handle_data(self, data):
        if not self.silent:
            self.text.append(data)


@functools.cache
def page(path):
    return Page(path)


def pages(site):
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def test_every_notebook_has_a_page_and_a_place_in_the_tree(site):
    rooms = {path for path in NOTEBOOKS if path.parent == Path() and stage.room(path.stem)}
    tree = {*page(site / "index.html").links, "index.html", "#"}
    tree |= {f"solutions/{link}" for link in page(site / "solutions" / "index.html").links}
    assert len(rooms) > 30
    for path in NOTEBOOKS:
        assert (site / path.with_suffix(".html")).exists()
        assert path.with_suffix(".html").as_posix() in tree
    order = [link for link in page(site / "index.html").links if stage.room(Path(link).stem)]
    assert order[:len(rooms)] == [path.with_suffix(".html").as_posix() for path in sorted(rooms)]


def public(path):
    "`__all__` of a module, without importing it."
    found = re.search(r"^__all__ = (\[.*?\])", path.read_text(encoding="utf-8"), re.M | re.S)
    return ast.literal_eval(found[1])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_public_name_is_in_the_reference(site, path):
    here = page(site / "api" / f"{path.stem}.html")
    linked = {link.partition("#")[2].rpartition(".")[2] for link in here.links}
    missing = [name for name in public(path)
               if f"privnb.{path.stem}.{name}" not in here.ids and name not in linked]
    assert missing == []
    text = "".join(here.text)
    assert not re.search(r"object at 0x|<function ", text)


def test_no_link_leads_nowhere(site):
    broken, seen = [], 0
    for path in pages(site):
        for link in {*page(path).links, *page(path).resources}:
            seen += 1
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or site not in target.parents:
                broken.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target.suffix == ".html":
                if unquote(parts.fragment) not in page(target).ids:
                    broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == [] and seen > 5000


def test_the_page_needs_no_network(site):
    remote = re.compile(r"(?:[a-z]+:)?//")
    found = [(path.name, link) for path in pages(site) for link in page(path).resources
             if remote.match(link)]
    assert "_static/privnb.css" in "".join(page(site / "index.html").resources)
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        links = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", text)
        found += [(path.name, link) for link in links if remote.match(link)]
    assert found == []


def test_no_directive_and_no_widget_is_shown(site):
    for path in pages(site):
        text = "".join(page(path).text)
        assert not re.search(r"^\s*#\|", text, re.M), path.name
        assert "application/vnd.jupyter" not in path.read_text(encoding="utf-8"), path.name
        if "labs" in path.relative_to(site).parts:
            assert not re.search("(BEGIN|END) (SOLUTION|HIDDEN|MARK)", text), path.name


def test_formulas_are_drawn_on_every_page_that_has_one(site):
    total = 0
    for path in NOTEBOOKS:
        cells = json.loads((NBS / path).read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(stage.source(c) for c in cells if c["cell_type"] == "markdown")
        text = re.sub(r"^```.*?^```|`[^`]+`", "", text, flags=re.M | re.S)
        wanted = len(re.findall(r"\$\$.+?\$\$|\$(?! )[^$]+?\$", text, re.S))
        assert page(site / path.with_suffix(".html")).formulas == wanted, path
        total += wanted
    assert total > 500


def test_pictures_are_described(site):
    pictures = [(path.name, given) for path in pages(site) for given in page(path).pictures]
    assert len(pictures) > 100
    assert [(name, given["src"]) for name, given in pictures
            if not given.get("alt") or given["alt"].startswith(("_images", "../"))] == []


def test_search_finds_a_function(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "pixelate" in index and "06_losses" in index
    assert (site / "search.html").exists() and (site / "_static" / mathml.FONT).exists()


# a notebook as a page

def cell(text, outputs=(), name="a"):
    return {"cell_type": "code", "id": name, "metadata": {}, "source": text,
            "outputs": list(outputs)}


def shown(data):
    return {"output_type": "display_data", "data": data, "metadata": {}}


def read(*cells):
    first = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": "# Title\n\n> line"}
    notebook = {"cells": [first, *cells], "metadata": {"widgets": {}}, "nbformat": 4}
    return stage.readable(notebook, lambda link: f"to/{link}", "some_module")


def test_directives_decide_what_is_shown():
    made = read(cell("#| default_exp x"), cell("#| hide\nx = 1"),
                cell("#| export\n\nx = 2", name="b-1"),
                cell("#| hide_input\nshow()", [shown({"image/png": "AA"})]),
                cell("#|eval: false\nx = 3"), cell("#| echo: false\nx = 4"))
    texts = [stage.source(c) for c in made["cells"]]
    assert texts == ["# Title\n\n> line", "(cell-some-module-b-1)=", "x = 2", "show()", "x = 3",
                     "x = 4"]
    tags = [c["metadata"].get("tags") for c in made["cells"]]
    assert tags == [None, None, ["export"], ["remove-input"], [], ["remove-input"]]
    assert made["metadata"] == {}


def test_a_widget_gives_way_to_its_picture():
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox()"}
    picture = {**view, "image/png": "AA"}
    kept, lost = stage.still([shown(picture)])
    assert [output["data"] for output in kept] == [{"image/png": "AA"}] and not lost
    assert stage.still([shown(view)]) == ([], True)
    made = read(cell("widget", [shown(view)]))
    assert made["cells"][-1]["source"] == stage.LIVE and made["cells"][-2]["outputs"] == []
    text = {"output_type": "stream", "name": "stdout", "text": "1"}
    plain = [text, shown({"text/plain": "2"})]
    assert stage.still(plain) == (plain, False)


def test_a_whole_html_page_becomes_a_piece():
    whole = ("<!doctype html><html><head><style>body{margin:9em}</style></head>"
             "<body class='a'><p>x</p></body></html>")
    assert stage.fragment(whole) == "<p>x</p>"
    assert stage.fragment("<table></table><script src='https://a.b'></script>") == "<table></table>"


def test_links_are_mapped_outside_code_only():
    text = ("[a](b.ipynb) ![c](d.png) `[e](f)` [g](https://h.i) [j](#k) <a href=\"l.md\">\n"
            "```\n[m](n)\n```")
    wanted = ("[a](to/b.ipynb) ![c](to/d.png) `[e](f)` [g](https://h.i) [j](#k) "
              "<a href=\"to/l.md\">\n```\n[m](n)\n```")
    assert stage.relinked(text, lambda link: f"to/{link}") == wanted


def test_labs_are_shown_without_their_solutions():
    text = ("def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION\n\n"
            "assert f(1) == 1\n### BEGIN HIDDEN TESTS\nassert f(2) == 2\n### END HIDDEN TESTS")
    assert stage.without_solutions(text) == \
        "def f(x):\n    # your code\n    raise NotImplementedError()\n\nassert f(1) == 1"
    open_question = read({"cell_type": "markdown", "id": "m", "metadata": {}, "source": (
        "### BEGIN SOLUTION\nThe answer\n### END SOLUTION")})
    assert stage.source(open_question["cells"][-1]) == "*Your answer.*"


def test_pictures_are_told_in_words():
    code = ("%matplotlib inline\nax.set(title='A', xlabel='no')\nplt.title('B')\n"
            "show_grid({'C': x, f'{y}': y})")
    assert stage.alternative(code, "Blur") == "Blur: A; B; C"
    assert stage.alternative("plot(", "Blur") == "Blur"


def test_links_that_leave_the_notebooks_lead_to_copies(tmp_path):
    root = tmp_path / "root"
    card = "# Card\n\n[l](../LICENSE) [m](../nbs/00_x.ipynb)"
    for name, text in {"LICENSE": "l", "a/CARD.md": card, "nbs/pictures/p.png": "p"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    notebook = {"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": (
        "# X\n\n[card](../a/CARD.md#place) ![p](pictures/p.png) [dir](../a) [self](00_x.ipynb)")}],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (root / "nbs" / "00_x.ipynb").write_text(json.dumps(notebook))
    out = tmp_path / "out"
    (out / "old").mkdir(parents=True)
    (out / "old" / "gone.md").write_text("# gone")
    pages = stage.Stage(root, out, "https://a.b/c")
    pages.add(root / "nbs" / "00_x.ipynb")
    pages.close()
    made = stage.source(json.loads((out / "00_x.ipynb").read_text())["cells"][0])
    assert "(files/a/CARD.md#place) ![p](pictures/p.png)" in made
    assert "[dir](https://a.b/c/tree/main/a) [self](00_x.ipynb)" in made
    card = (out / "files" / "a" / "CARD.md").read_text()
    assert card.endswith("[l](../LICENSE) [m](../../00_x.ipynb)")
    assert (out / "files" / "LICENSE").read_text() == "l" and (out / "pictures" / "p.png").exists()
    assert not (out / "old").exists()
    notebook["cells"][0]["source"] = "# X\n\n[gone](../gone.txt)"
    (root / "nbs" / "00_x.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(FileNotFoundError, match="00_x.ipynb: links to ../gone.txt"):
        stage.Stage(root, out, "").add(root / "nbs" / "00_x.ipynb")


# the reference

CODE = '''"""Things with `Box`."""

# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/00_things.ipynb.

# %% auto #0
__all__ = ["LIMIT", "ONE", "TWO", "Box", "Fault", "area", "field"]

# %% ../nbs/00_things.ipynb #00-001
from dataclasses import dataclass, field
from fastcore.basics import patch

LIMIT = 3  # of all things
ONE, TWO = 1, 2

@dataclass
class Box:
    "A box."
    width: float  # pixels, see `area`
    parts: list = field(default_factory=list)  # what is in it

    @property
    def half(self) -> float:
        "Half of `width`."
        return self.width / 2

class Fault(ValueError):
    "A box that is none."

# %% ../nbs/00_things.ipynb #00-002
def area(
    box: "Box",  # a box
    *others,  # more of them
    scale: int | None = None,  # a_factor, `LIMIT` at most
) -> float:  # square pixels
    """Its area * 2 for `box`es. Raises: `Fault` for
    none. Source: ours."""
    return box.width ** 2

@patch
def grow(
    self: Box,
    by: float,  # pixels
) -> "Box":
    "A larger one."

@patch(cls_method=True)
def made(cls: Box):
    "One."
'''


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package") / "boxes_of_things"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "things.py").write_text(CODE)
    (folder / "_hidden.py").write_text("raise RuntimeError")
    sys.path.insert(0, str(folder.parent))
    yield reference.reference(folder)["api/things.rst"]
    sys.path.remove(str(folder.parent))


def test_reference_has_signatures_tables_and_sources(things):
    assert ".. py:function:: area(box, *others, scale=None)\n" in things
    assert ".. source boxes_of_things.things area ../00_things.html#cell-things-00-002\n" in things
    assert ".. py:class:: Box(width, parts=list())\n" in things
    assert "     - pixels, see :py:obj:`area <boxes_of_things.things.area>`\n" in things
    assert "      * - ``scale``\n        - ``int | None``\n        - ``None``\n" in things
    assert "**Returns:** ``float``, square pixels" in things
    assert ".. py:exception:: Fault\n" in things and "A kind of ``ValueError``." in things
    assert "      LIMIT = 3  # of all things" in things
    assert things.count("      ONE, TWO = 1, 2\n") == 2 and ".. py:data:: TWO\n" in things
    assert ":doc:`/00_things`" in things and "Also to be had from here: ``field``." in things


def test_reference_has_the_methods_that_are_added_later(things):
    assert "   .. py:method:: Box.grow(by)\n" in things
    assert "   .. py:method:: Box.made()\n      :classmethod:\n" in things
    assert "   .. py:property:: Box.half\n" in things
    place = "../00_things.html#cell-things-00-002"
    assert f"   .. source boxes_of_things.things Box.grow {place}\n" in things


def test_docstrings_are_text_with_code_in_backticks(things):
    link = ":py:obj:`Fault <boxes_of_things.things.Fault>`"
    assert "   Its area \\* 2 for ``box``\\ es.\n\n" in things
    assert f"   **Raises:** {link} for none.\n\n   **Source:** ours.\n" in things
    assert "a\\_factor, :py:obj:`LIMIT <boxes_of_things.things.LIMIT>` at most" in things


# formulas

def test_formulas_are_mathml():
    half = "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"
    assert half in mathml.mathml(r"\frac{1}{2}")
    assert 'display="block"' in mathml.mathml("x", block=True)
    assert "⌊" in mathml.mathml(r"\Big\lfloor x \Big\rfloor")
    cases = r"\begin{cases} y & x \ge 0 \\ 0 & \text{otherwise} \end{cases}"
    assert "\\" not in mathml.mathml(cases)
    assert '<mrow><mi>y</mi><mo lspace="0" rspace="0">′</mo></mrow>' in mathml.mathml("y'")
    assert "<msub><mrow><mi>y</mi><mo" in mathml.mathml("y'_p")


@pytest.mark.parametrize("formula, prefix", [
    ("-x", 1), ("a - x", 0), ("(-x)", 1), ("a = -x", 1), ("f(x) - 1", 0)])
def test_a_sign_is_told_from_a_difference(formula, prefix):
    assert mathml.mathml(formula).count('form="prefix"') == prefix


@pytest.mark.parametrize("formula", [r"\nosuchcommand x", r"\frac{1}{", r"\Big\nosuchbracket"])
def test_a_formula_that_cannot_be_drawn_is_an_error(formula):
    with pytest.raises(ValueError, match="formula"):
        mathml.mathml(formula)


def test_requirements_of_the_site_are_among_those_of_development():
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras["docs"] and set(extras["docs"]) <= set(extras["dev"])
