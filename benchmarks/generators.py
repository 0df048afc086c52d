"""Time of every generator as a ratio to U-Net 7, all measured in one run and in turns.

    python benchmarks/generators.py [--size 256] [--threads 2] [--rounds 15] [--json FILE]

One picture, forward; torch, and onnxruntime where `onnx` and `onnxruntime` are installed. These are our columns beside
Table 4 of the paper, whose figures are for another board; the JSON file holds both, each under its name.
"""
import argparse
import io
import json
import warnings
from pathlib import Path

import torch

from privnb.generators import GENERATORS, build_generator, count_macs, count_parameters
from privnb.jetson import PAPER_FPS
from privnb.profiling import interleaved, machine, ratio, tidy

NAMES = [name for name in GENERATORS if name == 'edge' or name in PAPER_FPS]


def onnx_session(net, x, threads):
    "An onnxruntime call for `net`, or None where a package is missing."
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(net, (x,), buffer, dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        buffer.getvalue(), options, providers=['CPUExecutionProvider'])
    feed = {session.get_inputs()[0].name: x.numpy()}
    difference = abs(session.run(None, feed)[0] - net(x).numpy()).max()
    assert difference < 1e-3, f'onnxruntime differs from torch by {difference}'
    return lambda: session.run(None, feed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', metavar='FILE')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    x, nets, calls, state = torch.rand(1, 3, args.size, args.size), {}, {}, machine(args.threads)
    for name in NAMES:
        net = nets[name] = build_generator(name).eval()
        calls[f'{name}, torch'] = lambda net=net: net(x)
        if session := onnx_session(net, x, args.threads):
            calls[f'{name}, onnxruntime'] = session
    times, rows = interleaved(calls, args.rounds), {}
    for name, net in nets.items():
        row = {'parameters': count_parameters(net), 'gmac': count_macs(net, args.size) / 1e9}
        for kind in ('torch', 'onnxruntime'):
            if (key := f'{name}, {kind}') in times:
                best, busy = 1e3 * times[key].min(0)
                row[kind] = {'best_ms': best, 'processor_ms': busy, 'fps': 1e3 / best,
                             'times_as_fast_as_unet7': ratio(times, f'unet7, {kind}', key)}
        if name in PAPER_FPS:
            row['paper_fps_jetson_agx_orin'] = dict(zip(('blur', 'pixelate'), PAPER_FPS[name]))
        rows[name] = row
    answer = tidy({**state, 'load_after': machine()['load'], 'size': args.size,
                   'rounds': args.rounds, 'rows': rows})
    for name, row in answer['rows'].items():
        print(f"{name:8s} {row['parameters'] / 1e3:8.0f} k {row['gmac']:6.2f} GMAC", *(
            f"{kind} {row[kind]['best_ms']:.1f} ms, {row[kind]['fps']:.1f} FPS, "
            f"{row[kind]['times_as_fast_as_unet7']['best']:.2f} x" for kind in
            ('torch', 'onnxruntime') if kind in row), sep='  ')
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + '\n')


if __name__ == '__main__':
    main()
