"""The whole pipeline without torch on a rendered clip: frames per second, milliseconds by stage, people missed.

    python benchmarks/edge.py [--system single] [--frames 19] [--rounds 5] [--threads 2] [--json FILE]

640 x 480 pixels, three people who walk. The files are exported first, in 32 bits and in 8 bits where a measurement allows
them; that time does not count. In every round each variant works through the whole clip, in turns, so that their ratios
hold on a busy machine too. FPS is the clip's length over its time; `processor_ms` is processor time a frame over all
threads, which a busy machine changes less. `outside` is the share of people of whom more than half lies outside all
squares, `worked` that of the squares' pixels that the network works on where people are looked for in each frame. Goal:
at least 30 FPS.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("detect", "crop", "guide", "enhance", "paste")
PREPARE = """
import sys
import numpy as np
from privnb.export import NotOffered, export_int8
from privnb.portable import export_part
from privnb.scenes import make_clip
from privnb.system import PrivacySystem
folder, name, frames, height, width, people = sys.argv[1:3] + [int(n) for n in sys.argv[3:]]
system = PrivacySystem.load(name)
for part in ("enhancer", "pose"):
    export_part(system, part, f"{folder}/float/{part}.onnx", opset=17, side=128, count=4)
    try:
        row = export_int8(system, part, f"{folder}/int8/{part}.onnx", 17, side=128, scenes=40)
        print(part, "in 8 bits costs", {k: round(v, 2) for k, v in row["cost"].items()})
    except NotOffered as error:
        print(error)
        export_part(system, part, f"{folder}/int8/{part}.onnx", opset=17, side=128, count=4)
clip = make_clip(50, 1, frames=frames, size=(height, width), people=(people, people), split="test")
np.savez_compressed(f"{folder}/clip.npz", frames=np.stack([s.image for s in clip]))
np.savez_compressed(f"{folder}/masks.npz", *[s.masks for s in clip])
"""
VARIANTS = {  # name: files, sizes, threads of an operation, spin, options of the stream or None
    "each frame, two sizes": ("float", (192, 288), 2, True, None),
    "each frame, one size": ("float", (288,), 2, True, None),
    "each frame, small": ("float", (192,), 2, True, None),
    "each frame, no spinning": ("float", (288,), 2, False, None),
    "each frame, one thread": ("float", (288,), 1, True, None),
    "frames side by side": ("float", (288,), 1, True, {"every": 1}),
    "every 3rd frame": ("float", (288,), 1, True, {"every": 3}),
    "every 5th frame": ("float", (288,), 1, True, {"every": 5}),
    "every 3rd, one worker": ("float", (288,), 1, True, {"every": 3, "workers": 1}),
    "8 bits, each frame": ("int8", (288,), 2, True, None),
    "8 bits, frames side by side": ("int8", (288,), 1, True, {"every": 1}),
    "8 bits, every 3rd frame": ("int8", (288,), 1, True, {"every": 3}),
    "8 bits, every 5th frame": ("int8", (288,), 1, True, {"every": 5}),
    "8 bits, every 3rd, one worker": ("int8", (288,), 1, True, {"every": 3, "workers": 1}),
}


def opened(folder, threads):
    "Name -> function from frames to results."
    from privnb.edge import EdgeSystem
    from privnb.stream import protect_stream

    def variant(files, sizes, inside, spin, stream):
        edge = EdgeSystem(folder / files, min(inside, threads), sizes, spin=spin)
        if stream is None:
            return lambda frames: [edge.enhance(frame) for frame in frames]
        options = {"workers": threads, **stream}
        return lambda frames: list(protect_stream(edge, frames, **options))

    return {name: variant(*parts) for name, parts in VARIANTS.items()}


def summary(rounds, masks):
    "FPS, milliseconds and people missed of one variant."
    import numpy as np

    from privnb.stream import uncovered
    wall, busy = np.array([r[:2] for r in rounds]).T
    results, count = rounds[0][2], len(rounds[0][2])
    shares = np.concatenate([uncovered(m, r.record) for m, r in zip(masks, results)])
    stages = {s: 1e3 * float(np.median([r.seconds[s] for part in rounds for r in part[2]]))
              for s in STAGES}
    return {"fps_best": count / wall.min(), "fps_median": count / float(np.median(wall)),
            "processor_ms": 1e3 * busy.min() / count, "fps_of_one_core": count / busy.min(),
            "stages_ms": stages, "people": float(np.mean([r.people for r in results])),
            "outside": float((shares > 0.5).mean())}


def worked(edge, frames, results):
    "Share of the squares' pixels that the network works on."
    import numpy as np

    from privnb.edge import _parts

    def area(places):
        return np.prod(places[:, 2:] - places[:, :2], 1).sum()

    squares = [np.array(r.record["squares"]).reshape(-1, 4) for r in results]
    parts = [_parts(edge, frame.shape, own, True) for frame, own in zip(frames, squares)]
    return float(sum(map(area, parts)) / sum(map(area, squares)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="single")
    parser.add_argument("--frames", type=int, default=19)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--files", metavar="DIR", help="where files are kept for the next time")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.files or temporary)
        if not (folder / "masks.npz").exists():
            numbers = map(str, (args.frames, args.height, args.width, args.people))
            subprocess.run([sys.executable, "-c", PREPARE, folder, args.system, *numbers], check=True)
        import cv2
        import numpy as np

        from privnb.edge import EdgeSystem
        from privnb.profiling import machine, tidy
        cv2.setNumThreads(1)
        frames, state = list(np.load(folder / "clip.npz")["frames"]), machine(args.threads)
        masks = list(np.load(folder / "masks.npz").values())
        calls = opened(folder, args.threads)
        rounds = {name: [] for name in calls}
        for turn in range(-1, args.rounds):
            for name, call in calls.items():
                began, busy = time.perf_counter(), time.process_time()
                results = call(frames if turn >= 0 else frames[:3])
                spent = time.perf_counter() - began, time.process_time() - busy
                rounds[name] += [(*spent, results)] if turn >= 0 else []
        share = worked(EdgeSystem(folder / "float"), frames, rounds["each frame, one size"][0][2])
    answer = tidy({**state, "load_after": machine()["load"], "size": [args.width, args.height],
                   "people": args.people, "frames": len(frames), "rounds": args.rounds,
                   "worked": share,
                   "system": args.system, "torch_loaded": "torch" in sys.modules, "goal_fps": 30,
                   "variants": {name: summary(part, masks) for name, part in rounds.items()}})
    for name, row in answer["variants"].items():
        print(f"{name:30s} {row['fps_best']:6.1f} FPS (median {row['fps_median']:5.1f})  processor "
              f"{row['processor_ms']:5.1f} ms  people outside {row['outside']:5.1%}  {row['stages_ms']}")
    print(f"of the squares' pixels the network works on {answer['worked']:.0%}")
    print(f"load {state['load']} to {answer['load_after']} on {state['cores']} cores")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
