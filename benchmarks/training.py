"""The share of a joint training step that is network mathematics, and where the rest goes.

    python benchmarks/training.py [--preset lecture] [--steps 4] [--threads 2] [--json FILE]

Network: what runs inside the forward of G_X, G_Y, the pose network and the critics, the backward of exactly these
operations (autograd numbers each one and repeats the number in the backward pass), and nothing else. Reading and
augmenting scenes, guidance, crops, pasting, rounding, all losses with their backward, clipping, optimisers and the
average of weights count as the rest. Goal: 85 % inside the networks.
"""
import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from privnb.config import preset
from privnb.profiling import machine
from privnb.trainer import JointTrainer

MARK = "privnb:"


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


def watched(trainer):
    "The trainer with its networks and its bookkeeping marked."
    from privnb import loading, steps

    system = trainer.system
    networks = {"enhancer": system.enhancer, "recoverer": system.recoverer,
                "pose network": system.pose.network, "critic y": trainer.critics["y"],
                "critic x": trainer.critics["x"]}
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="lecture")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        config = preset(args.preset, scenes=48, conventional=False)
        trainer = JointTrainer(config, folder, progress=False)
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
    answer = {**machine(args.threads), "preset": args.preset, "steps": args.steps,
              "step_ms": round(steps / args.steps / 1e3, 1),
              "network_share": round(inside / steps, 4), "goal": 0.85,
              "ms": {k: round(v / args.steps / 1e3, 2) for k, v in spent.most_common()}}
    for name, value in answer["ms"].items():
        print(f"{name:32s} {value:8.2f} ms  {value / answer['step_ms']:6.1%}")
    print(f"network share {answer['network_share']:.1%} of {answer['step_ms']} ms")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
