"""The edge enhancer against pix2pix's U-Net 7, and both against the machine's convolution peak, 256 x 256 pixels.

    python benchmarks/networks.py [--system single] [--threads 2] [--rounds 25] [--json FILE]

onnxruntime, and OpenVINO where it is installed; all take turns in one run. Peak: the faster of two convolutions of 3 x 3 taps
from 256 to 256 channels, on 32 x 32 and on 64 x 64 cells. A share is operations a second over that peak's, by the wall
clock (best round) and by processor time, which other processes of a busy machine disturb less. Goals: the edge
enhancer at least 15 times as fast as U-Net 7; U-Net 7 at least at 75 % of the peak.
"""
import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from privnb.backends import _in_onnxruntime, _in_openvino, macs
from privnb.export import calibration, to_int8
from privnb.folding import untransposed
from privnb.generators import build_generator
from privnb.portable import part_inputs, part_module, sample_portraits, to_onnx
from privnb.profiling import interleaved, machine, ratio, tidy
from privnb.system import PrivacySystem

SIDE = 256


def legacy(module, inputs):
    "The module as ONNX, by the tracer that takes a network of 42 million weights in seconds."
    import io

    import onnx
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (*inputs.values(),), buffer, dynamo=False, opset_version=17,
                          input_names=list(inputs))
    return onnx.load_from_string(buffer.getvalue())


def peaks():
    "The two convolutions as (model, inputs, MAC)."
    for cells in (32, 64):
        conv, inputs = nn.Conv2d(256, 256, 3, padding=1).eval(), {"x": torch.rand(1, 256, cells, cells)}
        yield f"peak {cells}", legacy(conv, inputs), inputs, 256 * 256 * 9 * cells * cells


def candidates(system):
    "Name, model, inputs, MAC of everything that is timed."
    yield from peaks()
    net, picture = build_generator("unet7").eval(), {"x": torch.rand(1, 3, SIDE, SIDE)}
    work = macs(net, picture)
    yield "U-Net 7", legacy(net, picture), picture, work
    yield "U-Net 7, untransposed", legacy(untransposed(net), picture), picture, work
    module, inputs, outputs = part_module(system, "enhancer", SIDE)
    one = {k: v[:1] if v.ndim == 4 else v for k, v in
           part_inputs(system, "enhancer", sample_portraits(system, 1, SIDE)).items()}
    work, free = macs(module, one), to_onnx(module, inputs, outputs, 17)
    yield "edge", free, one, work
    three = {k: v.repeat(3, 1, 1, 1) if v.ndim == 4 else v for k, v in one.items()}
    yield "edge, batch of 3", free, three, 3 * work
    yield "edge, one size", to_onnx(module, one, outputs, 17, False), one, work
    yield "edge, 8 bits", to_int8(free, calibration(system, "enhancer")), one, work


def opened(system, threads):
    "Name -> call, and name -> MAC."
    calls, work = {}, {}
    for name, model, inputs, count in candidates(system):
        calls[name] = _in_onnxruntime(model, inputs, threads).call
        work[name] = count
        try:
            calls[f"{name}, OpenVINO"] = _in_openvino(model, inputs, threads).call
            work[f"{name}, OpenVINO"] = count
        except ValueError:
            continue
    return calls, work


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="single")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    calls, work = opened(PrivacySystem.load(args.system), args.threads)
    state = machine(args.threads)
    times = interleaved(calls, args.rounds)
    rate = {name: 2 * work[name] / values.min(0) / 1e9 for name, values in times.items()}
    top = np.max([rate[name] for name in ("peak 32", "peak 64")], axis=0)
    rows = {name: {"best_ms": 1e3 * values[:, 0].min(), "median_ms": 1e3 * np.median(values[:, 0]),
                   "processor_ms": 1e3 * values[:, 1].min(), "gmac": work[name] / 1e9,
                   "gflops": rate[name][0], "share_of_peak": rate[name][0] / top[0],
                   "share_by_processor_time": rate[name][1] / top[1],
                   "times_as_fast_as_unet7": ratio(times, "U-Net 7", name)}
            for name, values in times.items()}
    answer = tidy({**state, "load_after": machine()["load"], "rounds": args.rounds, "rows": rows,
                   "goals": {"times_as_fast_as_unet7": 15, "unet7_share_of_peak": 0.75}})
    for name, row in answer["rows"].items():
        print(f"{name:32s} best {row['best_ms']:7.2f} ms  processor {row['processor_ms']:7.2f} ms  share "
              f"{row['share_of_peak']:6.1%} ({row['share_by_processor_time']:6.1%})  "
              f"{row['times_as_fast_as_unet7']} x U-Net 7")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
