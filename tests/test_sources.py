"Data sets in their exact formats, written as miniatures; what is odd in them, and what is wrong."
import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import (COUNTS, _elements, mpii_joints, mpii_release, mpii_rows, scenes, structs, write_coco,
                        write_mpii, write_yolo)

from privnb.augment import augment
from privnb.batches import SKELETONS, Sample, Skeleton, batches, collate, convert_joints, skeleton_of
from privnb.check import check_data, picture_size
from privnb.datasets import CocoKeypoints, Folder, held_out
from privnb.images import ImageError, load_image, save_image
from privnb.metrics import head_size, pose_ap
from privnb.mpii import MPII, find_mpii, person_box, read_mpii
from privnb.pose import PoseEstimator, Prediction
from privnb.sources import Fitted, fit_sample, open_data, recognise
from privnb.yolo import YoloPose, label_file

few = settings(max_examples=40, deadline=None)
KINDS = ("mat", "json", "cpm")


@pytest.fixture(scope="session")
def minis(tmp_path_factory):
    "One miniature of each format, never changed: name -> what `open_data` takes."
    root = tmp_path_factory.mktemp("sets")
    return {"coco": write_coco(root / "coco"), "yolo": write_yolo(root / "yolo"),
            "yolo16": write_yolo(root / "yolo16", 16, 2),
            **{kind: write_mpii(root / kind, kind) for kind in KINDS}}


def everyone(data):
    "All labelled people of a data set by picture: shared joints (P, 12, 2) and boxes, in the order of the labels."
    return [(convert_joints(s.keypoints, 16)[:, [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]], s.boxes)
            for s in (data[i] for i in range(len(data)))]


# skeletons

@pytest.mark.parametrize("count", SKELETONS)
def test_a_mirror_swaps_names_bones_and_sigmas(count):
    skeleton = SKELETONS[count]
    assert [skeleton.flip[i] for i in skeleton.flip] == list(range(count)) == list(range(len(skeleton)))
    bones = {frozenset(bone) for bone in skeleton.bones}
    assert {frozenset(skeleton.flip[i] for i in bone) for bone in bones} == bones
    assert [skeleton.sigmas[i] for i in skeleton.flip] == list(skeleton.sigmas)
    assert len(set(skeleton.joints)) == count


def test_an_own_skeleton_can_be_registered(monkeypatch):
    with pytest.raises(ValueError, match=r"keypoints: 3 joints a person; allowed are \[16, 17\]"):
        skeleton_of(3)
    monkeypatch.setitem(SKELETONS, 3, Skeleton("three", ("left_eye", "right_eye", "tail"), (1, 0, 2), ((0, 1),),
                                               (0.1,) * 3, "ears or trunk"))
    scene = Sample(np.zeros((8, 8, 3), np.uint8), np.float32([[[1, 1, 2], [6, 1, 2], [4, 7, 2]]]),
                   np.float32([[0, 0, 8, 8]]), np.float32([9]), np.array([-1]))
    flipped = augment(collate([scene]), torch.Generator(), hsv=(0, 0, 0), flip=1.1)
    assert flipped.keypoints[0, :, 0].tolist() == [2, 7, 4]
    assert convert_joints(scene.keypoints, 17)[0, 1].tolist() == [1, 1, 2]


@few
@given(st.integers(0, 10**6))
def test_shared_joints_survive_the_way_there_and_back(seed):
    mpii = np.random.default_rng(seed).normal(size=(2, 16, 3)).astype(np.float32)
    back = convert_joints(convert_joints(mpii, 17), 16)
    limbs = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert np.array_equal(back[:, limbs], mpii[:, limbs]) and not back[:, 6:10].any()


def test_conventions_do_not_mix_in_a_batch():
    coco = scenes("train")[0]
    mpii = copy.copy(coco)
    mpii.keypoints = convert_joints(coco.keypoints, 16)
    with pytest.raises(ValueError, match=r"people of \[16, 17\] joints"):
        collate([coco, mpii])


def test_sixteen_joints_reach_the_estimator(minis):
    batch = next(batches(Fitted(open_data(minis["mat"]), 96), 4))
    assert batch.keypoints.shape[1:] == (16, 3)
    estimator = PoseEstimator.build(keypoints=16, width=0.125)
    total, _ = estimator.train().loss(batch.images, augment(batch, torch.Generator().manual_seed(0)))
    assert total.isfinite() and total > 0
    found = estimator.predict(batch.images, confidence=0.0, limit=3)
    assert found[0].keypoints.shape == (3, 16, 3) and pose_ap(found, batch)["ap50"] >= 0


# fitting

