"""Fine-tune the estimators that a finished run is compared with: on the plain guidance, and on raw pictures.

    python tools/compare_pose.py runs/shipped
    python tools/compare_pose.py runs/sliders --only conventional --at pixelate:12 blur:8

They get as many steps and pictures as the joint run, and stay in its folder; a second call finds them there. A run for
every strength is compared with one estimator a strength, each fine-tuned on that guidance alone: `--at`.
"""

import argparse
import json
from pathlib import Path

import torch

from privnb.config import TrainConfig
from privnb.figures import guide_batch
from privnb.trainer import JointTrainer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", choices=("conventional", "control"), help="one of the two")
    parser.add_argument("--at", nargs="+", metavar="KIND:RADIUS", default=(),
                        help="fine-tune on these guidances, conventional_KIND_RADIUS.safetensors each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.from_dict(json.loads((args.run / "train.json").read_text()))
    trainer = JointTrainer(config, args.run)
    for point in args.at:
        kind, _, radius = point.partition(":")
        view = trainer.system.at(kind, float(radius))
        name = f"conventional_{kind}_{float(radius):g}"
        trainer._tuned(name, lambda batch, view=view: guide_batch(view, batch))
        print(f"{name}: {args.run / name}.safetensors", flush=True)
    if args.at:
        return
    for name in (args.only,) if args.only else ("conventional", "control"):
        getattr(trainer, name)()
        print(f"{name}: {args.run / name}.safetensors")


if __name__ == "__main__":
    main()
