"""Miniatures of the data sets that people have, in their exact formats: COCO, MPII, ultralytics' YAML.

Each writer renders 12 training and 6 test pictures of people who do not exist and returns what `open_data` takes.
"""
import functools
import json
from pathlib import Path

import numpy as np
import yaml
from scipy.io import savemat

from privnb.datasets import SKELETONS, convert_joints, held_out
from privnb.images import save_image
from privnb.scenes import make_scene

COUNTS = {"train": 12, "test": 6}
SHAPES = ((144, 192), (192, 128), (160, 160))


@functools.cache
def scenes(split, seed=40):
    "Rendered scenes of one split, of three shapes; people and backgrounds are those of the split."
    return tuple(make_scene(seed, i, size=SHAPES[i % 3], people=(1, 2), split=split)
                 for i in range(COUNTS[split]))


# COCO

def coco_person(number, image, keypoints, box, area):
    "An entry of `annotations`."
    x0, y0, x1, y1 = map(float, box)
    labels = np.where(keypoints[:, 2:] > 0, keypoints, 0)
    return {"segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]], "id": number, "image_id": image,
            "num_keypoints": int((labels[:, 2] > 0).sum()), "area": float(area), "iscrowd": 0,
            "keypoints": labels.ravel().tolist(), "bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": 1}


def write_coco(folder):
    """`annotations/person_keypoints_{train,val}2017.json` and the folders of pictures.

    Each file also has a crowd (with COCO's run-length segmentation), a person without a labelled joint, and a
    picture without anybody.
    """
    folder = Path(folder)
    for split, name in (("train", "train2017"), ("test", "val2017")):
        images, annotations = [], []
        for i, scene in enumerate(scenes(split)):
            height, width = scene.image.shape[:2]
            number = 1000 * (1 + (split == "test")) + i
            file = f"{number:012d}.jpg"
            save_image(scene.image, folder / name / file, overwrite=True)
            images.append({"license": 1, "file_name": file, "height": height, "width": width, "id": number,
                           "coco_url": f"http://images.cocodataset.org/{name}/{file}"})
            for person in zip(scene.keypoints, scene.boxes, scene.areas):
                annotations.append(coco_person(number * 10 + len(annotations), number, *person))
        bare = {**annotations[0], "id": 1, "num_keypoints": 0, "keypoints": [0] * 51, "bbox": [1, 1, 20, 30]}
        crowd = {**bare, "id": 900100, "iscrowd": 1, "bbox": [0, 0, 40, 40],
                 "segmentation": {"counts": [0, 40], "size": [images[0]["height"], images[0]["width"]]}}
        empty = {**images[0], "id": 7, "file_name": "000000000007.jpg"}
        save_image(np.full((images[0]["height"], images[0]["width"], 3), 90, np.uint8),
                   folder / name / empty["file_name"], overwrite=True)
        person = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(SKELETONS[17].joints),
                  "skeleton": [[i + 1, j + 1] for i, j in SKELETONS[17].bones]}
        content = {"info": {"description": "miniature"}, "licenses": [{"id": 1}], "images": [*images, empty],
                   "annotations": [*annotations, bare, crowd], "categories": [person]}
        path = folder / "annotations" / f"person_keypoints_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return f"coco:{folder}"


# MPII

def mpii_joints(keypoints):
    """MPII's joints (16, 3) of one rendered person, and a head box: guesses from pelvis to crown.

    Neck and crown lie 0.8 diagonals of the head box apart, as in the release.
    """
    ears, shoulders, hips = (keypoints[rows].mean(0) for rows in ([3, 4], [5, 6], [11, 12]))
    joints = convert_joints(keypoints[None], 16)[0]
    joints[6], joints[7] = hips, shoulders
    joints[8, :2], joints[9, :2] = (ears[:2] + k * (ears - shoulders)[:2] for k in (-0.6, 0.75))
    joints[[6, 7, 8, 9], 2] = 2
    reach = np.linalg.norm(joints[9, :2] - joints[8, :2]) / 1.6 * np.array([0.6, 0.8])
    middle = joints[8:10, :2].mean(0)
    return np.where(joints[:, 2:] > 0, joints, 0), np.concatenate([middle - reach, middle + reach])