@few
@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(1, 120), seed=st.integers(0, 99))
def test_labels_move_with_the_picture(width, height, size, seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.uniform(-20, 110, (2, 4, 2)), axis=0)
    boxes = np.concatenate([low, high], 1).astype(np.float32)
    points = np.concatenate([rng.uniform(-20, 110, (4, 16, 2)), rng.integers(0, 3, (4, 16, 1))], -1)
    sample = Sample(np.zeros((height, width, 3), np.uint8), points.astype(np.float32), boxes,
                    rng.uniform(1, 99, 4), np.arange(4), "name", boxes * 0.5,
                    np.column_stack([boxes, np.ones(4), [1, 0, 1, 0]]))
    fitted = fit_sample(sample, size)
    bounds = np.maximum([round(side * (size / max(width, height))) for side in (width, height)], 1)
    factor = bounds / [width, height]
    assert fitted.image.shape == (size, size, 3) and fitted.image.dtype == np.uint8
    assert (fitted.image[bounds[1]:] == 114).all() and (fitted.image[:, bounds[0]:] == 114).all()
    assert not fitted.image[:bounds[1], :bounds[0]].any()
    kept = fitted.identity
    assert np.allclose(fitted.keypoints[..., :2], points[kept, :, :2] * factor, atol=1e-3)
    inside = ((fitted.keypoints[..., :2] >= 0) & (fitted.keypoints[..., :2] < bounds)).all(-1)
    assert (fitted.keypoints[..., 2] == points[kept, :, 2] * inside).all()
    assert (fitted.boxes >= 0).all() and (fitted.boxes <= np.tile(bounds, 2) + 1e-3).all()
    assert (fitted.boxes[:, 2:] - fitted.boxes[:, :2] >= 1 - 1e-5).all() and fitted.heads.shape == (len(kept), 4)
    assert (fitted.areas <= sample.areas[kept] * np.prod(factor) + 1e-3).all()
    assert len(fitted.ignored) == len(kept) and set(fitted.ignored[:, 5]) <= {0, 1} and fitted.name == "name"
    clipped = (boxes * np.tile(factor, 2)).clip(0, np.tile(bounds, 2))
    assert list(kept) == list(np.flatnonzero(((clipped[:, 2:] - clipped[:, :2]) >= 1).all(1)))


def test_a_square_of_the_right_size_is_left_alone():
    scene = scenes("train")[2]
    sample = Sample(scene.image, scene.keypoints, scene.boxes, scene.areas, scene.identity)
    fitted = fit_sample(sample, 160)
    assert np.array_equal(fitted.image, scene.image) and np.allclose(fitted.boxes, scene.boxes)
    assert np.allclose(fitted.areas, scene.areas) and fitted.heads is None and fitted.ignored is None
    with pytest.raises(ValueError, match="size: 0; allowed is 1 or more"):
        fit_sample(sample, 0)


# all formats

