"""The shipped system for every strength against conventional fine-tuning, in scenes from easy to crowded.

    privnb train --preset sliders --seed 0 --out runs/sliders
    python tools/refine_recoverer.py runs/sliders --out runs/sliders_refined --steps 1500
    python tools/compare_pose.py runs/sliders --only conventional --at pixelate:12 blur:8
    python tools/refine_estimator.py runs/sliders_refined --out runs/crowds
    python tools/refine_estimator.py runs/sliders_refined --out runs/crowds --plain runs/sliders pixelate:12 blur:8
    python tools/compare_crowds.py runs/crowds --scenes 600 --processes 2 --out nbs/results/crowds.json --date 2026-11-28

Nothing is trained here. Each row is judged on `--scenes` scenes of held-out people on held-out backgrounds, in 8 bits: the
shipped weights as they ship, or those of --system, beside the estimators that were fine-tuned on the plain guidance of one
strength for as many steps and pictures, those of the crowds included. Differences are taken over the same resampled scenes.
"""

import argparse
import json
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from privnb.evaluation import difference, evaluate_system
from privnb.figures import render_scenes
from privnb.images import write_file
from privnb.pose import PoseEstimator
from privnb.system import PrivacySystem
from privnb.weights import shipped

CROWDS = (  # people, side in pixels
    ((1, 3), 256), ((4, 6), 256), ((6, 9), 256), ((9, 12), 288), ((9, 12), 320), ((4, 6), 160))
POINTS = (("pixelate", 12.0), ("blur", 8.0))
PAIRS = {"enhanced over conventional": ("ap50_p", "ap50_p_conventional"),
         "recovered over pretrained": ("ap50_r", "ap50_o_pre")}


def row(system, scenes, pretrained, folder, kind, radius):
    "Figures of one strength on one set of scenes, and what counts as a difference."
    name = f"conventional_{kind}_{radius:g}.safetensors"
    found = evaluate_system(system.at(kind, radius), scenes, pretrained,
                            PoseEstimator.from_file(folder / name))
    kept = {key: round(value, 3) for key, value in found.figures.items()
            if key.startswith(("psnr", "ssim", "ap50"))}
    gaps = {}
    for title, (more, less) in PAIRS.items():
        value, ends = difference(found, more, found, less)
        gaps[title] = [round(float(number), 2) for number in (value, *ends)]
    return {"guidance": kind, "radius": radius, "persons": found.notes["people"],
            "figures": kept, "gaps": gaps}


def scene_kind(text):
    "9-12:288 -> ((9, 12), 288)."
    people, _, side = text.partition(":")
    least, _, most = people.partition("-")
    return (int(least), int(most)), int(side)


def strength(text):
    "blur:8 -> (\"blur\", 8.0)."
    kind, _, radius = text.partition(":")
    return kind, float(radius)


def crowd(args, people, side):
    "The strengths on scenes of one kind, in a process of its own."
    torch.set_num_threads(1)
    system = PrivacySystem.load(args.system)
    pretrained = PoseEstimator.from_file(shipped("pose.safetensors"))
    count, rows = args.scenes, []
    scenes = render_scenes(7, count, side, people, "test")
    for kind, radius in args.at:
        rows.append({"people": people, "side": side, "scenes": count,
                     **row(system, scenes, pretrained, args.run, kind, radius)})
        print(people, side, kind, radius, rows[-1]["gaps"], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder with conventional_KIND_RADIUS.safetensors")
    parser.add_argument("--system", default="continuous", help="what is judged (continuous)")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--crowds", nargs="+", type=scene_kind, default=CROWDS,
                        metavar="LEAST-MOST:SIDE", help="kinds of scenes, as 9-12:288 (all six)")
    parser.add_argument("--at", nargs="+", type=strength, default=POINTS, metavar="KIND:RADIUS",
                        help="strengths (pixelate:12 blur:8)")
    parser.add_argument("--processes", type=int, default=1, help="each judges other scenes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--date", required=True)
    args = parser.parse_args()
    system = PrivacySystem.load(args.system)
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        parts = [pool.submit(crowd, args, *kind) for kind in args.crowds]
        rows = [row for part in parts for row in part.result()]
    known = [line.strip() for line in __doc__.splitlines() if line.startswith("    ")]
    commands = [*known[:-1], " ".join(["python", *sys.argv])]
    content = {"date": args.date, "machine": f"{platform.machine()}, shared, one thread",
               "commands": commands, "system": system.fingerprint(), "rows": rows}
    write_file(args.out, json.dumps(content, indent=1) + "\n", overwrite=True)


if __name__ == "__main__":
    main()
