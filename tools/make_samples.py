"""Write `data_samples/`: 24 scenes rendered by privnb with COCO keypoint annotations.

    python tools/make_samples.py [--out data_samples]

The people are those of `openpeople` (MIT licence): they do not exist. `photographs.json`, checked by
hand, is not made here and is left alone.
"""
import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from privnb.scenes import make_scene

NAMES = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
         "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
         "right_knee", "left_ankle", "right_ankle"]
SKELETON = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
            [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]
CATEGORY = {"id": 1, "name": "person", "supercategory": "person", "keypoints": NAMES, "skeleton": SKELETON}
SIZES = [(256, 256), (240, 320), (320, 240), (320, 320), (288, 384), (360, 480)]


def annotations(scene, image_id, first):
    "One COCO annotation a person; joints outside the picture are 0, 0, 0."
    height, width = scene.image.shape[:2]
    found = []
    for p in range(len(scene.identity)):
        keys = scene.keypoints[p].astype(float).round(2)
        keys[keys[:, 2] == 0] = 0
        contours, _ = cv2.findContours(scene.masks[p].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        polygons = [c.ravel().tolist() for c in contours if len(c) >= 3 and cv2.contourArea(c) > 8]
        x, y, x2, y2 = (float(v) for v in scene.boxes[p])
        found.append({
            "id": first + p, "image_id": image_id, "category_id": 1, "iscrowd": 0,
            "bbox": [x, y, x2 - x, y2 - y], "area": float(scene.areas[p]), "segmentation": polygons,
            "keypoints": [int(v) if v == int(v) else float(v) for v in keys.ravel()],
            "num_keypoints": int((keys[:, 2] > 0).sum()),
            "attributes": {"person": f"P{scene.identity[p]:03d}", **scene.attributes[p]}})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "data_samples")
    parser.add_argument("--count", type=int, default=24)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    images, people = [], []
    for i in range(args.count):
        split = "train" if i < args.count * 2 // 3 else "test"
        scene = make_scene(2024, i, SIZES[i % len(SIZES)], (1, 4), split)
        name = f"scene_{i:02d}.jpg"
        Image.fromarray(scene.image).save(args.out / name, quality=92)
        images.append({"id": i + 1, "file_name": name, "height": scene.image.shape[0],
                       "width": scene.image.shape[1], "split": split, "license": 1})
        people += annotations(scene, i + 1, len(people) + 1)
    content = {"info": {"description": "Scenes rendered by privnb from openpeople's people, who do not exist"},
               "licenses": [{"id": 1, "name": "MIT (openpeople)", "url": "https://pypi.org/project/openpeople/"}],
               "categories": [CATEGORY], "images": images, "annotations": people}
    (args.out / "annotations.json").write_text(json.dumps(content).replace('{"id"', '\n{"id"') + "\n")


if __name__ == "__main__":
    main()
