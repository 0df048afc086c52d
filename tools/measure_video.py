"""How well a protected clip covers its people: rendered, stored as H.264, protected, counted by the true masks.

    python tools/measure_video.py --out video_out --json nbs/results/video.json

The clip is a minute: 5 shots of 12 s, 24 frames a second, 3 people of the test split who come in, cross and go out. The share of
people's pixels inside what was changed is counted frame by frame, beside two others: each frame by itself, without tracks, and
the true boxes. The share of background that was changed is told with each. A run that was stopped goes on where it stood.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from datetime import date
from fractions import Fraction
from pathlib import Path

for name, value in dict(AUTOINSTALL="false", OFFLINE="true", VERBOSE="false").items():
    os.environ.setdefault(f"YOLO_{name}", value)

import numpy as np
import torch
from tqdm.auto import tqdm

from privnb.clips import ClipWriter, read_frames
from privnb.coverage import Tally, covered
from privnb.finding import PROTECT
from privnb.scenes import make_clip
from privnb.system import PrivacySystem
from privnb.video import ClipSettings, enhance_video


def shots(args):
    "The scenes of the clip, shot by shot, one shot in memory at a time."
    for shot in range(args.shots):
        yield from make_clip(args.seed, shot, frames=args.length, size=tuple(args.size), people=args.people, split="test")


def render(args, path):
    "Write the clip, whole or not at all."
    part = path.with_name(f"part_{path.name}")
    with ClipWriter(part, args.size, args.rate, Fraction(1, args.rate), crf=18) as writer:
        for scene in tqdm(shots(args), total=args.shots * args.length, desc="rendering", disable=args.quiet):
            writer.write(scene.image)
    os.replace(part, path)


def judge(args, system, clip, records):
    "The tallies of the clip, of each frame by itself, and of the true boxes."
    tallies = {"clip": Tally(), "frame by frame": Tally(), "true boxes": Tally()}
    total = args.shots * args.length
    for scene, (_, image), line in tqdm(zip(shots(args), read_frames(clip), records), total=total, desc="judging", disable=args.quiet):
        found, true = system.estimate(image, PROTECT).boxes, torch.from_numpy(np.asarray(scene.boxes, np.float32)).reshape(-1, 4)
        squares = {"clip": json.loads(line), "frame by frame": {"squares": system.squares(found).tolist()},
                   "true boxes": {"squares": system.squares(true).tolist()}}
        for name, tally in tallies.items():
            tally.add(scene.masks, scene.track, covered(squares[name], image.shape))
    return tallies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder of the clips")
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--length", type=int, default=288, help="frames a shot (288)")
    parser.add_argument("--rate", type=int, default=24, help="frames a second (24)")
    parser.add_argument("--size", type=int, nargs=2, default=(288, 512), metavar=("H", "W"))
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--system", default="single")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    clip, safe, records = out / "clip.mp4", out / "safe.mp4", out / "safe.jsonl"
    if not clip.exists():
        render(args, clip)
    system, settings, began = PrivacySystem.load(args.system, recoverer=False), ClipSettings(), time.perf_counter()
    told = enhance_video(clip, safe, system, settings, records=records, overwrite=True, progress=not args.quiet)
    took = time.perf_counter() - began
    with open(records, encoding="utf-8") as lines:
        tallies = judge(args, system, clip, lines)
    calm = np.array([person["calm"] for person in told.people.values() if person["calm"]])
    content = {name: tally.figures() for name, tally in tallies.items()}
    content |= {"people told": len(told.people), "SSIM of consecutive portraits": dict(zip(("original", "enhanced"), calm.mean(0))),
                "pixels changed": told.changed, "seconds": args.shots * args.length / args.rate, "frames a second": args.rate,
                "size": list(args.size), "seed": args.seed, "system": system.fingerprint(), "minutes taken": took / 60,
                "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread", "date": str(date.today()),
                "command": "python tools/measure_video.py " + " ".join(a for a in sys.argv[1:] if a != "--quiet")}
    text = json.dumps(content, indent=1, default=float)
    print(text)
    if args.json:
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
