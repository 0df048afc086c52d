"""Fine-tune the estimators that a finished run is compared with: on the plain guidance, and on raw pictures.

    python tools/compare_pose.py runs/shipped

They get as many steps and pictures as the joint run, and stay in its folder; a second call finds them there.
"""

import argparse
import json
from pathlib import Path

import torch

from privnb.config import TrainConfig
from privnb.trainer import JointTrainer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", choices=("conventional", "control"), help="one of the two")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.from_dict(json.loads((args.run / "train.json").read_text()))
    trainer = JointTrainer(config, args.run)
    for name in (args.only,) if args.only else ("conventional", "control"):
        getattr(trainer, name)()
        print(f"{name}: {args.run / name}.safetensors")


if __name__ == "__main__":
    main()
