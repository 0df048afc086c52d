"""The whole pipeline without torch on a rendered clip: frames per second, and milliseconds by stage.

    python benchmarks/edge.py [--system default] [--frames 60] [--threads 2] [--int8] [--json FILE]

640 x 480 pixels, three people. The files are exported to a temporary folder first; that time does not count. Every
variant is timed in turns within one run, so that their ratios hold on a busy machine too; the load is part of the
answer, and so is the processor time of a frame, over all threads, which a busy machine changes less.

With --int8 the enhancer and the pose network are exported in 8 bits as well; a part that is refused stays in float32.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("detect", "crop", "guide", "enhance", "paste")


def prepare(args, folder):
    "Files and frames, by a process of its own: it needs torch, the timed one does not."
    code = """
import sys
import numpy as np
from privnb.portable import export_part
from privnb.scenes import make_scene
from privnb.system import PrivacySystem
from privnb.export import NotOffered, export_int8
folder, name, *numbers = sys.argv[1:]
frames, height, width, people, int8 = map(int, numbers)
system = PrivacySystem.load(name)
for part in ("enhancer", "pose"):
    export_part(system, part, f"{folder}/float/{part}.onnx", opset=17, side=128, count=4)
    try:
        if int8:
            row = export_int8(system, part, f"{folder}/int8/{part}.onnx", 17, side=128, scenes=40)
            print(part, "in 8 bits costs", {k: round(v, 2) for k, v in row["cost"].items()})
    except NotOffered as error:
        print(error)
        export_part(system, part, f"{folder}/int8/{part}.onnx", opset=17, side=128, count=4)
scenes = [make_scene(40, k, size=(height, width), people=(people, people), split="test")
          for k in range(frames)]
np.savez(f"{folder}/clip.npz", frames=np.stack([s.image for s in scenes]),
         boxes=np.stack([s.boxes for s in scenes]))
"""
    subprocess.run([sys.executable, "-c", code, folder, args.system, str(args.scenes),
                    str(args.height), str(args.width), str(args.people), str(int(args.int8))],
                   check=True)


def timed(call, frames, seconds):
    "Adds the whole time and the stages of one call to `seconds`."
    began, busy = time.perf_counter(), time.process_time()
    result = call(frames)
    seconds.setdefault("whole", []).append(time.perf_counter() - began)
    seconds.setdefault("processor", []).append(time.process_time() - busy)
    for stage in STAGES:
        seconds.setdefault(stage, []).append(result.seconds[stage])
    seconds.setdefault("people", []).append(result.people)


def summary(seconds):
    "Milliseconds: percentiles of the whole frame, medians of the stages; frames per second."
    import numpy as np

    whole = 1e3 * np.array(seconds["whole"])
    figures = {f"p{q}_ms": round(float(np.percentile(whole, q)), 2) for q in (50, 90, 99)}
    stages = {stage: round(1e3 * float(np.median(seconds[stage])), 2) for stage in STAGES}
    busy = round(1e3 * float(np.median(seconds["processor"])), 2)
    return {"fps": round(1e3 / figures["p50_ms"], 1), **figures, "stages_ms": stages,
            "processor_ms": busy,
            "people": round(float(np.mean(seconds["people"])), 2), "frames": len(whole)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="default")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        prepare(args, folder)
        import numpy as np

        from privnb.edge import EdgeSystem
        clip = np.load(Path(folder) / "clip.npz")
        frames, boxes = clip["frames"], clip["boxes"]
        variants = {"two sizes": (192, 288), "one size": (288,), "small": (192,)}
        systems = {f"{name}{kind}": EdgeSystem(Path(folder) / place, args.threads, sizes)
                   for kind, place in [("", "float")] + args.int8 * [(", 8 bits", "int8")]
                   for name, sizes in variants.items()}
        calls = {name: (lambda k, one=one: one.enhance(frames[k])) for name, one in systems.items()}
        calls["boxes given"] = lambda k: systems["one size"].enhance(frames[k], boxes[k])
        seconds, before = {name: {} for name in calls}, os.getloadavg()
        for turn in range(-3, args.frames):
            for name, call in calls.items():
                timed(call, turn % len(frames), seconds[name] if turn >= 0 else {})
        provider = systems["one size"].enhancer.get_providers()[0]
    answer = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
              "load_before": before, "load_after": os.getloadavg(), "threads": args.threads,
              "provider": provider, "size": [args.width, args.height], "system": args.system,
              "torch_loaded": "torch" in sys.modules,
              "variants": {name: summary(part) for name, part in seconds.items()}}
    for name, figures in answer["variants"].items():
        print(f"{name:17s} {figures['fps']:6.1f} FPS  p50 {figures['p50_ms']:6.1f} ms  "
              f"processor {figures['processor_ms']:6.1f} ms  {figures['stages_ms']}")
    print(f"load {before[0]:.1f} to {answer['load_after'][0]:.1f} on {answer['cores']} cores")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
