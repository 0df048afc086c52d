"""Put a finished run for one strength into the package: half-precision weights, figures after that rounding, and a card.

    python tools/ship_weights.py runs/refined --hours 1.2 --machine "2 shared cores, no GPU"

The system is loaded back from the files that ship; held-out scenes are judged at 256 pixels, and the photographs of
real people that ultralytics and scikit-image carry are enhanced with their annotated boxes, written as PNG, read
back and recovered.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from privnb.datasets import CocoKeypoints
from privnb.figures import evaluate, render_scenes
from privnb.images import load_image, read_metadata, save_image, to_tensor
from privnb.metrics import psnr, ssim
from privnb.portraits import portrait_mask
from privnb.pose import PoseEstimator
from privnb.system import PrivacySystem
from privnb.weights import shipped

COMMANDS = """python tools/pretrain_pose.py --out runs/pose --steps 4200
privnb train --preset shipped --guidance pixelate --radius 12 --seed 0 --steps {steps} --out runs/shipped
python tools/refine_recoverer.py runs/shipped --out runs/refined --steps {refined}
python tools/compare_pose.py runs/shipped --only conventional
python tools/ship_weights.py runs/refined --comparisons runs/shipped"""


def compared(folder):
    "The estimators for comparison that a folder holds, by name."
    parts = {n: folder and folder / f"{n}.safetensors" for n in ("conventional", "control")}
    return {n: PoseEstimator.from_file(p) for n, p in parts.items() if p and p.is_file()}


def photograph(system, sample, folder):
    "PSNR and SSIM of guidance, enhanced and recovered against the original, from files."
    protected = system.enhance(sample.image, sample.boxes)
    path = save_image(protected.image, folder / "p.png", True, protected.record)
    recovered = system.recover(load_image(path), read_metadata(path))
    back = load_image(save_image(recovered, folder / "r.png", True))
    squares = torch.tensor(protected.record["squares"], dtype=torch.float32).reshape(-1, 4)
    mask = portrait_mask(squares, torch.zeros(len(squares), dtype=torch.int64), 1,
                         *sample.image.shape[:2])
    original = to_tensor(sample.image)
    pictures = {"a": protected.guided, "p": load_image(path), "r": back}
    figures = {}
    for name, picture in pictures.items():
        figures[f"psnr_o{name}"] = round(float(psnr(original, to_tensor(picture), mask)), 2)
        figures[f"ssim_o{name}"] = round(float(ssim(original, to_tensor(picture), mask)), 4)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--comparisons", type=Path, help="folder with the estimators that "
                        "tools/compare_pose.py fine-tuned")
    parser.add_argument("--hours", default="not recorded", help="of all training together")
    parser.add_argument("--machine", default="not recorded")
    parser.add_argument("--date", default="not recorded")
    parser.add_argument("--remark", default="", help="what else must be known")
    args = parser.parse_args()
    trained = PrivacySystem.load(args.run)
    kept = {key: trained.notes[key] for key in ("train", "steps", "seconds", "refined")
            if key in trained.notes}
    trained.save(shipped("single"), half=True, overwrite=True, notes=kept, compact=True)
    system = PrivacySystem.load("single")
    pretrained = PoseEstimator.from_file(shipped("pose.safetensors"))
    scenes = render_scenes(7, 200, 256, (1, 3), "test")
    figures = evaluate(system, scenes, pretrained, **compared(args.comparisons))
    real = {}
    photographs = CocoKeypoints(Path(__file__).parents[1] / "data_samples" / "photographs.json")
    with tempfile.TemporaryDirectory() as folder:
        for i in range(len(photographs)):
            sample = photographs[i]
            real[sample.name] = photograph(system, sample, Path(folder))
    notes = {**kept, "figures": figures, "photographs": real}
    trained.save(shipped("single"), half=True, overwrite=True, notes=notes, compact=True)
    write_card(args, kept, figures, real)
    print(json.dumps({"figures": figures, "photographs": real}, indent=1))


def write_card(args, kept, figures, real):
    "CARD.md beside the weights."
    rows = "\n".join(f"| `{key}` | {value:.2f} |" for key, value in figures.items())
    head = ("psnr_oa", "ssim_oa", "psnr_op", "ssim_op", "psnr_or", "ssim_or")
    lines = "\n".join(f"| {name} | " + " | ".join(str(row[key]) for key in head) + " |"
                      for name, row in real.items())
    text = f"""# The system for one strength

Made by, in this order:

```sh
{COMMANDS.format(refined=kept["refined"]["steps"], steps=kept["steps"])}
```

Data as in [the card of the package](../CARD.md). Seed {kept['train']['seed']}. Date {args.date}. Machine: {args.machine}. Training time, hours: {args.hours}. {args.remark}
The estimator is stored in one byte a weight, the generators in half precision; the figures below were measured with what is stored.

Held-out people, 200 scenes of 256 x 256 pixels, 8 bits, inside the enhanced squares:

| key | value |
|---|---|
{rows}

Photographs of real people (read from the packages that carry them), annotated boxes, saved as PNG and read back:

| photograph | {' | '.join(head)} |
|---|{'---|' * len(head)}
{lines}

Licence: AGPL-3.0-or-later, as the code.
"""
    (shipped("single") / "CARD.md").write_text(text)


if __name__ == "__main__":
    main()
