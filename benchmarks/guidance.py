"""Blur and pixelation against kornia, with gradient, and against OpenCV on 8-bit frames.

    python benchmarks/guidance.py [--threads 2] [--rounds 9] [--json FILE]

With gradient: 16 x 3 x 256 x 256, forward and backward. kornia's blur is `gaussian_blur2d` with the same taps. kornia has no
pixelation; two ways to build one from it are timed: its box blur sampled at every cell's end and repeated, and its `resize`
down by area and up by nearest neighbour, which calls torch's pooling as ours does. On frames: 1280 x 720 pixels, against
`cv2.GaussianBlur` with the same taps, and `cv2.resize` down by area and up by nearest neighbour. `earlier` is what ours
replaced: whole matrix products, and torch's pooling. Goals: 5 times as fast as kornia; at most 1.2 times OpenCV's time.
"""
import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from privnb.guidance import (Guidance, blur_matrix, gaussian_blur, gaussian_taps, guide_frame,
                             pixelate)
from privnb.profiling import interleaved, machine, ratio, tidy

SIGMAS, BLOCKS = (2, 4, 8, 12), (4, 8, 12, 16)


def with_gradient(function, x, weights):
    "A call that goes forward and back."
    def call():
        probe = x.detach().requires_grad_()
        function(probe).backward(weights)
        return probe.grad
    return call


def box_mosaic(x, block):
    "Block means of kornia's box blur."
    import kornia

    spare = -x.shape[-1] % block
    whole = torch.nn.functional.pad(x, (0, spare, 0, spare), mode="replicate")
    means = kornia.filters.box_blur(whole, (block, block))[..., block // 2::block, block // 2::block]
    return means.repeat_interleave(block, 2).repeat_interleave(block, 3)[..., :256, :256]


def resized(x, block):
    "A mosaic by kornia's resize."
    from kornia.geometry.transform import resize

    small = resize(x, (-(-256 // block),) * 2, interpolation="area")
    return resize(small, (256, 256), interpolation="nearest")


def gradients():
    "Name -> call, in threes or pairs that belong together."
    import kornia

    x, weights = torch.rand(16, 3, 256, 256), torch.rand(16, 3, 256, 256)
    calls = {}
    for s in SIGMAS:
        size = (len(gaussian_taps(s)),) * 2
        pair = {"ours": lambda z, s=s: gaussian_blur(z, s),
                "kornia": lambda z, s=s, size=size: kornia.filters.gaussian_blur2d(z, size, (s, s)),
                "earlier": lambda z, s=s: blur_matrix(256, s) @ (z @ blur_matrix(256, s).T)}
        calls |= {f"blur {s}, {k}": with_gradient(f, x, weights) for k, f in pair.items()}
    for b in BLOCKS:
        three = {"ours": lambda z, b=b: pixelate(z, b), "kornia box": lambda z, b=b: box_mosaic(z, b),
                 "kornia resize": lambda z, b=b: resized(z, b)}
        calls |= {f"pixelate {b}, {k}": with_gradient(f, x, weights) for k, f in three.items()}
    return calls


def pooled(frame, block):
    "A mosaic of a frame by torch's pooling."
    x = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    cells = pixelate(x, block).round_().to(torch.uint8)
    return cells[0].permute(1, 2, 0).contiguous().numpy()


def frames():
    "Name -> call on a frame of 1280 x 720."
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    calls = {}
    for s in SIGMAS:
        size = (len(gaussian_taps(s)),) * 2
        calls[f"frame blur {s}, ours"] = lambda s=s: guide_frame(frame, Guidance("blur", s))
        calls[f"frame blur {s}, OpenCV"] = lambda s=s, size=size: cv2.GaussianBlur(
            frame, size, s, borderType=cv2.BORDER_REFLECT_101)
    for b in BLOCKS:
        calls[f"frame pixelate {b}, ours"] = lambda b=b: guide_frame(frame, Guidance("pixelate", b))
        calls[f"frame pixelate {b}, earlier"] = lambda b=b: pooled(frame, b)
        calls[f"frame pixelate {b}, OpenCV"] = lambda b=b: cv2.resize(
            cv2.resize(frame, (-(-1280 // b), -(-720 // b)), interpolation=cv2.INTER_AREA),
            (1280, 720), interpolation=cv2.INTER_NEAREST)
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    state = machine(args.threads)
    times = interleaved(gradients(), args.rounds) | interleaved(frames(), 3 * args.rounds)
    rows = {name: {"best_ms": 1e3 * v[:, 0].min(), "processor_ms": 1e3 * v[:, 1].min()}
            for name, v in times.items()}
    against = {name: ratio(times, name, f"{name.split(',')[0]}, ours") for name in times
               if not name.endswith("ours")}
    answer = tidy({**state, "load_after": machine()["load"], "rounds": args.rounds, "rows": rows,
                   "their_time_over_ours": against, "goals": {"kornia": 5, "OpenCV": 1 / 1.2}})
    for name, row in answer["their_time_over_ours"].items():
        ours = answer["rows"][f"{name.split(',')[0]}, ours"]
        print(f"{name:32s} {answer['rows'][name]['best_ms']:8.2f} ms, ours {ours['best_ms']:7.2f} ms: {row}")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
