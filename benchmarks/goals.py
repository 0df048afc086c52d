"""What `make bench` measured, goal by goal.

    python benchmarks/goals.py [--results benchmarks/results]

Where other processes were running (a load above the number of cores), only ratios of processor time mean something. Reads the files of the latest run; every line names the file and the machine's load while it was made.
"""
import argparse
import json
from pathlib import Path


def networks(kept):
    "Edge against U-Net 7, and shares of the peak."
    rows = kept["rows"]
    for name in ("edge", "edge, 8 bits"):
        for kind in ("median", "processor"):
            value = rows[name]["times_as_fast_as_unet7"][kind]
            yield f"{name}, times as fast as U-Net 7, {kind} time", value, 15, True
    for name in ("edge", "edge, 8 bits"):  # against the graph that privnb export writes
        value = rows["U-Net 7, untransposed"]["best_ms"] / rows[name]["best_ms"]
        yield f"{name}, times as fast as U-Net 7 untransposed, best time", value, 15, True
    unets = [name for name in rows if name.startswith("U-Net 7")]  # with OpenVINO's where it is installed
    for name in (*unets, "edge"):
        for kind in ("share_of_peak", "share_by_processor_time"):
            yield f"{name}, {kind.replace('_', ' ')}", rows[name][kind], 0.75, True


def edge(kept):
    "Frames a second of whole frames."
    for name in ("each frame, one size", "every 3rd frame", "8 bits, every 3rd frame"):
        row = kept["variants"][name]
        yield f"{name}, FPS", row["fps_best"], 30, True
        cores = kept["threads"]
        yield f"{name}, {cores} x FPS of a core by processor time", cores * row["fps_of_one_core"], 30, True


def guidance(kept):
    "Against kornia and OpenCV."
    for name, row in kept["their_time_over_ours"].items():
        if name.endswith("earlier"):
            continue
        if "kornia" in name:
            yield f"{name}, times as fast, processor time", row["processor"], 5, True
        else:
            yield f"{name}, share of its processor time", 1 / row["processor"], 1.2, False


def training(kept):
    "Inside the networks."
    by_clock = "profiler" in kept  # files of earlier days have the profiler's share alone
    profiled = kept["profiler"] if by_clock else kept
    if by_clock:
        yield f"{kept['preset']} step, share inside networks by the clock", kept["network_share"], 0.85, True
    yield f"{kept['preset']} step, the same under the profiler", profiled["network_share"], 0.85, True


def startup(kept):
    "Start of the program."
    for name, goal in kept["goals_ms"].items():
        yield f"{name}, ms", kept["ms"][name]["best"], goal, False


def widgets(kept):
    "From a slider's event to the picture."
    for name in ("guidance", "learned"):
        row = kept[name]
        yield f"{name} picture at 512 x 512, ms, p90", row["picture"]["p90"], row["goal_p90"], False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=Path(__file__).parent / "results", type=Path)
    args = parser.parse_args()
    for function in (networks, edge, guidance, training, startup, widgets):
        path = args.results / f"{function.__name__}.json"
        if not path.exists():
            print(f"{path}: not measured yet")
            continue
        kept = json.loads(path.read_text())
        print(f"{path.name}: {kept['date']}, {kept['processor']} {kept.get('vectors', '')}, "
              f"{kept['cores']} cores, "
              f"{kept.get('threads')} threads, load {kept['load']}")
        for name, value, goal, above in function(kept):
            reached = value >= goal if above else value <= goal
            print(f"  {'reached' if reached else 'missed ':8s} {name}: {value:.3g} "
                  f"({'at least' if above else 'at most'} {goal})")


if __name__ == "__main__":
    main()
