"""The edge generator and pix2pix's U-Net 7 at its published width, trained for the same processor time.

    python tools/compare_hours.py --out runs/hours --json nbs/results/hours.json

One lecture run with the edge generator; then U-Net 7 (ngf 64) with as many steps as fit into the processor time of that run,
once with the preset's learning rate and once with pix2pix's. A few steps are timed first to know how many fit, since the
decay of the rates needs their number. Everything else is equal: scenes, order, seed, pretrained estimator, weights of the
loss. Finished runs are found in the folder again. Figures are those of 200 scenes of held-out people, after 8 bits.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from privnb.config import preset
from privnb.figures import evaluate
from privnb.generators import count_parameters
from privnb.images import write_file
from privnb.loading import open_scenes
from privnb.system import PrivacySystem
from privnb.trainer import JointTrainer

KEPT = ("psnr_oa", "psnr_op", "ssim_op", "psnr_or", "ssim_or", "ap50_o_pre", "ap50_p", "ap50_r")


def trained(config, folder):
    "The finished run's trainer-independent facts: steps, wall and processor seconds."
    path = folder / "facts.json"
    if not path.exists():
        began, trainer = time.process_time(), JointTrainer(config, folder)
        trainer.scenes  # rendering is no training
        spent = time.process_time() - began
        trainer.train()
        if trainer.step < trainer.steps:
            raise SystemExit("interrupted; start again to go on")
        busy = time.process_time() - began - spent
        trainer.system.eval().pose.load_state_dict(trainer.average.weights)
        trainer.system.save(folder, overwrite=True, notes={"train": config.to_dict()})
        facts = {"steps": trainer.step, "seconds": round(trainer.seconds),
                 "processor_seconds": round(busy)}
        write_file(path, json.dumps(facts))
    return json.loads(path.read_text())


def seconds_a_step(config, count=3):
    "Processor time of a step, after two that are not counted."
    with tempfile.TemporaryDirectory() as folder:
        run = JointTrainer(replace(config, scenes=40), folder, progress=False).run(count + 2)
        for _ in range(2):
            next(run)
        began = time.process_time()
        for _ in range(count):
            next(run)
    return (time.process_time() - began) / count


def row(name, config, folder, scenes):
    "What is kept of a run."
    facts = trained(config, folder)
    system = PrivacySystem.load(folder)
    reference = JointTrainer(config, folder, progress=False).reference
    figures = evaluate(system, scenes, reference)
    return {"name": name, "generator": config.system.generator, "lr": config.lr,
            "parameters": count_parameters(system.enhancer), **facts,
            "figures": {key: round(figures[key], 4) for key in KEPT}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--guidance", default="pixelate")
    parser.add_argument("--radius", type=float, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = preset("lecture", args.guidance, args.radius, seed=args.seed, conventional=False)
    scenes = open_scenes(base, "test")[0]
    rows = [row("edge", base, args.out / "edge", scenes)]
    unet = replace(base, system=replace(base.system, generator="unet7"))
    step = seconds_a_step(unet)
    steps = max(1, round(rows[0]["processor_seconds"] / step))
    for lr in (base.lr, 2e-4):
        config = replace(unet, steps=steps, lr=lr)
        rows.append(row(f"U-Net 7, rate {lr:g}", config, args.out / f"unet7_{lr:g}", scenes))
        write_file(args.json, json.dumps({
            "command": "python tools/compare_hours.py --out runs/hours --json nbs/results/hours.json",
            "guidance": args.guidance, "radius": args.radius, "seed": args.seed,
            "processor_seconds_a_step_of_unet7": round(step, 2), "scenes": len(scenes),
            "machine": f"{platform.machine()}, one thread", "date": str(date.today()),
            "rows": rows}, indent=1) + "\n", overwrite=True)
    print(args.json.read_text())


if __name__ == "__main__":
    main()
