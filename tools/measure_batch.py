"""A folder of pictures of which some are broken: all good ones are protected, each bad one is named, and memory stays flat.

    python tools/measure_batch.py --count 1000 --out batch_out --json nbs/results/batch.json

Rendered pictures, one in a hundred broken in one of seven ways, go through `privnb enhance`, as a user would call it. Memory of the process
is read ten times a second; what is told is its median over the second tenth of the run and over the last. Status 1 where a good
picture was not done, a bad one was not named, or memory grew by more than a twentieth.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import re
import shutil
import struct
import sys
import threading
import time
import zlib
from datetime import date
from pathlib import Path

for name, value in dict(AUTOINSTALL="false", OFFLINE="true", VERBOSE="false").items():
    os.environ.setdefault(f"YOLO_{name}", value)

import numpy as np
import torch

from privnb.cli import main as privnb
from privnb.images import save_image
from privnb.scenes import make_scene


def bomb(side):
    "A PNG of a few bytes that claims to have side x side pixels."
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BREAKS = {"empty": lambda whole: b"", "cut": lambda whole: whole[:len(whole) // 2], "text": lambda whole: b"This is no picture.\n",
          "zeros": lambda whole: bytes(len(whole)), "bomb": lambda whole: bomb(60_000),
          "head only": lambda whole: whole[:33], "noise": lambda whole: np.random.default_rng(0).bytes(len(whole))}


def render(folder, count, every, size):
    "Write the pictures; returns those that are broken, name -> how."
    folder.mkdir(parents=True, exist_ok=True)
    ways, broken = list(BREAKS.items()), {}
    for i in range(count):
        path = folder / f"{i:05d}.png"
        save_image(make_scene(17, i, size=size, people=(1, 2), split="test").image, path, overwrite=True)
        if i % every == every // 2:
            way, change = ways[i // every % len(ways)]
            path.write_bytes(change(path.read_bytes()))
            broken[path.name] = way
    return broken


class Memory(threading.Thread):
    "Reads the resident memory of this process, bytes, ten times a second."

    def __init__(self):
        super().__init__(daemon=True)
        self.values, self.over = [], threading.Event()

    def run(self):
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.over.wait(0.1):
            self.values.append(page * int(Path("/proc/self/statm").read_text().split()[1]))


def protect(folder, out):
    "Exit status, what was said on standard error, memory over time."
    said, memory = io.StringIO(), Memory()
    memory.start()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = privnb(["enhance", str(folder), "--out", str(out), "--allow-empty", "--quiet"])
    memory.over.set()
    memory.join()
    return status, said.getvalue(), np.array(memory.values)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="pictures (1000)")
    parser.add_argument("--every", type=int, default=100, help="one in so many is broken (100)")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures, pixels (192)")
    parser.add_argument("--out", required=True, help="folder that is made and removed")
    parser.add_argument("--json", help="write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder, out = Path(args.out) / "in", Path(args.out) / "out"
    shutil.rmtree(args.out, ignore_errors=True)
    broken, began = render(folder, args.count, args.every, args.size), time.perf_counter()
    status, said, memory = protect(folder, out)
    took = time.perf_counter() - began
    done = {path.name for path in out.iterdir()}
    named = set(re.findall(r"^privnb: \S*?(\d{5}\.png): [^\n]+$", said, re.M))
    good = {path.name for path in folder.iterdir()} - set(broken)
    early, late = (float(np.median(part)) / 1e6 for part in (memory[len(memory) // 10:len(memory) // 5], memory[-len(memory) // 10:]))
    content = {"pictures": args.count, "good ones done": len(done & good), "good ones": len(good), "bad ones": len(broken),
               "bad ones named": len(named & set(broken)), "ways": dict(sorted(broken.items())), "others named": sorted(named - set(broken)),
               "bad ones written": sorted(done & set(broken)), "status": status, "memory early, MB": round(early, 1),
               "memory late, MB": round(late, 1), "seconds a picture": round(took / args.count, 3),
               "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread", "date": str(date.today()),
               "command": "python tools/measure_batch.py " + " ".join(sys.argv[1:])}
    shutil.rmtree(args.out)
    text = json.dumps(content, indent=1)
    print(text)
    if args.json:
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    held = done == good and named == set(broken) and status == 1 and late < 1.05 * early
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
