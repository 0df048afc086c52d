"""Collect the figures of finished runs into one JSON file.

    python tools/collect_runs.py runs/lecture_* --out nbs/results/lecture.json
"""

import argparse
import json
import platform
from pathlib import Path


def row(folder: Path) -> dict:
    "One run: command, figures, seconds."
    content = json.loads((folder / "config.json").read_text())
    train, guidance = content["train"], content["system"]["guidance"]
    command = (f"privnb train --preset {train['preset']} --guidance {guidance['kind']} "
               f"--radius {guidance['radius']:g} --seed {train['seed']}")
    return {"command": command, "guidance": guidance["kind"], "radius": guidance["radius"],
            "seed": train["seed"], "steps": content["steps"], "seconds": content["seconds"],
            "threads": content["threads"], "figures": content["figures"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--date", required=True)
    args = parser.parse_args()
    rows = [row(folder) for folder in sorted(args.runs) if (folder / "config.json").is_file()]
    machine = f"{platform.machine()}, shared, one thread a run"
    text = json.dumps({"date": args.date, "machine": machine, "rows": rows}, indent=1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text + "\n")
    print(f"{len(rows)} runs in {args.out}")


if __name__ == "__main__":
    main()
