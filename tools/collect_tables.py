"""Keep what a folder of `privnb tables` holds: small files beside the paper's notebook.

    privnb tables --seeds 0 1 2 --out runs/tables
    python tools/collect_tables.py runs/tables --out nbs/papers/results

Records that were kept before stay, where the folder has none of that row and seed.
"""

import argparse
from pathlib import Path

from privnb.plans import TABLES, plan
from privnb.report import collect


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, help="what privnb tables wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="lecture")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--only", nargs="+", default=TABLES, help="some tables")
    args = parser.parse_args()
    planned = plan(args.preset, tuple(args.only))
    for path in collect(args.tables, args.out, planned, args.preset, args.data):
        print(path)


if __name__ == "__main__":
    main()
