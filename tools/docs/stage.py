"""The notebooks of nbs/ as pages that Sphinx reads, and the tree that they hang in.

`write_pages` writes a copy of every notebook into `out`, prepared for reading: cells marked `hide`
are gone, `#|` lines too, widgets have given way to their pictures, links that leave nbs/ lead to
copies, and the index holds the table of contents. Nothing is executed. A file is written only when
it changes, so that Sphinx reads little again.
"""
import ast
import json
import posixpath
import re
from pathlib import Path

ROOM = re.compile(r"(\d\d)([a-z]?)_(\w+)")
PARTS = (  # caption, first and last number of its rooms
    ("People and pictures", 0, 2),
    ("Guidance and portraits", 3, 4),
    ("Networks and losses", 5, 7),
    ("Pose and metrics", 8, 9),
    ("The system and its training", 10, 11),
    ("Evaluation and tables", 12, 12),
    ("Edge devices", 13, 14),
    ("Widgets", 15, 15),
    ("Privacy", 16, 19),
    ("Systems of other papers", 20, 87),
    ("Course, demonstration, command line", 88, 99),
)
LEFT_OUT = {".ipynb_checkpoints", "release", "autograded", "submitted", "feedback"}
STUB = r"\1# your code\n\1raise NotImplementedError()"  # in place of a solution, at its indentation
DEAD = ("application/vnd.jupyter.widget-view+json", "application/javascript",
        "application/vnd.jupyter.widget-state+json")
TAGS = {  # of a cell: nbdev's directives that call for them
    "remove-input": {"hide_input", "hide-input"},
    "remove-output": {"hide_output", "hide-output"},
    "export": {"export", "exports", "exporti"},
}
LIVE = "*The widget that stands here is live in JupyterLab (`make lab`).*"
LINK = re.compile(r'(\]\(|\b(?:src|href)=")([^)"\s]+)')
CODE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)[^\n]*$|`[^`\n]+`", re.M | re.S)


def source(cell: dict) -> str:
    "The text of a cell."
    return "".join(cell["source"])


def directives(text: str) -> dict:
    "The nbdev directives of a code cell: name -> argument."
    found = re.findall(r"^#\|[ \t]*([\w-]+):?[ \t]*(.*?)[ \t]*$", text, re.M)
    return {name: argument for name, argument in found}


def without_directives(text: str) -> str:
    "The code that a reader sees."
    return re.sub(r"^#\|.*\n?", "", text, flags=re.M).strip("\n")


def without_solutions(text: str, answer: str = STUB) -> str:
    "What a participant of a lab gets: solutions are replaced, hidden tests and mark schemes go."
    for name, replacement in (("SOLUTION", answer), ("HIDDEN TESTS", ""), ("MARK SCHEME", "")):
        region = rf"^([ \t]*)### BEGIN {name}\b.*?^[ \t]*### END {name}\b[^\n]*"
        text = re.sub(region, replacement, text, flags=re.M | re.S)
    return text.rstrip("\n")


def room(name: str) -> tuple | None:
    "Number, letter and module of a notebook's stem; None for one that is no room."
    match = ROOM.fullmatch(name)
    return (int(match[1]), match[2], match[3]) if match else None


def title(notebook: dict) -> str:
    "The first heading of a notebook."
    for cell in notebook["cells"]:
        match = re.search(r"^# (.+)$", source(cell), re.M)
        if match and cell["cell_type"] == "markdown":
            return match[1].strip()
    raise ValueError("notebook: no line starts with '# '; allowed is a notebook with a heading")


def alternative(code: str, heading: str) -> str:
    "What a picture shows, in words: the heading above it, and the titles that its code gives."
    words = []
    try:
        tree = ast.parse(re.sub(r"^\s*[%!].*$", "", code, flags=re.M))
    except SyntaxError:
        return heading
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        texts = [k.value for k in call.keywords if k.arg in ("title", "caption", "label")]
        if name in ("title", "set_title", "suptitle"):
            texts += call.args[:1]
        if name == "show_grid":
            texts += [key for d in call.args if isinstance(d, ast.Dict) for key in d.keys]
        words += [getattr(text, "value", None) for text in texts]
    words = [word for word in words if isinstance(word, str)]
    return f"{heading}: {'; '.join(dict.fromkeys(words))}" if words else heading


def fragment(page: str) -> str:
    "The body of a whole HTML page; other HTML as it is. Scripts and style sheets are dropped."
    match = re.search(r"<body\b[^>]*>(.*?)(?:</body>|\Z)", page, re.S | re.I)
    page = match[1] if match else page
    return re.sub(r"<(script|style)\b.*?</\1\s*>|<link\b[^>]*>", "", page, flags=re.S | re.I)


def still(outputs: list) -> tuple[list, bool]:
    "The outputs as pictures and text, and whether a widget was left out that has neither."
    kept, lost = [], False
    for output in outputs:
        data = output.get("data")
        if data is None:
            kept.append(output)
            continue
        alive = {kind: value for kind, value in data.items() if kind not in DEAD}
        if len(alive) < len(data):
            alive.pop("text/plain", None)
            lost = lost or not alive
        if "text/html" in alive:
            alive["text/html"] = fragment("".join(alive["text/html"]))
        if alive:
            kept.append({**output, "data": alive})
    return kept, lost


def anchor(module: str, cell: str) -> str:
    "The name of the place of a cell, in links from the reference."
    return f"cell-{module}-{cell}".replace("_", "-").lower()


def markdown(text: str) -> dict:
    "A cell of prose."
    return {"cell_type": "markdown", "id": "", "metadata": {}, "source": text}


def readable(notebook: dict, link, module: str = "") -> dict:
    "The notebook as a page. `link` maps targets of links; exported cells belong to `module`."
    cells, heading = [], title(notebook)
    for number, cell in enumerate(notebook["cells"]):
        text = source(cell)
        if cell["cell_type"] == "markdown":
            text = without_solutions(text, "*Your answer.*")
            heading = (re.findall(r"^#+ (.+)$", CODE.sub("", text), re.M) or [heading])[-1]
            cells.append({**cell, "source": relinked(text, link)})
        if cell["cell_type"] != "code":
            continue
        marks, code = directives(text), without_directives(without_solutions(text))
        outputs, lost = still(cell.get("outputs", []))
        if "hide" in marks or not (code or outputs):
            continue
        tags = [tag for tag, names in TAGS.items() if names & set(marks)]
        if marks.get("echo") == "false":
            tags.append("remove-input")
        if "export" in tags and module:
            cells.append(markdown(f"({anchor(module, cell.get('id', str(number)))})="))
        words = alternative(code, re.sub(r"[`*$]", "", heading))
        cells.append({**cell, "source": code, "outputs": outputs, "execution_count": None,
                      "metadata": {"tags": tags, "mystnb": {"image": {"alt": words}}}})
        if lost:
            cells.append(markdown(LIVE))
    metadata = {k: v for k, v in notebook.get("metadata", {}).items() if k == "kernelspec"}
    return {**notebook, "cells": cells, "metadata": metadata}


