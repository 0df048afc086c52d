#!/usr/bin/env python3
"""The documentation site, without a network: python tools/docs/make_docs.py [--out _docs]

OUT/source holds the pages that stage.py and reference.py write, OUT/html the site.
Warnings are errors.
"""
import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from reference import reference  # noqa: E402
from stage import write_pages  # noqa: E402

REPOSITORY = "https://github.com/privnb/privnb"
OWN = {"genindex", "py-modindex", "search"}  # pages that Sphinx makes by itself


def remove_stale(html: Path, source: Path) -> None:
    "Remove pages whose source is gone; Sphinx leaves them."
    kept = {path.relative_to(source).with_suffix("") for path in source.rglob("*")}
    for page in html.rglob("*.html"):
        name = page.relative_to(html).with_suffix("")
        if name not in kept and str(name) not in OWN and "_static" not in name.parts:
            page.unlink()


def build(
    out: Path,  # folder of the site and of what it is made from
    jobs: int = 1,  # processes
) -> int:
    "Write the pages and run Sphinx; its exit status."
    source = out / "source"
    write_pages(ROOT, source, reference(ROOT / "privnb"), REPOSITORY)
    remove_stale(out / "html", source)
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--conf-dir", str(HERE),
               "--doctree-dir", str(out / "doctrees"), "--fail-on-warning", "--keep-going",
               "--nitpicky", "--jobs", str(jobs), "--quiet", str(source), str(out / "html")]
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode
    if status:  # a page that was read would not be warned of again
        shutil.rmtree(out / "doctrees", ignore_errors=True)
    return status


def main() -> int:
    "The command line."
    parser = argparse.ArgumentParser(description="the documentation site")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="folder (_docs)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    given = parser.parse_args()
    status = build(given.out.resolve(), given.jobs)
    if status == 0:
        print(f"open {given.out.resolve() / 'html' / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
