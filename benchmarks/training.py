"""The share of a joint training step that is network mathematics, and where the rest goes.

    python benchmarks/training.py [--preset lecture] [--steps 8] [--threads 2] [--json FILE]

Network: the forward of G_X, G_Y, the pose network and the critics, and the backward of exactly these passes, from the
gradient of a pass's output to the gradient at its first layer. Reading and augmenting scenes, guidance, crops, pasting,
rounding, all losses with their backward, clipping, optimisers and the average of weights count as the rest. The share is
taken by a clock, with nothing else in the way. Then torch's profiler names what the rest consists of; it charges every
operation a few microseconds, so that many small ones look longer than they are, and its own share is lower. Goal: 85 %
inside the networks, by the clock.
"""
import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from privnb.config import preset
from privnb.profiling import machine
from privnb.trainer import JointTrainer

MARK = "privnb:"


class Begin(torch.autograd.Function):
    "The tensor itself; its backward calls a function before the gradient goes on."

    @staticmethod
    def forward(ctx, tensor, call):
        ctx.call = call
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        ctx.call()
        return gradient, None


def beginning(output, call):
    "A nested output whose tensors with gradient call the function in their backward."
    if isinstance(output, torch.Tensor):
        return Begin.apply(output, call) if output.requires_grad else output
    if isinstance(output, dict):
        return {k: beginning(v, call) for k, v in output.items()}
    return type(output)(beginning(v, call) for v in output)


class Clock:
    """Seconds inside networks, forward and backward.

    Autograd works from the last operation to the first, so that a pass runs backward in one piece: from the gradient of
    its output (of the last one, where there are several) to that of its first layer with weights.
    """

    def __init__(self):
        self.spent, self.began, self.entered = Counter(), None, False

    def begin(self):
        self.began = time.perf_counter()

    def end(self, name):
        self.spent[f"{name}, backward"] += time.perf_counter() - self.began
        self.began = None

    def watch(self, module, name):
        "Time every pass of the module under this name."
        plain, hooks = module.forward, []

        def first(leaf, inputs, output):
            while len(hooks) > 1 or hooks and hooks[0][0] is not leaf:
                hooks.pop(0 if hooks[0][0] is not leaf else 1)[1].remove()
            if output.requires_grad and not self.entered:
                self.entered = True
                output.grad_fn.register_hook(lambda *_: self.end(name))

        def forward(*args, **kwargs):
            self.entered, began = False, time.perf_counter()
            output = plain(*args, **kwargs)
            self.spent[f"{name}, forward"] += time.perf_counter() - began
            return beginning(output, self.begin)

        hooks += [(leaf, leaf.register_forward_hook(first)) for leaf in module.modules()
                  if not list(leaf.children()) and list(leaf.parameters())]
        module.forward = forward


def marked(module, name):
    "Let the module's forward run under a name in the profile."
    plain = module.forward

    def forward(*args, **kwargs):
        with record_function(MARK + name):
            return plain(*args, **kwargs)

    module.forward = forward


def named(function, name):
    "A function that runs under a name in the profile."
    def wrapped(*args, **kwargs):
        with record_function(MARK + name):
            return function(*args, **kwargs)
    return wrapped


def networks_of(trainer):
    "Name -> network."
    system = trainer.system
    return {"enhancer": system.enhancer, "recoverer": system.recoverer,
            "pose network": system.pose.network, "critic y": trainer.critics["y"],
            "critic x": trainer.critics["x"]}


def watched(trainer):
    "The trainer with its networks and its bookkeeping marked."
    from privnb import loading, steps

    system, networks = trainer.system, networks_of(trainer)
    for name, module in networks.items():
        marked(module, name)
    system.pose.loss = named(system.pose.loss, "pose loss")
    trainer.average.update = named(trainer.average.update, "average weights")
    torch.nn.utils.clip_grad_norm_ = named(torch.nn.utils.clip_grad_norm_, "clip gradients")
    for name in ("crop_list", "consistency_loss", "portrait_mask", "join_batches"):
        setattr(steps, name, named(getattr(steps, name), name))
    loading.augment = named(loading.augment, "augment")
    for optimiser in trainer.optimisers.values():
        optimiser.step = named(optimiser.step, "optimisers")
    return set(networks)


def owner(event):
    "The innermost mark around an event of the forward pass; None in the backward pass."
    while event is not None:
        if event.name.startswith("autograd::"):
            return None
        if event.name.startswith(MARK):
            return event.name.removeprefix(MARK)
        event = event.cpu_parent
    return None


def shares(events):
    "Microseconds by owner, forward and backward, and the whole."
    numbers, spent = {}, Counter()
    for event in sorted(events, key=lambda e: e.time_range.start):
        name = owner(event)
        if name and event.sequence_nr >= 0:
            numbers[event.sequence_nr] = name  # the last with a number made the node
    for event in events:
        if event.name.startswith("autograd::engine::evaluate_function") and (
                event.cpu_parent is None or not event.cpu_parent.name.startswith("autograd")):
            name = numbers.get(event.sequence_nr, "other")
            spent[f"{name}, backward"] += event.cpu_time_total
        elif event.name.startswith(MARK):
            spent[f"{event.name.removeprefix(MARK)}, forward"] += event.cpu_time_total
            above = owner(event.cpu_parent)
            if above:
                spent[f"{above}, forward"] -= event.cpu_time_total
    return spent


def started(args, folder):
    "A trainer of the preset."
    config = preset(args.preset, scenes=48, conventional=False)
    return JointTrainer(config, folder, progress=False)


def by_clock(args, folder):
    "Milliseconds of a step by network and pass, and the share of all of them."
    trainer, clock = started(args, folder), Clock()
    for name, module in networks_of(trainer).items():
        clock.watch(module, name)
    run = trainer.run(args.steps + 3)
    for _ in range(3):
        next(run)
    clock.spent.clear()
    began = time.perf_counter()
    for _ in range(args.steps):
        next(run)
    whole = time.perf_counter() - began
    return {"step_ms": round(1e3 * whole / args.steps, 1),
            "network_share": round(sum(clock.spent.values()) / whole, 4),
            "ms": {k: round(1e3 * v / args.steps, 2) for k, v in clock.spent.most_common()}}


def by_profiler(args, folder):
    "The same by torch's profiler, which names the parts of the rest as well."
    trainer = started(args, folder)
    networks = watched(trainer)
    run = trainer.run(args.steps + 3)
    for _ in range(3):
        next(run)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(args.steps):
            with record_function(MARK + "rest of the step"):
                next(run)
    spent = shares(recorded.events())
    steps = sum(e.cpu_time_total for e in recorded.events() if e.name == MARK + "rest of the step")
    backward = sum(v for k, v in spent.items() if k.endswith("backward"))
    spent["rest of the step, forward"] -= backward
    inside = sum(v for k, v in spent.items() if k.split(",")[0] in networks)
    return {"step_ms": round(steps / args.steps / 1e3, 1), "network_share": round(inside / steps, 4),
            "ms": {k: round(v / args.steps / 1e3, 2) for k, v in spent.most_common()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="lecture")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    state = machine(args.threads)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        answer = {**state, "preset": args.preset, "steps": args.steps, "goal": 0.85,
                  **by_clock(args, one), "profiler": by_profiler(args, other)}
    for kind, part in (("clock", answer), ("profiler", answer["profiler"])):
        for name, value in part["ms"].items():
            print(f"{kind:8s} {name:32s} {value:8.2f} ms  {value / part['step_ms']:6.1%}")
        print(f"{kind:8s} network share {part['network_share']:.1%} of {part['step_ms']} ms")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