def relinked(text: str, link) -> str:
    "The text with the target of every relative link mapped by `link`, code left alone."
    def target(match):
        start, old = match.groups()
        return match[0] if re.match(r"[a-z]+:|#|/", old) else start + link(old)

    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(target, text[end:code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(target, text[end:])])


class Stage:
    "A folder of pages; what was not written again by `close` is removed."

    def __init__(
        self,
        root: Path,  # of the repository
        out: Path,  # where the pages go
        repository: str,  # address of the repository, for links to folders
    ):
        self.root, self.nbs, self.out, self.repository = root, root / "nbs", out, repository
        self.written, self.linked = set(), []

    def write(self, name: str, data: str | bytes) -> None:
        "Write a file, if it changes."
        data = data.encode() if isinstance(data, str) else data
        path = self.out / name
        self.written.add(path)
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def name(self, path: Path) -> str:
        "Where a file of the repository lies among the pages."
        inside = self.nbs in path.parents
        return path.relative_to(self.nbs).as_posix() if inside else (
            f"files/{path.relative_to(self.root).as_posix()}")

    def link(self, folder: Path, name: str, old: str) -> str:
        "What a link in the page `name`, whose source lies in `folder`, leads to."
        path, _, place = old.partition("#")
        target = Path(posixpath.normpath(folder / path))
        if target.is_dir():
            return f"{self.repository}/tree/main/{target.relative_to(self.root)}"
        if not target.exists() and target.suffix != ".ipynb":  # of those Sphinx warns
            raise FileNotFoundError(f"{name}: links to {old}, which does not exist")
        new = self.name(target)
        if target.suffix != ".ipynb" and target not in self.linked:
            self.linked.append(target)
        new = posixpath.relpath(new, posixpath.dirname(name) or ".")
        return f"{new}#{place}" if place else new

    def add(self, path: Path, extra: tuple = (), after: tuple = ()) -> None:
        "Write a notebook's page, with cells of prose after its first and after its last."
        name, found = self.name(path), room(path.stem)
        module = found[2] if found and path.parent == self.nbs else ""
        notebook = json.loads(path.read_text(encoding="utf-8"))
        page = readable(notebook, lambda old: self.link(path.parent, name, old), module)
        page["cells"][1:1] = map(markdown, extra)
        page["cells"] += map(markdown, after)
        for number, cell in enumerate(page["cells"]):
            cell["id"] = f"page-{number}"
        self.write(name, json.dumps(page, ensure_ascii=False))

    def close(self) -> None:
        "Copy what is linked to, and remove what belongs to nothing any more."
        for path in self.linked:  # grows while texts are read that link to others
            name = self.name(path)
            if path.suffix == ".md":
                text = relinked(path.read_text(encoding="utf-8"),
                                lambda old: self.link(path.parent, name, old))
                self.write(name, f"---\norphan: true\n---\n\n{text}")
            else:
                self.write(name, path.read_bytes())
        for path in sorted(self.out.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path not in self.written:
                path.unlink()


def notebooks(folder: Path) -> list:
    "The notebooks below a folder, those that students hand in and get left out."
    return sorted(path for path in folder.rglob("*.ipynb")
                  if not LEFT_OUT & set(path.relative_to(folder).parts))


def toctree(caption: str, entries: list, hidden: bool = True) -> str:
    "A table of contents, empty without entries."
    if not entries:
        return ""
    options = [":hidden:"] * hidden + [f":caption: {caption}"] * bool(caption)
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])


