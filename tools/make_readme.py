#!/usr/bin/env python3
"""README.md from nbs/index.ipynb.

    python tools/make_readme.py           write README.md
    python tools/make_readme.py --check   exit 1 if README.md is not what would be written

Prose is taken as it is, code is fenced, printed text follows its code. Relative links and pictures are
rewritten from the notebook's folder to the root.
"""
import argparse
import json
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Made from nbs/index.ipynb by tools/make_readme.py; edit the notebook. -->"
LINK = re.compile(r'(\]\(|\b(?:src|href)=")([^)"\s]+)')
FENCED = re.compile(r"^```.*?^```[^\n]*$", re.M | re.S)


def from_root(text: str) -> str:
    "Rewrites relative targets of links and pictures, outside fenced code, from nbs/ to the root."
    def target(match):
        start, link = match.groups()
        if link.startswith(("#", "/")) or re.match(r"[a-z]+:", link):
            return match.group(0)
        return start + posixpath.normpath(posixpath.join("nbs", link))

    parts, end = [], 0
    for fence in FENCED.finditer(text):
        parts += [LINK.sub(target, text[end:fence.start()]), fence.group(0)]
        end = fence.end()
    return "".join([*parts, LINK.sub(target, text[end:])])


def printed(cell: dict) -> str:
    "What a code cell printed or returned as plain text."
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output["output_type"] == "stream":
            parts.append("".join(output["text"]))
        elif "text/plain" in data and not any(kind.startswith("image/") for kind in data):
            parts.append("".join(data["text/plain"]))
    return "\n".join(part.rstrip("\n") for part in parts)


def readme(notebook: dict) -> str:
    "The whole README for a notebook that has been read as JSON."
    blocks = [NOTICE]
    for cell in notebook["cells"]:
        lines = "".join(cell["source"]).splitlines()
        directives = [line for line in lines if line.startswith("#|")]
        if any(re.match(r"#\|\s*hide\b", line) for line in directives):
            continue
        body = "\n".join(line for line in lines if line not in directives).strip("\n")
        if not body:
            continue
        if cell["cell_type"] == "markdown":
            blocks.append(from_root(body))
        elif cell["cell_type"] == "code":
            blocks.append(f"```python\n{body}\n```")
            text = printed(cell)
            if text:
                blocks.append(f"```\n{text}\n```")
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="README.md from nbs/index.ipynb")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    check = parser.parse_args().check
    text = readme(json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8")))
    path = ROOT / "README.md"
    if check:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return 0
        print("README.md is stale: run python tools/make_readme.py", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