def structs(rows):
    "A 1 x N struct array; fields that a row lacks are empty, as Matlab leaves them."
    names = list(dict.fromkeys(name for row in rows for name in row))
    made = np.empty((1, len(rows)), [(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            made[0, i][name] = row.get(name, np.zeros((0, 0)))
    return made


def mpii_struct(keypoints, height, style):
    "An element of `annorect`; the release writes `is_visible` as a number here and as a digit there."
    joints, head = mpii_joints(keypoints)
    order = np.random.default_rng(len(joints)).permutation(16)
    points = []
    for i in (i for i in order if joints[i, 2]):
        seen = int(joints[i, 2] == 2)
        point = dict(x=float(joints[i, 0]) + 1, y=float(joints[i, 1]) + 1, id=int(i))
        points.append(point if i in (8, 9) else {**point, "is_visible": str(seen) if style else np.uint8(seen)})
    return dict(zip(("x1", "y1", "x2", "y2"), head + 1), annopoints=structs([dict(point=structs(points))]),
                scale=float(height) / 200, objpos=structs([dict(x=joints[6, 0] + 1.0, y=joints[6, 1] + 1.0)]))


def videos(split, count):
    "Numbers of videos that lie on one side of the share that is held out."
    found, number = [], 0
    while len(found) < count:
        number += 1
        if held_out(f"video {number}") == (split == "test"):
            found.append(number)
    return found


def mpii_rows():
    "Elements of `annolist`, and for each whether its joints are public: two frames a video."
    rows, public = [], []
    for split in ("train", "test"):
        numbers = videos(split, COUNTS[split] // 2)
        for i, scene in enumerate(scenes(split)):
            people = [mpii_struct(k, b[3] - b[1], i % 2) for k, b in zip(scene.keypoints, scene.boxes)]
            rows.append(dict(image=structs([dict(name=f"{split == 'test':d}{i:08d}.jpg")]), annorect=structs(people),
                             frame_sec=i, vididx=numbers[i // 2]))
            public.append(1)
    return rows, public


def mpii_oddities(rows, public):
    "What the release has beside ordinary people, added to the miniature."
    name = {"image": structs([dict(name="099999999.jpg")]), "vididx": rows[0]["vididx"]}
    far = dict(scale=0.4, objpos=structs([dict(x=50.0, y=60.0)]))
    rows[0]["annorect"] = structs([*_elements(rows[0]["annorect"]), far])  # a person without joints
    rows[1]["annorect"] = structs([*_elements(rows[1]["annorect"]),
                                   dict(far, x1=3.0, y1=3.0, x2=9.0, y2=9.0,
                                        annopoints=np.zeros((0, 0)))])  # empty annopoints
    rows += [dict(name, annorect=np.zeros((0, 0))),  # nobody
             dict(name, annorect=structs([{"scale": 1.0}])),  # fields missing for the whole picture
             dict(name, annorect=structs([far]), frame_sec=np.zeros((0, 0)))]  # joints withheld
    return rows, public + [1, 1, 0]


def _elements(array):
    return [{name: array[0, i][name] for name in array.dtype.names} for i in range(array.shape[1])]


def mpii_release(folder, rows, public):
    "The Matlab file: a 1 x 1 struct RELEASE."
    count = len(rows)
    act = np.empty((count, 1), [("cat_name", object), ("act_name", object), ("act_id", object)])
    act[:, 0] = [(np.zeros((0, 0)), np.zeros((0, 0)), -1)] * count
    single, listed = np.empty((count, 1), object), np.empty((1, 99), object)
    single[:, 0], listed[0] = [np.ones((1, 1))] * count, [f"video{i}" for i in range(99)]
    release = dict(annolist=structs(rows), img_train=np.array([public], np.uint8), version="12",
                   single_person=single, act=act, video_list=listed)
    savemat(folder / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": structs([release])})


def mpii_lists(folder, kind):
    "The lists of simple-baselines and HRNet (`annot/`), or of convolutional pose machines."
    lists = {"train": [], "test": []}
    for split in lists:
        for i, scene in enumerate(scenes(split)):
            for k, b in zip(scene.keypoints, scene.boxes):
                joints, _ = mpii_joints(k)
                seen, scale = joints[:, 2] > 0, float(b[3] - b[1]) / 200
                name, centre = f"{split == 'test':d}{i:08d}.jpg", (joints[6, :2] + 1).tolist()
                points = joints[:, :2] + 1
                if kind == "json":
                    points[~seen] = -1
                    lists[split].append(dict(joints_vis=seen.astype(int).tolist(), joints=points.tolist(),
                                             image=name, scale=scale, center=centre))
                    continue
                points[~seen] = 0
                lists[split].append(dict(
                    dataset="MPI", isValidation=float(split == "test"), img_paths=name,
                    img_width=float(scene.image.shape[1]), img_height=float(scene.image.shape[0]), objpos=centre,
                    joint_self=np.column_stack([points, joints[:, 2] == 2]).tolist(), scale_provided=scale,
                    joint_others=[], numOtherPeople=0.0, annolist_index=float(i + 1), people_index=1.0))
    if kind == "json":
        (folder / "annot").mkdir(parents=True, exist_ok=True)
        (folder / "annot" / "train.json").write_text(json.dumps(lists["train"]))
        (folder / "annot" / "valid.json").write_text(json.dumps(lists["test"]))
    else:
        (folder / "mpii_annotations.json").write_text(json.dumps(lists["train"] + lists["test"]))


def write_mpii(folder, kind="mat"):
    "`images/` and the release (kind 'mat'), HRNet's two lists ('json'), or the older single list ('cpm')."
    folder = Path(folder)
    for split in COUNTS:
        for i, scene in enumerate(scenes(split)):
            save_image(scene.image, folder / "images" / f"{split == 'test':d}{i:08d}.jpg", overwrite=True)
    if kind == "mat":
        save_image(np.full((90, 120, 3), 90, np.uint8), folder / "images" / "099999999.jpg", overwrite=True)
        mpii_release(folder, *mpii_oddities(*mpii_rows()))
    else:
        mpii_lists(folder, kind)
    return f"mpii:{folder}"


# ultralytics

def yolo_lines(scene, joints, numbers):
    "Label lines of a scene: class, centre, size, joints, as shares of the picture."
    size = np.array(scene.image.shape[1::-1])
    for points, box in zip(convert_joints(scene.keypoints, joints), scene.boxes):
        middle, extent = (box[:2] + box[2:]) / 2 / size, (box[2:] - box[:2]) / size
        points = np.where(points[:, 2:] > 0, points / [*size, 1], 0)[:, :numbers]
        yield " ".join(["0", *(f"{v:.6f}" for v in [*middle, *extent, *points.ravel()])])


def write_yolo(folder, joints=17, numbers=3):
    "`people.yaml`, `images/{train,val}` and `labels/{train,val}`; the last training picture has no label file."
    folder = Path(folder)
    for split, name in (("train", "train"), ("test", "val")):
        (folder / "labels" / name).mkdir(parents=True, exist_ok=True)
        for i, scene in enumerate(scenes(split)):
            save_image(scene.image, folder / "images" / name / f"{i:03d}.jpg", overwrite=True)
            lines = list(yolo_lines(scene, joints, numbers))
            (folder / "labels" / name / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
    save_image(np.full((120, 160, 3), 90, np.uint8), folder / "images" / "train" / "bare.jpg", overwrite=True)
    content = {"path": str(folder), "train": "images/train", "val": "images/val", "test": None,
               "kpt_shape": [joints, numbers], "flip_idx": list(SKELETONS[joints].flip), "names": {0: "person"}}
    (folder / "people.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return f"yolo:{folder / 'people.yaml'}"
