"""What the camera does to a frame beside its networks: crop, guide and paste, as they are and as they were.

    python benchmarks/geometry.py [--rounds 5] [--turns 60] [--json FILE]

One frame of 640 x 480 with three squares of 288, 320 and 416 pixels, two of which leave it; one thread. `earlier` is what ours
replaced: a window by arrays of mirrored indices, and all colours of a portrait assigned at once. Whether a process keeps
freed memory (`privnb.edge.keep_memory`) cannot be taken back, so each of the four combinations runs in a process of its
own, in turns; a figure is the median over rounds of the median over frames. No goal.
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from privnb import edge, frames
from privnb.profiling import machine, tidy

SQUARES = np.array([[-100, 124, 220, 444], [290, 160, 578, 448], [380, 80, 796, 496]])
RULES = {"guidance": {"kind": "pixelate", "radius": 12, "mode": "mean"}, "portrait": 256, "native": True}
STAGES = ("crop", "guide", "paste")


def crop_earlier(frame, square):
    "A native crop by indices."
    left, top, right, bottom = map(int, square)
    window = frame[frames.mirrored(top, bottom, frame.shape[0])]
    window = window[:, frames.mirrored(left, right, frame.shape[1])]
    planes = np.ascontiguousarray(window.transpose(2, 0, 1))
    return np.divide(planes, np.float32(255), dtype=np.float32)


def paste_earlier(frame, portrait, square):
    "All colours at once."
    left, top, right, bottom = map(int, square)
    x0, x1, y0, y1 = max(left, 0), min(right, frame.shape[1]), max(top, 0), min(bottom, frame.shape[0])
    levels = portrait[:, y0 - top:y1 - top, x0 - left:x1 - left] * np.float32(255)
    np.clip(np.rint(levels, out=levels), 0, 255, out=levels)
    frame[y0:y1, x0:x1] = levels.astype(np.uint8).transpose(1, 2, 0)


FORMS = {"earlier": (crop_earlier, paste_earlier), "now": (frames.crop, frames.paste)}


def measure(form, keep, turns):
    "Milliseconds of a frame by stage: the median over frames."
    crop, paste = FORMS[form]
    if keep:
        edge.keep_memory()
    frame, spent = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8), []
    for _ in range(turns + 3):
        marks = [time.perf_counter()]
        portraits = [crop(frame, square)[None] for square in SQUARES]
        marks.append(time.perf_counter())
        guided = [frames.guide(x, RULES) for x in portraits]
        marks.append(time.perf_counter())
        image = frame.copy()
        for x, square in zip(guided, SQUARES):
            paste(image, x[0], square)
        spent.append(np.diff([*marks, time.perf_counter()]))
    return (1e3 * np.median(spent[3:], 0)).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--one", nargs=2, metavar=("FORM", "KEEP"), help="one combination, printed")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], args.one[1] == "kept", args.turns)))
        return
    state, kinds = machine(1), [(form, keep) for form in FORMS for keep in ("given back", "kept")]
    rounds = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind in kinds:
            done = subprocess.run([sys.executable, __file__, "--turns", str(args.turns), "--one", *kind],
                                  check=True, capture_output=True, text=True)
            rounds[kind].append(json.loads(done.stdout))
    rows = {f"{form}, memory {keep}": dict(zip(STAGES, np.median(part, 0).tolist()))
            for (form, keep), part in rounds.items()}
    first = sum(rows["earlier, memory given back"].values())
    rows = {name: {**row, "all": sum(row.values()), "times_as_fast": first / sum(row.values())}
            for name, row in rows.items()}
    answer = tidy({**state, "rounds": args.rounds, "ms": rows})
    for name, row in answer["ms"].items():
        print(f"{name:28s}", *(f"{stage} {value:6.2f}" for stage, value in row.items()))
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
