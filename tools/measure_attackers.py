"""Measure whom a parrot attacker names at several strengths, for the guidance and for the learned system.

    python tools/measure_attackers.py --seeds 0 1 2 --out privnb/assets/attackers.json

The trade-off explorer offers the result as an axis. Finished rows are kept when the tool is started again. Portraits are
128 pixels wide there, and cells of a mosaic multiples of 4: radii 4 and 8, and 12 and 16, give the same mosaic.
"""

import argparse
import json
from pathlib import Path

import torch

from privnb.attacks import guidance_protection, protection_of
from privnb.images import write_file
from privnb.parrot import parrot_attack
from privnb.system import PrivacySystem
from privnb.targets import attack_data, attack_plan

STRENGTHS = {"pixelate": (4, 8, 12, 32), "blur": (2, 4, 8, 16)}
METHODS = {"guidance": guidance_protection, "learned": protection_of}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="continuous", help="a system for every strength")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    system, plan = PrivacySystem.load(args.system), attack_plan("lecture")
    data = {seed: attack_data(plan, seed) for seed in args.seeds}
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    rows = [row for row in rows if len(row["identity"]) == len(args.seeds)]
    done = {(row["method"], row["kind"], row["radius"]) for row in rows}
    for kind, radii in STRENGTHS.items():
        for radius in radii:
            for method, made in METHODS.items():
                if (method, kind, radius) in done:
                    continue
                protection = made(system.at(kind, radius))
                found = [parrot_attack(protection, data[seed], plan, seed) for seed in args.seeds]
                rows.append({"method": method, "kind": kind, "radius": radius,
                             "identity": [round(result.identity, 2) for result in found],
                             "mean": round(sum(r.identity for r in found) / len(found), 2)})
                print(rows[-1], flush=True)
                content = {"measure": "parrot identity, top-1, per cent of held-out people's portraits",
                           "chance": found[0].chance, "plan": "lecture", "seeds": args.seeds,
                           "system": args.system, "rows": rows}
                write_file(args.out, json.dumps(content, indent=1) + "\n", overwrite=True)


if __name__ == "__main__":
    main()
