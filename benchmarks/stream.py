"""People missed when they are looked for in every k-th frame only, on rendered clips.

    python benchmarks/stream.py [--system single] [--clips 4] [--frames 37] [--json FILE]

640 x 480 pixels, three people who walk, held-out ones. `missed` is the share of people in frames of whom more than half lies
outside all squares, `pixels` the mean share of a person outside, `painted` the area of all squares over the frame's.
No time is measured. `every` 0 looks in every frame and remembers nothing.
"""
import argparse
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from privnb.edge import EdgeSystem
from privnb.frames import sort_people
from privnb.pipeline import write_camera
from privnb.profiling import machine, tidy
from privnb.scenes import make_clip
from privnb.stream import _planned, uncovered
from privnb.system import PrivacySystem

SETTINGS = [((192, 288), 0, 0), ((288,), 0, 0), ((192,), 0, 0)]
SETTINGS += [(sizes, every, hold) for sizes in ((192, 288), (288,))
             for every, hold in ((1, 1), (2, 1), (3, 0), (3, 1), (3, 2), (5, 1), (8, 1))]


def plan(edge, images, every, hold):
    "Frames with the boxes that are covered."
    if not every:
        return [(frame, edge.find(frame).boxes) for frame in images]
    with ThreadPoolExecutor(1) as pool:
        return [part[:2] for part in _planned(pool, edge, images, every, 0.06, hold)]


def judged(edge, clips, every, hold):
    "Shares over all people and frames."
    shares, areas = [], []
    for clip in clips:
        planned = plan(edge, [scene.image for scene in clip], every, hold)
        for scene, (frame, boxes) in zip(clip, planned):
            squares, _, filled = sort_people(boxes, frame.shape, edge.rules, edge.side)
            shares.append(uncovered(scene.masks, {"squares": squares, "filled": filled}))
            areas.append(np.square(squares[:, 2] - squares[:, 0]).sum() / frame[..., 0].size)
    shares = np.concatenate(shares)
    return {"missed": (shares > 0.5).mean(), "pixels": shares.mean(), "painted": np.mean(areas),
            "people": len(shares)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="single")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=37)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    clips = [make_clip(50, k, frames=args.frames, size=(480, 640), people=(3, 3), split="test")
             for k in range(args.clips)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_camera(PrivacySystem.load(args.system), folder)
        for sizes, every, hold in SETTINGS:
            edge = EdgeSystem(folder, 1, sizes)
            rows.append({"sizes": sizes, "every": every, "hold": hold,
                         **judged(edge, clips, every, hold)})
            print({name: value for name, value in tidy(rows[-1]).items()}, flush=True)
    answer = tidy({**machine(), "system": args.system, "clips": args.clips, "frames": args.frames,
                   "rows": rows})
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
