"""Go on training the estimator of a finished run alone, on crowded scenes; enhancer and recoverer stay as they are.

    python tools/refine_estimator.py continuous --out runs/crowds --steps 1000
    python tools/refine_estimator.py runs/sliders --plain runs/sliders/conventional_blur_8.safetensors blur:8 \
        --out runs/crowds/conventional_blur_8.safetensors --steps 1000

It sees enhanced pictures at random strengths of the ranges and raw ones. With `--plain` an estimator that was fine-tuned
on the plain guidance goes on for as many steps, on as many pictures of the same scenes: what the first is compared with.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from privnb.config import preset
from privnb.figures import guide_batch
from privnb.loading import open_scenes, step_batches
from privnb.pose import PoseEstimator, RunningAverage, fine_tune
from privnb.system import PrivacySystem

PICTURES, ENHANCED = 20, 6  # a step, and how many of them each of two strengths enhances


def some(batch, first, last):
    "The pictures first to last - 1 of a batch as boxes and index."
    chosen = (batch.index >= first) & (batch.index < last)
    return batch.boxes[chosen], batch.index[chosen] - first


def enhanced(system, batch, strengths):
    "The batch, its first pictures enhanced at one random strength, the next ones at another."
    parts = []
    with torch.no_grad():
        for first in (0, ENHANCED):
            last = first + ENHANCED
            view = system.sampled(strengths)
            parts.append(view.enhance_batch(batch.images[first:last], *some(batch, first, last))[0])
    return batch.with_images(torch.cat([*parts, batch.images[2 * ENHANCED:]]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a system's folder, or the name of one that ships")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plain", nargs=2, metavar=("WEIGHTS", "KIND:RADIUS"),
                        help="train these weights instead, on this plain guidance")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--people", type=int, nargs=2, default=(0, 10))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(preset("sliders", seed=args.seed), people=tuple(args.people))
    system = PrivacySystem.load(args.run)
    estimator, strengths = system.pose, torch.Generator().manual_seed(args.seed)
    if args.plain:
        kind, _, radius = args.plain[1].partition(":")
        fixed = system.at(kind, float(radius))
        estimator = PoseEstimator.from_file(args.plain[0])
    estimator.precision = torch.bfloat16 if config.pose_bf16 else torch.float32
    average = RunningAverage(estimator)
    stream, began = step_batches(config, open_scenes(config, "train"), size=PICTURES), time.time()
    shown = ((guide_batch(fixed, batch) if args.plain else enhanced(system, batch, strengths))
             for batch in stream)
    fine_tune(estimator, shown, args.steps, lr=args.lr, callback=average.update)
    estimator.load_state_dict(average.weights)
    refined = {"steps": args.steps, "lr": args.lr, "seed": args.seed, "people": args.people,
               "seconds": round(time.time() - began)}
    if args.plain:
        estimator.save_weights(args.out, metadata={"part": args.out.stem})
    else:
        notes = {k: system.notes[k] for k in ("train", "steps", "seconds", "refined")}
        system.eval().save(args.out, overwrite=True, notes={**notes, "estimator": refined})
    print(json.dumps(refined))


if __name__ == "__main__":
    main()
