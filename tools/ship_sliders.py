"""Put a finished run for every strength into the package: small weights, figures after that rounding, and a card.

    privnb train --preset sliders --seed 0 --out runs/sliders
    python tools/refine_recoverer.py runs/sliders --out runs/sliders_refined --steps 1500
    python tools/compare_pose.py runs/sliders --only conventional --at pixelate:12 blur:8
    python tools/refine_estimator.py runs/sliders_refined --out runs/crowds
    python tools/refine_estimator.py runs/sliders_refined --out runs/crowds --plain runs/sliders pixelate:12 blur:8
    privnb train --preset shipped --guidance pixelate --radius 12 --seed 0 --out runs/shipped
    python tools/refine_recoverer.py runs/shipped --out runs/refined --steps 1500
    python tools/ship_sliders.py runs/crowds --single runs/refined

The estimator is stored in one byte a weight, the generators in half precision. The system is loaded back from the files
that ship and judged on held-out scenes at strengths along both ranges, and at pixelation 12 on the photographs of real
people that ultralytics and scikit-image carry. A system of one strength that took as many joint steps stands beside it.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from ship_weights import photograph

from privnb.datasets import CocoKeypoints
from privnb.figures import evaluate, render_scenes
from privnb.pose import PoseEstimator
from privnb.system import PrivacySystem
from privnb.weights import shipped

POINTS = {"pixelate": (4, 8, 12, 16, 32), "blur": (2, 4, 8, 16)}
SHOWN = ("psnr_oa", "psnr_op", "ssim_op", "psnr_or", "ssim_or", "ap50_o_pre",
         "ap50_p_conventional", "ap50_p", "ap50_r")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--hours", default="not recorded", help="of all training together")
    parser.add_argument("--machine", default="not recorded")
    parser.add_argument("--date", default="not recorded")
    parser.add_argument("--single", type=Path, help="a run for one strength of as many joint steps")
    parser.add_argument("--remark", default="", help="what else must be known")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trained = PrivacySystem.load(args.run)
    notes = {key: trained.notes[key] for key in ("train", "steps", "seconds", "refined", "estimator")}
    trained.save(shipped("continuous"), half=True, overwrite=True, notes=notes, compact=True)
    system = PrivacySystem.load("continuous")
    scenes = render_scenes(7, 200, 256, (1, 3), "test")
    points = [(kind, radius) for kind, radii in POINTS.items() for radius in radii
              if system.config.ranges[kind][0] <= radius <= system.config.ranges[kind][1]]
    pretrained = PoseEstimator.from_file(shipped("pose.safetensors"))
    rows = []
    if args.single:
        single = PrivacySystem.load(args.single)
        own = (single.config.guidance.kind, single.config.guidance.radius)
        rows += [("one strength", *own, evaluate(single, scenes, pretrained))]
    rows += [("continuous", *point, evaluate(system.at(*point), scenes, pretrained,
                                             conventional=compared(args.run, *point)))
             for point in points]
    notes["figures"] = [{"system": name, "guidance": kind, "radius": radius,
                         **{key: figures[key] for key in SHOWN if key in figures}}
                        for name, kind, radius, figures in rows]
    notes["photographs"] = photographs(system.at("pixelate", 12))
    trained.save(shipped("continuous"), half=True, overwrite=True, notes=notes, compact=True)
    write_card(args, notes)
    print(json.dumps(notes["figures"], indent=1))


def photographs(system):
    "Name -> PSNR and SSIM of guidance, enhanced and recovered against the original, from files."
    found = CocoKeypoints(Path(__file__).parents[1] / "data_samples" / "photographs.json")
    with tempfile.TemporaryDirectory() as folder:
        return {found[i].name: photograph(system, found[i], Path(folder))
                for i in range(len(found))}


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
    head = ("psnr_oa", "ssim_oa", "psnr_op", "ssim_op", "psnr_or", "ssim_or")
    real = "\n".join(f"| {name} | " + " | ".join(str(row[key]) for key in head) + " |"
                     for name, row in notes["photographs"].items())
    further = "; ".join("{steps} on scenes of {people[0]} to {people[1]} people, seed {seed}".format(**stage)
                        for stage in notes["estimator"])
    commands = "\n".join(line[4:] for line in __doc__.splitlines() if line.startswith("    "))
    text = f"""# The system for every strength

Made by, in this order:

```sh
{commands}
```

Data as in [the card of the package](../CARD.md). {notes['steps']} joint steps, seed {notes['train']['seed']}; then steps of the estimator alone,
enhancer and recoverer untouched: {further}. Date {args.date}.
Machine: {args.machine}. Training time, hours: {args.hours}. {args.remark}
The estimator is stored in one byte a weight, the generators in half precision; the figures were measured with what is
stored. Held-out people, 200 scenes of 256 x 256 pixels, 8 bits, inside the enhanced squares; first a system of one
strength that took as many joint steps, and none on crowds.

| system | strength | {' | '.join(names)} |
|---|---|{'---|' * len(names)}
{lines}

`ap50_p_conventional`: an estimator fine-tuned on the plain guidance of that strength alone, for as many steps and
pictures, those of the crowds included. Scenes with more people stand in [notebook 11](../../../../nbs/11_trainer.ipynb).

Photographs of real people (read from the packages that carry them), annotated boxes, pixelation 12, saved as PNG and read back:

| photograph | {' | '.join(head)} |
|---|{'---|' * len(head)}
{real}

Licence: AGPL-3.0-or-later, as the code.
"""
    (shipped("continuous") / "CARD.md").write_text(text)


if __name__ == "__main__":
    main()
