"""Go on training the estimator of a finished run alone, on crowded scenes; enhancer and recoverer stay as they are.

    python tools/refine_estimator.py runs/sliders_refined --out runs/crowds
    python tools/refine_estimator.py runs/sliders_refined --out runs/crowds --plain runs/sliders pixelate:12 blur:8
    python tools/refine_estimator.py runs/crowds --out runs/denser --people 2 12 --seed 2
    python tools/refine_estimator.py runs/crowds --out runs/denser --people 2 12 --seed 2 --plain runs/crowds pixelate:12 blur:8

It sees enhanced pictures at random strengths of the ranges, and raw ones. With `--plain` it takes the estimators that
tools/compare_pose.py fine-tuned on the plain guidance as many steps further, on as many pictures of the same scenes: what
the system is compared with.
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
from privnb.pose import PoseEstimator
from privnb.system import PrivacySystem
from privnb.tuning import RunningAverage, fine_tune

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


def tuned(estimator, view, config, scenes):
    "Train it in place on what the view makes of the scenes, ending with averaged weights; seconds."
    began = time.time()
    estimator.precision = torch.bfloat16 if config.pose_bf16 else torch.float32
    average = RunningAverage(estimator, config.average)
    stream = map(view, step_batches(config, scenes, size=PICTURES))
    fine_tune(estimator, stream, config.steps, lr=config.lr_pose, callback=average.update)
    estimator.load_state_dict(average.weights)
    return round(time.time() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a system's folder, or the name of one that ships")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plain", nargs="+", metavar="FOLDER KIND:RADIUS", default=(),
                        help="go on with FOLDER/conventional_KIND_RADIUS.safetensors instead")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--people", type=int, nargs=2, default=(0, 10))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(preset("sliders", seed=args.seed), people=tuple(args.people),
                     steps=args.steps, lr_pose=args.lr)
    system, scenes = PrivacySystem.load(args.run), open_scenes(config, "train")
    kept, points = Path(args.plain[0]) if args.plain else None, args.plain[1:]
    for point in points:
        kind, _, radius = point.partition(":")
        name, fixed = f"conventional_{kind}_{float(radius):g}.safetensors", system.at(kind, float(radius))
        estimator = PoseEstimator.from_file(kept / name)
        tuned(estimator, lambda batch, fixed=fixed: guide_batch(fixed, batch), config, scenes)
        args.out.mkdir(parents=True, exist_ok=True)
        estimator.save_weights(args.out / name, metadata={"part": "conventional"})
    if points:
        return
    strengths = torch.Generator().manual_seed(args.seed)
    seconds = tuned(system.pose, lambda batch: enhanced(system, batch, strengths), config, scenes)
    notes = {k: system.notes[k] for k in ("train", "steps", "seconds", "refined")}
    notes["estimator"] = [*system.notes.get("estimator", []),
                          {"steps": args.steps, "lr": args.lr, "seed": args.seed,
                           "people": args.people, "seconds": seconds}]
    system.eval().save(args.out, overwrite=True, notes=notes)
    print(json.dumps(notes["estimator"]))


if __name__ == "__main__":
    main()
