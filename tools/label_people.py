"""Label the full-body views of the `openpeople` package once: COCO-17 keypoints and layer mattes.

    npm pack @mediapipe/pose          # 0.5.1675469404, Apache-2.0
    python tools/label_people.py mediapipe-pose-0.5.1675469404.tgz --sheet labels.png

The argument is the npm tarball or the `pose_landmark_full.tflite` inside it. It needs `ai-edge-litert`,
`openpeople`, `opencv-python` and Pillow. The labels go to `privnb/assets/people/`: `views.json` holds the
crop of every view in its own photograph and the keypoints in crop pixels; `P*.png` hold three
channels, the alpha of the person, of the upper garment and of the lower garment. No photograph is copied.
"""
import argparse
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import openpeople
from PIL import Image

PEOPLE = (1, 2, 4, 5, 6, 7, 8, 9, 10)          # P003 can be taken for a public figure
COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
TALL = 640                                      # pixels between the top and the bottom of a person
ROOT = Path(__file__).resolve().parent.parent
DATA = Path(openpeople.__file__).parent / "data/curated"
SKIPPED = {"P001/amateur": "hands in the pockets", "P004/amateur": "hands joined before the body",
           "P008/amateur": "thumbs in the pockets", "P009/amateur": "hair over both arms"}
WAIST = {"P009/amateur": -0.27, "P010/amateur": -0.33}   # hem above the hips, in torso lengths, by eye