@pytest.mark.parametrize("name", ["coco", "yolo", "yolo16", *KINDS])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_was_painted_is_read(minis, name, split):
    data = open_data(minis[name], split)
    sixteen = name in ("yolo16", *KINDS)
    bare = name.startswith("yolo") and split == "train"
    assert len(data) == COUNTS[split] + bare and data.split == split and data.name
    assert data.skeleton is SKELETONS[16 if sixteen else 17]
    painted = scenes(split)
    by_name = {Path(data[i].name).stem[-3:]: data[i] for i in range(len(data))}
    for i, scene in enumerate(painted):
        sample = by_name[f"{i:03d}"]
        truth = convert_joints(scene.keypoints, 16) if sixteen else scene.keypoints
        joints = slice(None) if not sixteen else [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
        seen = truth[:, joints, 2] > 0
        assert sample.image.shape == scene.image.shape and len(sample.boxes) == len(scene.boxes)
        assert ((sample.keypoints[:, joints, 2] > 0) == seen).all()
        assert np.allclose(sample.keypoints[:, joints, :2][seen], truth[:, joints, :2][seen], atol=0.01)
        assert len(data.entries(list(by_name).index(f"{i:03d}"))) == len(scene.boxes)
    if bare:
        assert len(by_name["are"].boxes) == 0


@pytest.mark.parametrize("name", ["coco", "yolo16", "mat"])
def test_data_sets_travel_to_workers(minis, name):
    data = Fitted(pickle.loads(pickle.dumps(open_data(minis[name]))), 64)
    loader = torch.utils.data.DataLoader(data, 5, collate_fn=collate, num_workers=1)
    for one, two in zip(loader, torch.utils.data.DataLoader(data, 5, collate_fn=collate)):
        assert torch.equal(one.images, two.images) and torch.equal(one.keypoints, two.keypoints)
    assert (data.skeleton, data.split) == (data.data.skeleton, "train") and len(data) == len(data.data)


def test_other_splits_are_refused(minis):
    with pytest.raises(ValueError, match="split: 'val'; allowed are 'train', 'test'"):
        open_data(minis["coco"], "val")


# COCO

def coco_content(minis, split="train"):
    path = Path(minis["coco"][5:]) / "annotations" / f"person_keypoints_{split}2017.json"
    return json.loads(path.read_text())


def test_crowds_and_people_without_joints_are_regions(minis):
    data = open_data(minis["coco"])
    content = coco_content(minis)
    first = data[0]
    assert first.ignored.tolist() == [[1, 1, 21, 31, content["annotations"][-2]["area"], 0],
                                      [0, 0, 40, 40, content["annotations"][-1]["area"], 1]]
    assert all(len(data[i].ignored) == 0 for i in range(1, len(data)))
    assert np.allclose(first.areas, scenes("train")[0].areas)
    whole = CocoKeypoints(Path(minis["coco"][5:]) / "annotations/person_keypoints_train2017.json",
                          Path(minis["coco"][5:]) / "train2017")
    assert len(whole) == len(data) + 1 and len(whole[len(data)].boxes) == 0


def test_only_people_count(minis, tmp_path):
    content = coco_content(minis)
    content["categories"] += [{"id": 18, "name": "dog"}]
    content["annotations"][0]["category_id"] = 18
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = CocoKeypoints(tmp_path / "a.json", Path(minis["coco"][5:]) / "train2017")
    assert len(data[0].boxes) == len(scenes("train")[0].boxes) - 1


def test_coco_below_images_and_one_file_for_both_splits(minis, tmp_path):
    root = Path(minis["coco"][5:])
    (tmp_path / "images").mkdir()
    for name in ("annotations", "images/train2017"):
        (tmp_path / name).symlink_to(root / Path(name).name)
    assert np.array_equal(open_data(tmp_path)[3].image, open_data(root)[3].image)
    single = tmp_path / "single"
    single.mkdir()
    (single / "people.json").write_text(json.dumps(coco_content(minis)))
    shares = {}
    for split in COUNTS:
        data = open_data(single / "people.json", split, [])
        shares[split] = set(data.files)
        assert all(held_out(name) == (split == "test") for name in data.files)
    assert not shares["train"] & shares["test"] and len(shares["train"] | shares["test"]) == COUNTS["train"]


def test_what_is_missing_says_what_to_fetch(minis, tmp_path):
    for spec, words in ((f"coco:{tmp_path}", ("person_keypoints_train2017.json", "annotations_trainval2017.zip",
                                              "zips/train2017.zip", f"into {tmp_path}")),
                        (f"mpii:{tmp_path}", ("mpii_human_pose_v1.tar.gz", "mpii_human_pose_v1_u12_2.zip"))):
        with pytest.raises(ImageError) as caught:
            open_data(spec)
        assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    (tmp_path / "annotations").symlink_to(Path(minis["coco"][5:]) / "annotations")
    with pytest.raises(ImageError, match="train2017/000000001000.jpg: no such file"):
        open_data(tmp_path)[0]


# MPII

def test_the_three_files_agree(minis):
    for split in COUNTS:
        people = {kind: everyone(open_data(minis[kind], split)) for kind in KINDS}
        for (a, box_a), (b, box_b), (c, box_c) in zip(*people.values()):
            assert np.allclose(a[..., :2], b[..., :2], atol=1e-3) and np.allclose(a, c, atol=1e-3)
            assert ((a > 0) == (b > 0))[..., 2].all() and np.allclose(box_b, box_c, atol=1e-2)
            assert (np.abs(box_a - box_b) < 12).all()


def test_head_sizes_agree_with_and_without_head_boxes(minis):
    mat, lists = open_data(minis["mat"]), open_data(minis["json"])
    for i in range(len(mat)):
        a, b = mat[i], lists[i]
        sizes = head_size(torch.from_numpy(a.keypoints), torch.from_numpy(a.heads))
        assert a.heads.shape == (len(a.boxes), 4) and np.isnan(b.heads).all()
        assert torch.allclose(sizes, head_size(torch.from_numpy(b.keypoints)), rtol=1e-3)
        fitted = fit_sample(a, 320)
        grown = head_size(torch.from_numpy(fitted.keypoints), torch.from_numpy(fitted.heads))
        assert torch.allclose(grown, sizes * 320 / max(a.image.shape[:2]), rtol=0.02)


def test_hidden_joints_and_computed_ones(minis):
    data = open_data(minis["mat"])
    for scene, i in zip(scenes("train"), range(len(data))):
        truth = np.stack([mpii_joints(k)[0] for k in scene.keypoints])
        assert np.array_equal(data[i].keypoints[..., 2], truth[..., 2])


def test_oddities_of_the_release_are_no_people(minis):
    data = open_data(minis["mat"])
    assert "099999999.jpg" not in data.files
    assert [len(data[i].ignored) for i in range(4)] == [1, 1, 0, 0]
    assert np.allclose(data[0].ignored[0, :4], [9, 19, 89, 99])


def test_videos_are_not_torn_apart(minis):
    rows = read_mpii(Path(minis["mat"][5:]) / "mpii_human_pose_v1_u12_1.mat")
    sides = {split: set(open_data(minis["mat"], split).files) for split in COUNTS}
    videos = {split: {key for name, key, _ in rows if name in files} for split, files in sides.items()}
    assert not videos["train"] & videos["test"] and len(videos["train"]) == COUNTS["train"] // 2


@few
@given(st.integers(0, 10**6))
def test_boxes_hold_the_joints_inside_the_picture(seed):
    rng = np.random.default_rng(seed)
    joints = np.concatenate([rng.uniform(-50, 250, (16, 2)), rng.integers(0, 3, (16, 1))], 1)
    joints[0, 2] = 2
    from privnb.mpii import Marked

    person = Marked("", joints, size=rng.choice([np.nan, 80.0]))
    box = person_box(person, 200, 180)
    assert (box >= 0).all() and (box <= [180, 200, 180, 200]).all() and (box[2:] >= box[:2]).all()
    inside = joints[(joints[:, 2] > 0) & ((joints[:, :2] >= 0) & (joints[:, :2] <= [180, 200])).all(1), :2]
    assert (inside >= box[:2] - 1e-3).all() and (inside <= box[2:] + 1e-3).all()


@pytest.mark.parametrize("where, value, message", [
    ("id", 16, "point(2) needs an id from 0 to 15"), ("id", np.zeros((0, 0)), "point(2) needs an id from 0 to 15"),
    ("id", 1.5, "point(2) needs an id from 0 to 15"), ("x", "left", "point(2) needs numbers x and y"),
    ("y", np.zeros((0, 0)), "point(2) needs numbers x and y"), ("x", np.nan, "point(2) needs numbers x and y")])
def test_wrong_joints_of_the_release_are_named(tmp_path, where, value, message):
    rows, public = mpii_rows()
    rows[3]["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 1][where] = value
    mpii_release(tmp_path, rows, public)
    with pytest.raises(ImageError) as caught:
        open_data(tmp_path)
    assert str(caught.value).endswith(f"_1.mat: annolist(4).annorect(1).annopoints.{message}")
    problems = []
    assert len(MPII(tmp_path, problems=problems)) == COUNTS["train"] and len(problems) == 1


def test_pictures_of_the_release_need_names(tmp_path):
    rows, public = mpii_rows()
    rows[2]["image"] = np.zeros((0, 0))
    rows[5]["image"] = structs([dict(name=np.zeros((0, 0)))])
    mpii_release(tmp_path, rows, public)
    problems = []
    MPII(tmp_path, problems=problems)
    assert [p.split(": ")[1] for p in problems] == [f"annolist({n}) needs image.name" for n in (3, 6)]


def test_files_that_are_no_release(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "mpii_human_pose_v1_u12_1.mat"
    for content in (b"", b"MATLAB 7.3 MAT-file" + b" " * 500, b"\x00" * 200, b"text"):
        path.write_bytes(content)
        with pytest.raises(ImageError, match="_1.mat: not MPII's release"):
            open_data(tmp_path)
    for content in ({"a": 1}, {"RELEASE": 3}, {"RELEASE": structs([dict(annolist=1)])}):
        savemat(path, content)
        with pytest.raises(ImageError, match="_1.mat: not MPII's release"):
            open_data(tmp_path)


WRONG_JSON = [
    (lambda e: 3, "is not an object"), (lambda e: {**e, "image": 4}, "needs image"),
    (lambda e: {k: v for k, v in e.items() if k != "image"}, "needs image"),
    (lambda e: {**e, "joints": e["joints"][:15]}, "needs 16 joints of 2 numbers"),
    (lambda e: {**e, "joints": [["a", 1]] * 16}, "needs numbers in joints"),
    (lambda e: {**e, "joints": [[1, 2]] * 15 + [[3]]}, "needs numbers in joints"),
    (lambda e: {**e, "joints": None}, "needs 16 joints"),
    (lambda e: {**e, "joints": [[1, float("nan")]] * 16}, "needs 16 joints of 2 numbers"),
    (lambda e: {**e, "joints_vis": [1] * 15}, "joints_vis needs 16 numbers"),
    (lambda e: {k: v for k, v in e.items() if k != "joints"}, "needs 16 joints of 3 numbers"),
]


@pytest.mark.parametrize("change, message", WRONG_JSON, ids=range(len(WRONG_JSON)))
def test_wrong_entries_of_the_lists_are_named(minis, tmp_path, change, message):
    content = json.loads((Path(minis["json"][5:]) / "annot" / "train.json").read_text())
    content[2] = change(content[2])
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(ImageError) as caught:
        open_data(f"mpii:{tmp_path}")
    assert f"train.json: [2] {message}" in str(caught.value)
    for text, cause in (("{", "not JSON"), ('{"a": 1}', "not MPII annotations")):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(ImageError, match=f"train.json: {cause}"):
            open_data(f"mpii:{tmp_path}")


def test_lists_may_lack_scale_and_centre(minis, tmp_path):
    content = json.loads((Path(minis["json"][5:]) / "annot" / "train.json").read_text())
    bare = [{k: e[k] for k in ("image", "joints", "joints_vis")} for e in content]
    for file, entries in (("a.json", content), ("b.json", bare),
                          ("c.json", [{**e, "scale": -1.0, "center": [-1, -1]} for e in content])):
        (tmp_path / file).write_text(json.dumps(entries))
        people = [p for _, _, found in read_mpii(tmp_path / file) for p in found]
        assert len(people) == len(content) and all(p.labelled for p in people)
        assert np.isnan(people[0].size) == (file != "a.json")


def test_missing_halves_are_named(minis, tmp_path):
    (tmp_path / "annot").mkdir()
    text = (Path(minis["json"][5:]) / "annot" / "train.json").read_text()
    (tmp_path / "annot" / "train.json").write_text(text)
    assert set(find_mpii(tmp_path)) == {"train", "test"} and find_mpii(tmp_path / "absent") == {}
    with pytest.raises(ImageError, match="valid.json: no such file; fetch"):
        open_data(tmp_path, "test")
    assert find_mpii(tmp_path / "annot" / "train.json") == {"all": tmp_path / "annot" / "train.json"}


# ultralytics

def rewritten(minis, folder, **changes):
    "The miniature's YAML with other content, in another folder."
    content = yaml.safe_load(Path(minis["yolo"][5:]).read_text())
    content = {k: v for k, v in {**content, **changes}.items() if v != "absent"}
    path = folder / "people.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_however_the_yaml_names_pictures(minis, tmp_path, monkeypatch):
    root = Path(minis["yolo"][5:]).parent
    (tmp_path / "data").symlink_to(root)
    names = [f"{root}/images/train/{i:03d}.jpg" for i in range(COUNTS["train"])]
    (tmp_path / "all.txt").write_text("\n".join(names) + "\n\n")
    (tmp_path / "near.txt").write_text("./data/images/train/000.jpg\ndata/images/train/001.jpg\n")
    ways = [(dict(path="data"), 13), (dict(path="absent", train="data/images/train"), 13),
            (dict(path=None, train="data/images/train"), 13), (dict(path=str(root), train=["images/train"]), 13),
            (dict(path="data", train=["images/train", "images/val"]), 19), (dict(path="data", train="images"), 19),
            (dict(train=str(tmp_path / "all.txt")), 12), (dict(path="", train="near.txt"), 2),
            (dict(path="data", train="../images/train"), 13), (dict(path="data/images", train="train"), 13)]
    for changes, count in ways:
        assert len(YoloPose(rewritten(minis, tmp_path, **changes))) == count, changes
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "deep" / "down"
    deep.mkdir(parents=True)
    assert len(YoloPose(rewritten(minis, deep, path="data"))) == 13
    assert len(YoloPose(rewritten(minis, deep, path="data", val="absent", test="images/val"), "test")) == 6


@pytest.mark.parametrize("changes, message", [
    (dict(kpt_shape=[5, 3]), r"kpt_shape: \[5, 3\]; allowed are \[16, 17\]"), (dict(kpt_shape="absent"), "kpt_shape"),
    (dict(kpt_shape=17), "kpt_shape: 17"), (dict(kpt_shape=[17, 4]), "kpt_shape"),
    (dict(flip_idx=list(range(17))), "flip_idx is not that of COCO-17"),
    (dict(train=None), "needs train for the split train"), (dict(train="absent_folder"), "absent_folder: no such file"),
    (dict(train="labels"), "labels: no picture found"),
    (dict(train="absent", val="absent", test="absent"), "not a data set of ultralytics")])
def test_wrong_yamls_are_named(minis, tmp_path, changes, message):
    with pytest.raises(ImageError, match=message) as caught:
        YoloPose(rewritten(minis, tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "people.yaml"))


@pytest.mark.parametrize("names", [{"person": 0}, {"0.5": "person"}, {True: "person"}, "person", 3])
def test_classes_need_numbers(minis, tmp_path, names):
    with pytest.raises(ImageError, match="people.yaml: names: .* allowed is a list, or numbers with names"):
        YoloPose(rewritten(minis, tmp_path, names=names))


def test_linked_folders_are_searched_and_hidden_files_are_not(minis, tmp_path):
    root = Path(minis["yolo"][5:]).parent
    pictures = tmp_path / "[1]" / "images"
    (pictures / "deep").mkdir(parents=True)
    (pictures / "deep" / "linked").symlink_to(root / "images" / "train")
    (pictures / "deep" / "round").symlink_to(pictures)
    (pictures / ".hidden").symlink_to(root / "images" / "train")
    (pictures / "._a.jpg").write_bytes(b"Mac OS X resource fork")
    found = YoloPose(rewritten(minis, tmp_path, path=str(pictures), train="deep"), problems=[]).files
    assert len(found) == len(set(found)) == COUNTS["train"] + 1
    assert {path.parent for path in found} == {pictures / "deep" / "linked"}


def test_files_that_are_no_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    for content in (b"a: [", b"\xff\xfe\x00\xd8", b"", b"- 1"):
        path.write_bytes(content)
        with pytest.raises(ImageError, match="a.yaml: not "):
            YoloPose(path)
    with pytest.raises(ImageError, match="absent.yaml: no such file"):
        YoloPose(tmp_path / "absent.yaml")


def labelled(folder, lines, numbers=3, names=None):
    "A set of one picture of 40 x 20 pixels, with these label lines."
    save_image(np.zeros((20, 40, 3), np.uint8), folder / "images" / "a.png", overwrite=True)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_text("\n".join(lines))
    content = {"train": "images", "kpt_shape": [17, numbers], "names": names or {0: "person"}}
    (folder / "a.yaml").write_text(yaml.safe_dump(content))
    return folder / "a.yaml"


GOOD = "0 0.5 0.5 0.5 0.5 " + "0.5 0.25 2 " * 16 + "0 0 0"


@pytest.mark.parametrize("line, message", [
    (GOOD + " 1", "has 57 numbers; 56 are needed"), ("0 0.5 0.5 0.5 0.5", "has 5 numbers"),
    (GOOD.replace("0.25", "x"), "needs numbers"), ("1" + GOOD[1:], "names class 1; allowed are 0 to 0"),
    ("0.5" + GOOD[1:], "names class 0.5"), (GOOD.replace(" 2 ", " 3 "), "needs visibilities of 0, 1 or 2"),
    (GOOD.replace("0.25", "1.02"), "has numbers outside 0 to 1"), (GOOD.replace("0.25", "-0.02"), "outside 0 to 1"),
    (GOOD.replace("0 0.5 0.5 0.5 0.5", "0 0.5 0.5 -0.005 0.5"), "outside 0 to 1"),
    (GOOD.replace("0.25", "nan"), "outside 0 to 1")])
def test_wrong_lines_are_named(tmp_path, line, message):
    path = labelled(tmp_path, ["", GOOD, line])
    with pytest.raises(ImageError, match=f"labels/a.txt: line 3 .*{message}"):
        YoloPose(path)
    problems = []
    assert len(YoloPose(path, problems=problems)[0].boxes) == 1 and len(problems) == 1


def test_lines_that_are_odd_but_right(tmp_path):
    nobody = "0 0.25 0.5 0.1 0.2 " + "0 0 0 " * 17
    sample = YoloPose(labelled(tmp_path, ["\ufeff" + GOOD, GOOD, nobody, "", GOOD.replace("0.25", "1.005")]))[0]
    assert sample.boxes.tolist() == [[10, 5, 30, 15]] * 2 and len(sample.ignored) == 1
    assert np.allclose(sample.ignored[0], [8, 8, 12, 12, 0.53 * 16, 0]) and np.allclose(sample.areas, 0.53 * 200)
    assert sample.keypoints[0, 0].tolist() == [20, 5, 2] and not sample.keypoints[0, 16].any()
    names = {0: "dog", 1: "person"}
    for names in (names, {str(number): name for number, name in names.items()}):
        data = YoloPose(labelled(tmp_path, [GOOD, "1" + GOOD[1:].replace("0.25", "0.5")], names=names))
        assert data[0].keypoints[:, 0].tolist() == [[20, 10, 2]] and data.entries(0) == ["a.txt: line 2"]


def test_joints_of_two_numbers(tmp_path):
    line = "0 0.5 0.5 0.5 0.5 " + "0.5 0.25 " * 14 + "0 0 -1 -1 0 0.5"
    sample = YoloPose(labelled(tmp_path, [line], 2))[0]
    assert sample.keypoints[0, :, 2].tolist() == [2] * 14 + [0, 0, 2]
    assert sample.keypoints[0, 16].tolist() == [0, 10, 2]


def test_labels_lie_beside_pictures():
    for picture, labels in (("a/images/b/images/c.png", "a/images/b/labels/c.txt"), ("c.png", "c.txt"),
                            ("images/c.d.jpeg", "labels/c.d.txt"), ("images.d/c.png", "images.d/c.txt"),
                            ("images", "images.txt")):
        assert label_file(Path(picture)) == Path(labels)


# folders, and what kind a path is

def test_plain_pictures(tmp_path):
    for name in ("b.jpg", "a.png"):
        save_image(np.zeros((20, 30, 3), np.uint8), tmp_path / name)
    for split in COUNTS:
        data = open_data(tmp_path, split)
        assert [data[i].name for i in range(2)] == ["a.png", "b.jpg"] and data.entries(0) == []
    assert isinstance(data, Folder) and collate([data[0], data[1]]).keypoints.shape == (0, 17, 3)
    assert len(open_data(tmp_path / "a.png")) == 1
    assert fit_sample(data[0], 15).ignored.shape == (0, 6)
    with pytest.raises(IndexError):
        data[2]


def test_kinds_are_recognised(minis, tmp_path):
    for name, spec in minis.items():
        kind, _, path = spec.partition(":")
        assert recognise(spec) == recognise(path) == (kind, Path(path))
        if kind == "yolo":
            assert recognise(Path(path).parent) == (kind, Path(path))
    root = Path(minis["mat"][5:])
    assert recognise(root / "mpii_human_pose_v1_u12_1.mat")[0] == "mpii"
    assert recognise(Path(minis["cpm"][5:]) / "mpii_annotations.json")[0] == "mpii"
    assert recognise(Path(minis["coco"][5:]) / "annotations/person_keypoints_val2017.json")[0] == "coco"
    assert recognise(root / "images")[0] == recognise(root / "images" / "000000000.jpg")[0] == "folder"
    odd = tmp_path / "c:odd"
    odd.mkdir()
    save_image(np.zeros((4, 4, 3), np.uint8), odd / "a.png")
    assert recognise(odd) == ("folder", odd)


def test_an_object_called_train_json_is_not_mpii(minis, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text('{"images": []}')
    with pytest.raises(ImageError, match="no data set; looked for"):
        recognise(tmp_path)
    save_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")
    assert recognise(tmp_path) == ("folder", tmp_path)
    assert recognise(tmp_path / "annotations" / "train.json")[0] == "coco"
    (tmp_path / "annotations" / "train.json").write_text(" [")
    assert recognise(tmp_path) == ("mpii", tmp_path)


def test_foreign_yamls_and_folders_called_so_do_no_harm(minis, tmp_path):
    (tmp_path / "latin.yml").write_bytes("gr\xf6\xdfe: 1".encode("latin-1"))
    (tmp_path / "folder.yml").mkdir()
    assert "no data set; looked for" in check_data(tmp_path).problems[0]
    path = labelled(tmp_path, [GOOD])
    assert recognise(tmp_path) == ("yolo", path)


def test_what_is_no_data_set(tmp_path):
    (tmp_path / "note.txt").write_text("a")
    (tmp_path / "plain.yaml").write_text("a: 1")
    (tmp_path / "odd.json").write_bytes(b"\xff\xfe")
    cases = ((tmp_path / "absent", "no such file or folder"), (tmp_path, "no data set; looked for"),
             (tmp_path / "note.txt", "not a data set"), (tmp_path / "odd.json", "not a data set"),
             (tmp_path / "plain.yaml", "not a data set"), (f"folder:{tmp_path / 'absent'}", "no such file"),
             (f"yolo:{tmp_path}", "is a directory"))
    for spec, message in cases:
        with pytest.raises(ImageError, match=message):
            open_data(spec)
        assert check_data(spec).problems
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text('{"images": []}')
    with pytest.raises(ImageError, match=r"several annotation files \(one.json, two.json\); name one"):
        open_data(f"coco:{tmp_path}")
    with pytest.raises(ImageError, match="one.json: no picture with a labelled person in the split test"):
        open_data(tmp_path / "one.json", "test")
    for name in ("three.yaml", "four.yml"):
        (tmp_path / name).write_text("kpt_shape: [17, 3]")
    with pytest.raises(ImageError, match=r"several data sets \(four.yml, three.yaml\); name one"):
        recognise(tmp_path)


# the report

def counted(split):
    return sum(len(scene.boxes) for scene in scenes(split))


@pytest.mark.parametrize("name", ["coco", "yolo", "yolo16", *KINDS])
def test_miniatures_are_in_order(minis, name):
    report = check_data(minis[name])
    assert report.problems == [] and report.kind == minis[name].partition(":")[0]
    assert report.people == counted("train") + counted("test")
    assert report.splits == {"train": 12 + name.startswith("yolo"), "test": 6}
    assert report.ignored == {"coco": 4, "mat": 2}.get(name, 0)
    if not name.startswith(("yolo16", *KINDS)):
        truth = sum((s.keypoints[..., 2] > 0).sum() for split in COUNTS for s in scenes(split))
        assert report.joints == truth
    assert len(report.notes) == {"coco": 2, "mat": 1, "yolo": 1, "yolo16": 1}.get(name, 0)
    assert "problems: none" in str(report) and str(report.people) in str(report)


def test_all_faults_of_a_coco_file_are_found(minis, tmp_path):
    content = coco_content(minis)
    images, people = content["images"], content["annotations"]
    images[1]["width"] += 1
    images[2]["file_name"] = "absent.jpg"
    images.append({**images[3], "id": 5})
    images.append({**images[3]})
    people.append({**people[0], "id": 60, "image_id": 5})
    far = copy.deepcopy(people[0])
    far.update(id=50, keypoints=[999.0, 5, 2, *far["keypoints"][3:]])
    wide = {**people[0], "id": 51, "bbox": [5, 5, 999, 9]}
    bad = {**people[0], "id": 52, "keypoints": [5, 5, 7, *people[0]["keypoints"][3:]]}
    people += [far, wide, bad, {**people[0], "id": 53}, {**people[0], "id": 53}, {**people[0], "bbox": [0] * 4, "id": 54},
               {**people[0], "id": 55, "num_keypoints": 3}, {**people[0], "id": 56, "keypoints": [0]}, 7]
    root = tmp_path / "set"
    (root / "annotations").mkdir(parents=True)
    for name in ("train2017", "val2017"):
        (root / name).symlink_to(Path(minis["coco"][5:]) / name)
    (root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    report = check_data(root)
    words = ("repeats an id", "no such file", "listed twice", "999", "leaves the picture", "visibility 7",
             "box of no area", "num_keypoints is not their number", "keypoints needs 51 numbers", "is not an object",
             "repeats annotations[0]", "pixels, not", "person_keypoints_val2017.json: no such file")
    for word in words:
        assert any(word in problem for problem in report.problems), (word, report.problems)
    at = [p for p in report.problems if "annotations[" in p]
    assert all(f"{root}/annotations/person_keypoints_train2017.json: " in p for p in at) and len(at) >= 8


def test_faults_of_the_other_formats_are_found(minis, tmp_path):
    rows, public = mpii_rows()
    person = rows[0]["annorect"][0, 0]
    person["annopoints"][0, 0]["point"][0, 0]["x"] = 5000.0
    rows[1]["annorect"][0, 0]["x2"] = 0.0
    rows[2]["annorect"] = structs(_elements(rows[2]["annorect"]) * 2)
    mpii_release(tmp_path, rows, public)
    (tmp_path / "images").symlink_to(Path(minis["mat"][5:]) / "images")
    problems = check_data(tmp_path).problems
    assert any("annolist(1).annorect(1) " in p and "lies outside the picture, at (4999" in p for p in problems)
    assert any("annolist(2).annorect(1) has a head box of no area" in p for p in problems)
    assert any("annolist(3).annorect(" in p and "repeats annolist(3).annorect(1)" in p for p in problems)
    (tmp_path / "yolo").mkdir()
    path = labelled(tmp_path / "yolo", [GOOD, GOOD, GOOD.replace("0.5 0.5 0.5 0.5", "0.5 0.5 0 0.5"), "1"])
    report = check_data(path)
    for word in ("line 2 repeats another", "line 3 has a box of no area", "line 4 has 1 numbers", "needs val or"):
        assert any(word in problem for problem in report.problems), (word, report.problems)


def test_missing_folders_are_one_line(minis, tmp_path):
    (tmp_path / "annotations").symlink_to(Path(minis["coco"][5:]) / "annotations")
    report = check_data(tmp_path)
    assert len(report.problems) == 2 and all("none of the" in p for p in report.problems)
    assert report.people == counted("train") + counted("test")


@few
@given(st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["images", "annotations", "categories", "id", "image_id", "file_name", "bbox",
                                         "keypoints", "area", "image", "joints", "name"]), inner, max_size=4)))
def test_no_content_upsets_the_report(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.json", "train.json"):
        (folder / name).write_text(json.dumps(content))
        assert check_data(f"{'coco' if name[0] == 'a' else 'mpii'}:{folder / name}").problems


def test_sizes_are_those_of_the_picture(tmp_path):
    from PIL import Image

    for number in range(1, 9):
        picture = Image.new("RGB", (30, 20))
        exif = picture.getexif()
        exif[274] = number
        for name in ("a.jpg", "a.tif", "a.png", "a.webp"):
            picture.save(tmp_path / name, exif=exif)
            assert picture_size(tmp_path / name).tolist() == list(load_image(tmp_path / name).shape[1::-1])
            assert picture_size(tmp_path / name).tolist() == ([20, 30] if number > 4 else [30, 20])
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ImageError, match="a.jpg: not a picture"):
        picture_size(tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(30, 20), (20, 30)], ids=["as stored", "upright"])
def test_a_turned_tiff_is_upright_whatever_pillow_says(monkeypatch, size):
    from contextlib import nullcontext
    from types import SimpleNamespace

    header = SimpleNamespace(width=size[0], height=size[1], size=size, tag_v2={256: 30, 257: 20},
                             getexif=lambda: {274: 6})
    monkeypatch.setattr("privnb.check.Image.open", lambda path: nullcontext(header))
    assert picture_size("a.tif").tolist() == [20, 30]


def test_regions_are_not_held_against_the_estimator(minis):
    data = open_data(minis["coco"])
    samples = [data[i] for i in range(4)]
    found = [Prediction(torch.from_numpy(s.boxes), torch.linspace(0.5, 0.6, len(s.boxes)),
                        torch.from_numpy(s.keypoints)) for s in samples]
    crowd = torch.full((3, 17, 3), 20.0) + torch.arange(3).view(3, 1, 1)
    found[0] = Prediction(torch.cat([found[0].boxes, torch.zeros(3, 4)]),
                          torch.cat([found[0].scores, torch.tensor([0.9, 0.8, 0.7])]),
                          torch.cat([found[0].keypoints, crowd]))
    spared = pose_ap(found, samples)
    assert spared["ap50"] == pytest.approx(100) and spared["ar50"] == pytest.approx(100)
    samples[0].ignored = None
    assert pose_ap(found, samples)["ap50"] < 90
