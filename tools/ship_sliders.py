"""Put a finished continuous run into the package: small weights, figures after that rounding, and a card.

    privnb train --preset sliders --seed 0 --out runs/sliders
    python tools/refine_recoverer.py runs/sliders --out runs/sliders_refined --steps 1500
    python tools/compare_pose.py runs/sliders --only conventional --at pixelate:12 blur:8
    python tools/ship_sliders.py runs/sliders_refined --comparisons runs/sliders

The estimator is stored in one byte a weight, the generators in half precision. The system is loaded back from the files
that ship and judged on held-out scenes at strengths along both ranges; the default system stands beside it at its own.
"""

import argparse
import json
from pathlib import Path

import torch

from privnb.figures import evaluate, render_scenes
from privnb.pose import PoseEstimator
from privnb.system import PrivacySystem, shipped

POINTS = {"pixelate": (4, 8, 12, 16, 24, 32), "blur": (2, 4, 8, 12, 16)}
SHOWN = ("psnr_oa", "psnr_op", "ssim_op", "psnr_or", "ssim_or", "ap50_o_pre",
         "ap50_p_conventional", "ap50_p", "ap50_r")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--hours", default="not recorded", help="of all training together")
    parser.add_argument("--machine", default="not recorded")
    parser.add_argument("--date", default="not recorded")
    parser.add_argument("--comparisons", type=Path,
                        help="run with conventional_KIND_RADIUS.safetensors, see compare_pose.py")
    parser.add_argument("--remark", default="", help="what else must be known")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trained = PrivacySystem.load(args.run)
    notes = {key: trained.notes[key] for key in ("train", "steps", "seconds", "refined")}
    trained.save(shipped("continuous"), half=True, overwrite=True, notes=notes, compact=True)
    system, single = PrivacySystem.load("continuous"), PrivacySystem.load("default")
    scenes = render_scenes(7, 200, 256, (1, 3), "test")
    own = single.config.guidance
    points = [(kind, radius) for kind, radii in POINTS.items() for radius in radii
              if system.config.ranges[kind][0] <= radius <= system.config.ranges[kind][1]]
    pretrained = PoseEstimator.from_file(shipped("pose.safetensors"))
    rows = [("default", own.kind, own.radius, evaluate(single, scenes, pretrained))]
    rows += [("continuous", *point, evaluate(system.at(*point), scenes, pretrained,
                                             conventional=compared(args.comparisons, *point)))
             for point in points]
    notes["figures"] = [{"system": name, "guidance": kind, "radius": radius,
                         **{key: figures[key] for key in SHOWN if key in figures}}
                        for name, kind, radius, figures in rows]
    trained.save(shipped("continuous"), half=True, overwrite=True, notes=notes, compact=True)
    write_card(args, notes)
    print(json.dumps(notes["figures"], indent=1))


def compared(run, kind, radius):
    "The estimator fine-tuned on that guidance alone, or None."
    path = run and run / f"conventional_{kind}_{radius:g}.safetensors"
    return PoseEstimator.from_file(path) if path and path.exists() else None


def write_card(args, notes):
    "CARD.md beside the weights."
    names = [name for name in SHOWN if any(name in row for row in notes["figures"])]
    lines = "\n".join(f"| {row['system']} | {row['guidance']} {row['radius']:g} | "
                      + " | ".join(f"{row[name]:.2f}" if name in row else "" for name in names) + " |"
                      for row in notes["figures"])
    commands = "\n".join(line[4:] for line in __doc__.splitlines() if line.startswith("    "))
    text = f"""# The system for every strength

Made by, in this order:

```sh
{commands}
```

Data as in [the other card](../CARD.md). Steps of the last run {notes['steps']}, seed {notes['train']['seed']}. Date {args.date}.
Machine: {args.machine}. Training time, hours: {args.hours}. {args.remark}
The estimator is stored in one byte a weight, the generators in half precision; the figures were measured with what is
stored. Held-out people, 200 scenes of 256 x 256 pixels, 8 bits, inside the enhanced squares; first the default system.

| system | strength | {' | '.join(names)} |
|---|---|{'---|' * len(names)}
{lines}

Licence: AGPL-3.0-or-later, as the code.
"""
    (shipped("continuous") / "CARD.md").write_text(text)


if __name__ == "__main__":
    main()