def landmark_network(path):
    "The BlazePose landmark network as a function of a square RGB uint8 picture."
    from ai_edge_litert.interpreter import Interpreter
    path = Path(path)
    if path.suffix == ".tflite":
        content = path.read_bytes()
    else:
        with tarfile.open(path) as bundle:
            content = bundle.extractfile("package/pose_landmark_full.tflite").read()
    net = Interpreter(model_content=content, num_threads=2)
    net.allocate_tensors()
    source, outputs = net.get_input_details()[0]["index"], net.get_output_details()

    def run(square):
        small = cv2.resize(square, (256, 256), interpolation=cv2.INTER_AREA)
        net.set_tensor(source, small[None].astype(np.float32) / 255)
        net.invoke()
        found = {tuple(o["shape"]): net.get_tensor(o["index"]) for o in outputs}
        points = found[(1, 195)].reshape(39, 5)[:33, :2] / 256 * square.shape[0]
        mask = 1 / (1 + np.exp(-found[(1, 256, 256, 1)][0, :, :, 0].clip(-30, 30)))
        return points, cv2.resize(mask, square.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return run


def views(person):
    "Yield (name, file, facing, box) of the six full-body views; facing is in degrees, 0 frontal."
    folder = DATA / f"P{person:03d}/assets"
    for name in ("studio", "amateur"):
        file = folder / f"{name}_posture.jpg"
        yield name, file, 0, (0, 0, *Image.open(file).size)
    file = folder / "character_sheet.jpg"
    w, h = Image.open(file).size
    for i, (name, facing) in enumerate((("front", 0), ("left", 90), ("back", 180), ("right", 270))):
        left, right = (0.02 + 0.245 * i) * w, (0.25 + 0.245 * i) * w
        yield name, file, facing, (int(left), int(0.485 * h), int(right), int(0.93 * h))


def inside_frame(view):
    "The picture inside the white frame that the sheet draws round each view."
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY).astype(float)
    h, w = grey.shape
    columns, rows = grey[h // 4: 3 * h // 4].mean(0), grey[:, w // 4: 3 * w // 4].mean(1)

    def edge(profile, reverse):
        line = profile[::-1] if reverse else profile
        part = line[: len(line) // 4]
        at = int(np.argmax(part))
        at = at + 7 if part[at] > np.median(part) + 40 else 0
        return len(line) - at if reverse else at
    return edge(columns, False), edge(rows, False), edge(columns, True), edge(rows, True)


def square(picture, centre, side):
    "A square crop, edges repeated outside, and its corner."
    x, y = (np.asarray(centre) - side / 2).round().astype(int)
    p = int(side)
    wide = cv2.copyMakeBorder(picture, p, p, p, p, cv2.BORDER_REPLICATE)
    return wide[y + p: y + 2 * p, x + p: x + 2 * p], (x, y)


def find(network, picture):
    "Keypoints and a soft mask in picture pixels: once on the whole, once on the person."
    h, w = picture.shape[:2]
    centre, side = (w / 2, h / 2), max(h, w)
    for _ in range(3):
        crop, corner = square(picture, centre, side)
        points, soft = network(crop)
        points = points + corner
        body = points[COCO]
        low, high = body.min(0), body.max(0)
        centre, side = (low + high) / 2 - (0, 0.03 * (high - low)[1]), int(1.28 * (high - low).max())
    mask = np.zeros((h, w), np.float32)
    x, y = corner
    a, b, c, d = max(0, x), max(0, y), min(w, x + crop.shape[1]), min(h, y + crop.shape[0])
    mask[b:d, a:c] = soft[b - y:d - y, a - x:c - x]
    return body, mask


def guided(guide, source, radius, eps):
    "Grey guided filter."
    box = lambda z: cv2.boxFilter(z, -1, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)
    mg, ms = box(guide), box(source)
    a = (box(guide * source) - mg * ms) / (box(guide * guide) - mg * mg + eps)
    return box(a) * guide + box(ms - a * mg)


def matte(picture, soft):
    "Alpha in [0, 1] of the person: GrabCut between sure person and sure background, soft at its edge."
    disc = lambda r: cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))
    sure = cv2.erode((soft > 0.6).astype(np.uint8), disc(5))
    likely = (soft > 0.5).astype(np.uint8)
    near = cv2.dilate((soft > 0.3).astype(np.uint8), disc(6))
    label = np.where(sure, cv2.GC_FGD, np.where(likely, cv2.GC_PR_FGD, np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD)))
    label = label.astype(np.uint8)
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, label, None, np.zeros((1, 65)), np.zeros((1, 65)), 6, cv2.GC_INIT_WITH_MASK)
    hard = np.isin(label, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    hard = cv2.morphologyEx(hard, cv2.MORPH_OPEN, disc(1))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(hard)
    hard = np.isin(parts, [i for i in range(1, count) if stats[i, 4] > 0.002 * hard.size]).astype(np.float32)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    alpha = guided(grey, cv2.GaussianBlur(hard, (0, 0), 0.8), 2, 2e-3)
    return np.clip((alpha - 0.25) / 0.6, 0, 1) * (cv2.dilate(hard, disc(1)) > 0)


def hem(lab, alpha, points, offset):
    "For every column the row where the upper garment ends: the strongest horizontal edge near the hips."
    hips, tall = points[11:13].mean(0), points[11:13].mean(0)[1] - points[5:7].mean(0)[1]
    top, low = (int(hips[1] + (offset + d) * tall) for d in (-0.09, 0.1))
    smooth = cv2.GaussianBlur(lab, (0, 0), 2)
    edge = np.abs(np.diff(smooth[top:low + 1], axis=0)) @ np.array([1.0, 1.5, 1.5], np.float32)
    edge = np.minimum(edge, 8) * (alpha[top:low] > 0.5)
    rows = np.arange(low - top)[:, None]
    cost = -edge + 0.02 * np.abs(rows - (low - top) * 0.5)
    best, back = cost[:, 0].copy(), np.zeros(cost.shape, int)
    for i in range(1, cost.shape[1]):
        near = np.stack([np.roll(best, 1) + 0.3, best, np.roll(best, -1) + 0.3])
        near[0, 0] = near[2, -1] = np.inf
        back[:, i] = near.argmin(0) - 1
        best = near.min(0) + cost[:, i]
    path = [int(best.argmin())]
    for i in range(cost.shape[1] - 1, 0, -1):
        path.append(int(np.clip(path[-1] + back[path[-1], i], 0, len(best) - 1)))
    return cv2.blur(np.float32(path[::-1])[None], (15, 1))[0] + top


def garments(picture, alpha, points, facing, offset):
    "Alpha of the upper and of the lower garment: nearest colours among skin, hair and cloth, then place."
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.bilateralFilter(lab, 7, 6, 3) * np.float32([0.5, 1.3, 1.3])
    side = facing in (90, 270)
    near = {90: 1, 270: 0}.get(facing)
    mix = lambda i, j, t: (1 - t) * points[i] + t * points[j]
    neck, hips = points[5:7].mean(0), points[11:13].mean(0)
    tall = hips[1] - neck[1]

    def colours(places, radius, k, brightest=False, shade=(1,)):
        samples = []
        for x, y in places:
            x, y, r = int(x), int(y), max(1, int(radius * tall))
            part = np.s_[max(0, y - r):y + r + 1, max(0, x - r):x + r + 1]
            samples.append(lab[part][alpha[part] > 0.9])
        samples = np.concatenate(samples)
        if brightest:
            samples = samples[samples[:, 0] >= np.median(samples[:, 0])]
        cv2.setRNGSeed(0)
        _, _, centres = cv2.kmeans(samples, k, None, (3, 20, 0.5), 3, cv2.KMEANS_PP_CENTERS)
        if brightest:          # the arm hides the middle: its shadow on the cloth is added by hand
            centres = np.concatenate([centres * (k, 1, 1) for k in shade]).astype(np.float32)
        return centres
    arms = [near] if side else [0, 1]
    line = hem(lab, alpha, points, offset)
    waist = line[int(hips[0])]
    skin = colours([mix(7 + i, 9 + i, t) for i in arms for t in (0.5, 0.7, 0.9)], 0.03, 4)
    crown = points[:5].mean(0) - (0, 0.28 * tall)
    hair = colours([crown], 0.06, 3)
    across = (-0.12, 0.12) if side else (-0.18, 0, 0.18)
    up = colours([(hips[0] * t + neck[0] * (1 - t) + a * tall, neck[1] * (1 - t) + hips[1] * t)
                  for a in across for t in (0.25, 0.5, 0.75)], 0.04, 5, side, (1, 0.8, 0.65))
    down = colours([(x, waist + 0.12 * tall) for x in ([hips[0] - 0.1 * tall, hips[0] + 0.1 * tall] if side else
                   [points[11, 0], points[12, 0]])], 0.05, 4, side)
    distance = lambda centres: np.sqrt(((lab[:, :, None] - centres) ** 2).sum(-1)).min(-1)
    other = np.minimum(distance(skin), distance(hair))
    y, x = np.mgrid[:alpha.shape[0], :alpha.shape[1]]
    chin = points[0, 1] + 0.62 * (neck[1] - points[0, 1])
    above, ankle = y < line[None], points[15:17, 1].min()
    upper = (distance(up) < other) & above & (y > chin)
    lower = (distance(down) < other) & ~above & (y < ankle)
    found = []
    for part, small in ((upper, 0.02), (lower, 0.006)):
        part = cv2.medianBlur(part.astype(np.uint8), 7) * (alpha > 0.05)
        part = cv2.morphologyEx(part, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        count, parts, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8))
        keep = [i for i in range(1, count) if stats[i, 4] > small * (alpha > 0.5).sum()]
        found.append(cv2.GaussianBlur(np.isin(parts, keep).astype(np.float32), (0, 0), 1.0))
    return found


