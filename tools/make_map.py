#!/usr/bin/env python3
"""The map of all notebooks in nbs/start.ipynb, in reading order, from the first cell of each.

    python tools/make_map.py           write it
    python tools/make_map.py --check   exit 1 if it is not what would be written

Every notebook opens with `# Name` and `> one line`; that line is its entry.
"""
import argparse
import json
import re
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / "nbs"
HEADING = "## The map"
CHAPTERS = {  # folder below nbs/ -> heading, what to say about it
    ".": ("Rooms", "privnb in reading order; each imports only from those before it."),
    "labs": ("Labs", "Ninety minutes each, with exercises."),
    "papers": ("Papers", "The tables of the papers, computed here."),
}


def text_of(notebook: dict, cell: int) -> str:
    "The source of a cell."
    return "".join(notebook["cells"][cell]["source"])


def entry(path: Path) -> str:
    "One row of the table: a link, and the notebook's own line."
    lines = text_of(json.loads(path.read_text(encoding="utf-8")), 0).splitlines()
    line = next((line[1:].strip() for line in lines if line.startswith(">")), "")
    name = path.stem.replace("_", " ") if path.parent == NBS else lines[0].lstrip("# ")
    return f"| [{name}]({path.relative_to(NBS).as_posix()}) | {line} |"


def notebooks(folder: str) -> list:
    "The notebooks of a chapter in reading order; start and index are not on the map."
    found = sorted((NBS / folder).glob("*.ipynb"))
    return [path for path in found if folder != "." or re.match(r"\d\d[a-z]?_", path.name)]


def chapter_map() -> str:
    "The whole map as Markdown."
    parts = [HEADING, "The exercises at the end of each notebook are solved in the folder `solutions`."]
    for folder, (title, words) in CHAPTERS.items():
        rows = [entry(path) for path in notebooks(folder)]
        if rows:
            parts += [f"### {title}", words, "\n".join(["| notebook | what it is about |", "|---|---|", *rows])]
    return "\n\n".join(parts)


def main() -> int:
    "Write or check the map."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 if it is not fresh")
    arguments = parser.parse_args()
    path = NBS / "start.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    place = next(i for i in range(len(notebook["cells"])) if text_of(notebook, i).startswith(HEADING))
    wanted = chapter_map()
    if text_of(notebook, place) == wanted:
        return 0
    if arguments.check:
        print("nbs/start.ipynb: the map is not fresh; run python tools/make_map.py", file=sys.stderr)
        return 1
    notebook["cells"][place]["source"] = wanted.splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
