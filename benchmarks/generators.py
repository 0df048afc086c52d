"""Time of every generator as a ratio to U-Net 7, all measured in one run and in turns.

    python benchmarks/generators.py [--size 256] [--threads 2] [--rounds 15]

One picture, forward; torch, and onnxruntime where `onnx` and `onnxruntime` are installed.
"""
import argparse
import io
import time
import warnings

import torch

from privnb.generators import GENERATORS, build_generator, count_macs, count_parameters


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
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    x, nets, calls = torch.rand(1, 3, args.size, args.size), {}, {}
    for name in GENERATORS:
        net = nets[name] = build_generator(name).eval()
        calls[name, 'torch'] = lambda net=net: net(x)
        if session := onnx_session(net, x, args.threads):
            calls[name, 'onnxruntime'] = session
    best = dict.fromkeys(calls, float('inf'))
    for _ in range(args.rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            best[key] = min(best[key], time.perf_counter() - start)
    print(f'{"":10s} {"k parameters":>12s} {"GMAC":>7s}  ms (times as fast as U-Net 7)')
    for name, net in nets.items():
        row = '   '.join(f'{kind} {1e3 * best[name, kind]:7.1f} '
                         f'({best["unet7", kind] / best[name, kind]:5.2f} x)'
                         for n, kind in calls if n == name)
        print(f'{name:10s} {count_parameters(net) / 1e3:12.0f} '
              f'{count_macs(net, args.size) / 1e9:7.2f}  {row}')


if __name__ == '__main__':
    main()