def tile(view, alpha, upper, lower, points, side=480):
    "One picture of the contact sheet: the cut-out on magenta, garments tinted, keypoints."
    ground = np.full(view.shape, (255, 0, 255), float)
    cut = view * alpha[..., None] + ground * (1 - alpha[..., None])
    tinted = cut.copy()
    tinted[..., 2] = tinted[..., 2] * (1 - upper * 0.7)
    tinted[..., 0] = tinted[..., 0] * (1 - lower * 0.7)
    for i, p in enumerate(points):
        cv2.circle(tinted, tuple(int(v) for v in p), 4, (255, 0, 0) if i % 2 else (0, 0, 255), -1)
    pair = cv2.resize(np.hstack([cut, tinted]), None, fx=side / view.shape[0], fy=side / view.shape[0],
                      interpolation=cv2.INTER_AREA).astype(np.uint8)[:, :480]
    return cv2.copyMakeBorder(pair, 0, 0, 0, 480 - pair.shape[1], cv2.BORDER_CONSTANT)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="pose_landmark_full.tflite or the npm tarball that holds it")
    parser.add_argument("--out", type=Path, default=ROOT / "privnb/assets/people")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet (PNG) of all labels here")
    args = parser.parse_args()
    network = landmark_network(args.network)
    args.out.mkdir(parents=True, exist_ok=True)
    tiles, labels = [], {}
    for person in PEOPLE:
        for name, file, facing, box in views(person):
            picture = np.asarray(Image.open(file).convert("RGB").crop(box))
            if facing or name == "front":
                l, t, r, b = inside_frame(picture)
                picture, box = picture[t:b, l:r], (box[0] + l, box[1] + t, box[0] + r, box[1] + b)
            body, soft = find(network, picture)
            if facing in (90, 270):
                facing = 90 if body[0, 0] > body[3:5, 0].mean() else 270
            rows, columns = np.where(soft > 0.5)
            scale = min(1.0, TALL / (rows.max() - rows.min()))
            m = int(12 / scale)
            l, t = max(0, columns.min() - m), max(0, rows.min() - m)
            r, b = min(picture.shape[1], columns.max() + m), min(picture.shape[0], rows.max() + m)
            size = (round((r - l) * scale), round((b - t) * scale))
            view = cv2.resize(picture[t:b, l:r], size, interpolation=cv2.INTER_AREA)
            points = (body - (l, t)) * (size[0] / (r - l), size[1] / (b - t))
            alpha = matte(view, cv2.resize(soft[t:b, l:r], size))
            label = f"P{person:03d}/{name}"
            upper, lower = garments(view, alpha, points, facing, WAIST.get(label, 0.03))
            if label not in SKIPPED:
                layers = np.dstack([alpha, upper, lower])
                layers = (np.round(layers * 15) * 17).astype(np.uint8)
                Image.fromarray(layers).save(args.out / f"{label.replace('/', '_')}.png", optimize=True)
                labels[label] = {"file": file.name, "facing": facing, "size": size,
                                 "box": [int(v) for v in (box[0] + l, box[1] + t, box[0] + r, box[1] + b)],
                                 "keypoints": [[round(float(v), 1) for v in p] for p in points]}
            tiles.append(tile(view, alpha, upper, lower, points))
    (args.out / "views.json").write_text(json.dumps(labels).replace('"P', '\n"P') + "\n")
    if args.sheet:
        Image.fromarray(np.vstack([np.hstack(tiles[i:i + 6]) for i in range(0, len(tiles), 6)])).save(args.sheet)


if __name__ == "__main__":
    main()