def contents(nbs: Path) -> list:
    "Caption and entries (title, page) of each part of the site that is made of notebooks."
    def entry(path, number=""):
        found = title(json.loads(path.read_text(encoding="utf-8")))
        return f"{number}{found} <{path.relative_to(nbs).with_suffix('').as_posix()}>"

    above = [path for path in sorted(nbs.glob("*.ipynb")) if path.stem != "index"]
    rooms = [(room(path.stem), path) for path in above if room(path.stem)]
    parts = [("Start", [entry(path) for path in above if not room(path.stem)])]
    for caption, first, last in PARTS:
        inside = [(r, path) for r, path in rooms if first <= r[0] <= last]
        parts.append((caption, [entry(path, f"{r[0]:02}{r[1]} ") for r, path in inside]))
    parts.append(("Labs", [entry(path) for path in notebooks(nbs / "labs")]))
    parts.append(("Papers, measured again", [entry(path) for path in notebooks(nbs / "papers")]))
    return [part for part in parts if part[1]]


def write_pages(
    root: Path,  # of the repository
    out: Path,  # where the pages go; what else lies there is removed
    reference: dict,  # further pages: name -> text
    repository: str,  # address of the repository, for links to folders
) -> None:
    "Write all pages of the site."
    stage = Stage(root, out, repository)
    solutions = {path.name for path in notebooks(stage.nbs / "solutions")}
    for path in notebooks(stage.nbs):
        found, above = room(path.stem), path.parent == stage.nbs
        extra, after = (), ()
        if above and path.stem == "index":
            trees = [toctree(*part) for part in contents(stage.nbs)]
            more = ["API reference <api/index>", "Solutions <solutions/index>"]
            after = ("\n\n".join([*trees, toctree("Reference", more)]),)
        elif above and found:
            line = (f"This chapter is the module {{py:mod}}`privnb.{found[2]}`; "
                    "the cells with a coloured edge are its source.")
            line += f" [Solutions](solutions/{path.name})." if path.name in solutions else ""
            extra = (f"```{{container}} chapter\n{line}\n```",)
        stage.add(path, extra, after)
    pages = [f"{title(json.loads(p.read_text(encoding='utf-8')))} <{p.stem}>"
             for p in notebooks(stage.nbs / "solutions")]
    stage.write("solutions/index.md", "# Solutions\n\nEach chapter ends with exercises; these are "
                "their answers, and they are tested.\n\n" + toctree("", pages, hidden=False) + "\n")
    for name, text in reference.items():
        stage.write(name, text)
    stage.close()

