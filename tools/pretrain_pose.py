"""Train the pose estimator that privnb ships, on rendered scenes of the seven train people.

    python tools/pretrain_pose.py --out runs/pose --steps 9000

Scenes are rendered once (--scenes), shown at 160, 192 and 224 pixels, mirrored, zoomed, shifted, recoloured, blurred and
made noisy. Every --every steps a checkpoint is written (safetensors) and the two held-out people are
judged; a second call with the same --out goes on where the first stopped.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from privnb.datasets import Sample, collate
from privnb.metrics import pose_ap
from privnb.augment import augment
from privnb.pose import PoseEstimator
from privnb.scenes import make_scene
from privnb.tuning import learning_rate

SIZES = (160, 192, 224)


def render(job):
    seed, indices, size, people, split = job
    return [strip(make_scene(seed, i, size=size, people=people, split=split)) for i in indices]


def strip(scene):
    return Sample(scene.image, scene.keypoints, scene.boxes, scene.areas, scene.identity)


def rendered(seed, count, size, people, split, workers=2):
    "Scenes 0 to count - 1, without their masks, so that thousands fit into memory."
    jobs = [(seed, range(a, min(a + 50, count)), size, people, split) for a in range(0, count, 50)]
    with ProcessPoolExecutor(workers) as pool:
        return [scene for part in pool.map(render, jobs) for scene in part]


def shrink(batch, size):
    "The batch at another size."
    factor = size / batch.images.shape[-1]
    images = F.interpolate(batch.images, (size, size), mode="bilinear", antialias=True)
    points = torch.cat([batch.keypoints[..., :2] * factor, batch.keypoints[..., 2:]], -1)
    return replace(batch, images=images.clamp(0, 1), keypoints=points,
                   boxes=batch.boxes * factor, areas=batch.areas * factor**2)


def judge(estimator, scenes):
    "AP and AR of the held-out people, percent."
    found = [estimator.predict(collate([scene]).images, confidence=0.01)[0] for scene in scenes]
    return pose_ap(found, scenes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/pose"))
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=float, default=0.1875)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    estimator = PoseEstimator.build("yolov8n-pose", width=args.width).train()
    estimator.precision = torch.bfloat16
    names = dict(estimator.named_parameters())
    decayed = [p for p in names.values() if p.ndim > 1]
    plain = [p for p in names.values() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01},
                                   {"params": plain, "weight_decay": 0.0}], lr=args.lr)
    averaged = {k: v.detach().clone() for k, v in estimator.state_dict().items()}
    step, seconds = 0, 0.0
    state = args.out / "checkpoint.safetensors"
    if state.exists():
        tensors = load_file(state)
        part = lambda name: {k[len(name) + 1:]: v for k, v in tensors.items()  # noqa: E731
                             if k.startswith(name + "/")}
        estimator.load_state_dict(part("model"))
        averaged = part("average")
        first, second = part("first"), part("second")
        step = int(tensors["step"])
        seconds = float(tensors["seconds"])
        for name in first:
            optimiser.state[names[name]] = {"step": torch.tensor(float(step)),
                                            "exp_avg": first[name],
                                            "exp_avg_sq": second[name]}
    print("rendering", flush=True)
    train = rendered(1000 + args.seed, args.scenes, 256, (0, 4), "train")
    test = rendered(7, 200, 160, (1, 3), "test")
    started = time.time() - seconds
    while step < args.steps:
        rng = np.random.default_rng((args.seed, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        batch = collate([train[i] for i in rng.integers(0, len(train), args.batch)])
        batch = augment(batch, generator, hsv=(0.03, 0.7, 0.4), scale=0.45, translate=0.15,
                        blur=1, brightness=0.1, noise=0.04)
        batch = shrink(batch, int(rng.choice(SIZES)))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, 200)
        total, terms = estimator.loss(batch.images, batch)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(estimator.parameters(), 10.0)
        optimiser.step()
        step += 1
        keep = min(0.998, step / (step + 10))
        for name, value in estimator.state_dict().items():
            if value.is_floating_point():
                averaged[name].lerp_(value, 1 - keep)
            else:
                averaged[name].copy_(value)
        if step % 50 == 0:
            print(f"{step} loss {total.item():.2f} {time.time() - started:.0f} s", flush=True)
        if step % args.every == 0 or step == args.steps:
            save(args.out, estimator, averaged, optimiser, names, step, time.time() - started, test,
                 args)


def save(out, estimator, averaged, optimiser, names, step, seconds, test, args):
    "Checkpoint, averaged weights and a line of history."
    tensors = {f"model/{k}": v for k, v in estimator.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in averaged.items()}
    for name, p in names.items():
        if p not in optimiser.state:
            continue
        tensors[f"first/{name}"] = optimiser.state[p]["exp_avg"]
        tensors[f"second/{name}"] = optimiser.state[p]["exp_avg_sq"]
    tensors |= {"step": torch.tensor(step), "seconds": torch.tensor(seconds)}
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, out / "checkpoint.part")
    os.replace(out / "checkpoint.part", out / "checkpoint.safetensors")
    smooth = PoseEstimator.build("yolov8n-pose", width=args.width)
    smooth.load_state_dict(averaged)
    smooth.eval()
    figures = judge(smooth, test)
    smooth.save_weights(out / "pose.safetensors", half=True)
    line = {"step": step, "seconds": round(seconds), **figures}
    print(line, flush=True)
    with (out / "history.jsonl").open("a") as file:
        file.write(json.dumps(line, default=float) + "\n")


if __name__ == "__main__":
    main()
