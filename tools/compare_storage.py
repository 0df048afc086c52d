"""PSNR of the recovered pictures after every way of storing the enhanced ones, for several systems.

    python -m privnb.tables --out tables --preset lecture --data scenes --guidance pixelate --radius 12 --seed 0
    python -m privnb.tables --out tables --preset lecture --data scenes --guidance pixelate --radius 12 --seed 0 \\
        --set jpeg=0.5
    python tools/compare_storage.py single=single=256 continuous=continuous=256 lecture=tables/runs/KEY=160 \\
        "lecture, jpeg 0.5=tables/runs/KEY=160" --out nbs/results/storage.json --date 2026-11-21

Each argument is NAME=FOLDER=SIDE; rows of other names that the file holds already stay. The scenes are those of
held-out people on which the shipped systems are judged, rendered at that side. What a picture gives away and what
poses it leaves is measured on the same scenes.
"""

import argparse
import json
import platform
from pathlib import Path

import torch

from privnb.figures import evaluate, render_scenes
from privnb.images import write_file
from privnb.stored import psnr_after_storage
from privnb.system import PrivacySystem

PEOPLE = {160: (2, 6), 256: (1, 3)}  # of the lecture preset and of the card of the weights
SHOWN = ("psnr_op", "ssim_op", "psnr_or", "ssim_or", "ap50_p", "ap50_r")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="+", metavar="NAME=FOLDER=SIDE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--date", required=True)
    parser.add_argument("--count", type=int, default=200, help="scenes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for word in args.systems:
        name, folder, side = word.rsplit("=", 2)
        system = PrivacySystem.load(folder)
        scenes = render_scenes(7, args.count, int(side), PEOPLE.get(int(side), (1, 3)), "test")
        figures = evaluate(system, scenes)
        train = system.notes.get("train", {})
        row = {"system": name, "side": int(side), "scenes": len(scenes), "date": args.date,
               "train": {key: train.get(key) for key in ("preset", "steps", "jpeg", "seed")},
               "psnr_or": psnr_after_storage(system, scenes),
               "figures": {key: figures[key] for key in SHOWN}}
        names = [one["system"] for one in rows]
        place = names.index(name) if name in names else len(rows)
        rows[place:place + 1] = [row]
        print(json.dumps(row), flush=True)
    content = {"date": args.date, "machine": f"{platform.machine()}, one thread", "rows": rows}
    write_file(args.out, json.dumps(content, indent=1) + "\n", overwrite=True)


if __name__ == "__main__":
    main()
