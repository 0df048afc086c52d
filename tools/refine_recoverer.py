"""Go on training the recoverer of a finished run alone, the enhancer and the estimator fixed.

    python tools/refine_recoverer.py runs/shipped --out runs/refined --steps 1500

Besides rendered scenes it sees the portraits and selfies of the seven train people (faces, hair, skin), which no
pose label is needed for. A system for every strength is refined over all of them. The loss is the consistency loss
plus 1 - SSIM over 7 x 7 windows, which counts the noise of flat surfaces that an L1 distance hardly sees.
"""

import argparse
import json
import time
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from privnb.images import load_image, to_tensor
from privnb.people import load_people
from privnb.recovery import consistency_loss
from privnb.scenes import make_scene
from privnb.system import PrivacySystem


def structure_loss(a, b, window=7):
    "1 - SSIM with uniform windows, a scalar."
    mean = lambda x: F.avg_pool2d(x, window, 1)  # noqa: E731
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return 1 - ((2 * ma * mb + c1) * (2 * cov + c2)
                / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


def photographs():
    "Portraits and selfies of the train people, 512 pixels wide."
    folder = Path(str(resources.files("openpeople"))) / "data" / "curated"
    found = []
    for person in load_people("train"):
        for name in ("studio_portrait.jpg", "amateur_selfie.jpg"):
            image = load_image(folder / person.name / "assets" / name)
            scale = 640 / image.shape[1]
            found.append(cv2.resize(image, None, fx=scale, fy=scale,
                                    interpolation=cv2.INTER_AREA))
    return found


def crops(pool, rng, count, side):
    "Random squares of random pictures, at random reduction, (count, 3, side, side)."
    chosen = []
    while len(chosen) < count:
        image = pool[rng.integers(len(pool))]
        extent = int(rng.integers(side, max(side + 1, min(image.shape[:2]))))
        top = int(rng.integers(0, image.shape[0] - extent + 1))
        left = int(rng.integers(0, image.shape[1] - extent + 1))
        part = image[top:top + extent, left:left + extent]
        chosen.append(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA))
    return to_tensor(np.stack(chosen))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    system = PrivacySystem.load(args.run, recoverer=True)
    scenes = [make_scene(2000 + args.seed, i, size=384, people=(1, 3)).image for i in range(200)]
    pools = [scenes, photographs()]
    optimiser = torch.optim.Adam(system.recoverer.parameters(), args.lr, betas=(0.9, 0.999))
    rng, began = np.random.default_rng(args.seed), time.time()
    strengths = torch.Generator().manual_seed(args.seed)
    for step in range(args.steps):
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 50) * 0.03 ** (step / args.steps)
        side = int(rng.choice([96, 128, 160, 256]))
        x = crops(pools[step % 2], rng, max(2, 8 * 128**2 // side**2), side)
        if step % 3 == 0:
            x = x * float(rng.uniform(0.25, 1))
        view = system.sampled(strengths)
        with torch.no_grad():
            _, y = view.enhance_portraits(x)
        r = system.recoverer(y, base=y, **view.code(side))
        loss = 100 * consistency_loss(r, x) + 10 * structure_loss(r, x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 100 == 0:
            print(f"{step + 1} loss {loss.item():.3f} {time.time() - began:.0f} s", flush=True)
    notes = {k: system.notes[k] for k in ("train", "steps", "seconds") if k in system.notes}
    notes["refined"] = {"steps": args.steps, "lr": args.lr, "seed": args.seed}
    system.eval().save(args.out, overwrite=True, notes=notes)
    print(json.dumps(notes["refined"]))


if __name__ == "__main__":
    main()
