"""How long `import privnb` and `privnb --help` take, on a warm disk.

    python benchmarks/startup.py [--rounds 15] [--json FILE]

Each round starts fresh processes in turns: an empty one, one that imports privnb and says how long that took, and
`privnb --help`. The best of the rounds counts. Goals: 50 ms and 400 ms.
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from privnb.profiling import machine, tidy

TIMED = "import time; t = time.perf_counter(); import privnb; print(time.perf_counter() - t)"


def seconds(*command):
    "Wall time of a process."
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    state, rows = machine(), {"empty process": [], "import privnb": [], "privnb --help": []}
    for _ in range(args.rounds):
        rows["empty process"].append(seconds(sys.executable, "-c", "pass"))
        told = subprocess.run([sys.executable, "-c", TIMED], capture_output=True, text=True, check=True)
        rows["import privnb"].append(float(told.stdout))
        rows["privnb --help"].append(seconds(sys.executable, "-m", "privnb.cli", "--help"))
    answer = tidy({**state, "load_after": machine()["load"], "rounds": args.rounds,
                   "ms": {k: {"best": 1e3 * min(v), "median": 1e3 * sorted(v)[len(v) // 2]}
                          for k, v in rows.items()},
                   "goals_ms": {"import privnb": 50, "privnb --help": 400}})
    for name, row in answer["ms"].items():
        print(f"{name:16s} best {row['best']:7.1f} ms, median {row['median']:7.1f} ms")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
