"""What a system for every strength costs against systems that were trained as long for one.

    python tools/compare_strengths.py runs/continuous_0 runs/lecture_pixelate_0 runs/lecture_blur_0 \\
        --out nbs/results/continuous.json --date 2026-11-21

The continuous system is judged at the guidance of each single one, on the same held-out scenes; besides, along its
whole range, so that a curve can be drawn.
"""

import argparse
import json
import platform
from pathlib import Path

import torch

from privnb.config import TrainConfig
from privnb.figures import evaluate
from privnb.images import write_file
from privnb.loading import open_scenes
from privnb.system import PrivacySystem

STEPS = {"pixelate": (4, 6, 8, 12, 16), "blur": (2, 4, 5, 8, 12)}


def named(folder):
    "A run's seed and steps, its guidance."
    content = json.loads((folder / "config.json").read_text())
    guidance = content["system"]["guidance"]
    return {"run": folder.name, "seed": content["train"]["seed"], "steps": content["steps"],
            "guidance": guidance["kind"], "radius": guidance["radius"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", type=Path)
    parser.add_argument("singles", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--date", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    family = PrivacySystem.load(args.family)
    scenes = open_scenes(TrainConfig.from_dict(family.notes["train"]), "test")[0]
    rows, points = [], set()
    for folder in args.singles:
        row = named(folder)
        figures = json.loads((folder / "metrics.json").read_text())
        rows.append({**row, "system": "single", "figures": figures})
        points.add((row["guidance"], row["radius"]))
    points |= {(kind, float(r)) for kind, radii in STEPS.items() for r in radii}
    for kind, radius in sorted(points):
        low, high = family.config.ranges[kind]
        if low <= radius <= high:
            figures = evaluate(family.at(kind, radius), scenes)
            rows.append({**named(args.family), "guidance": kind, "radius": radius,
                         "system": "continuous", "figures": figures})
            print(kind, radius, {k: round(v, 2) for k, v in figures.items()}, flush=True)
    machine = f"{platform.machine()}, shared, one thread a run"
    content = {"date": args.date, "machine": machine, "rows": rows}
    write_file(args.out, json.dumps(content, indent=1) + "\n", overwrite=True)


if __name__ == "__main__":
    main()
