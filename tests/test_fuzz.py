"Readers of pictures and annotations: what tools/fuzz.py found, a short run of it, and a folder with broken pictures in it."
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from privnb.datasets import CocoKeypoints
from privnb.images import ImageError
from privnb.matlab import read_matlab
from privnb.mpii import MPII
from privnb.yolo import YoloPose

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("fuzz", ROOT / "tools" / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)


@pytest.mark.parametrize("target", ["picture", "annotations", "mpii", "matlab", "yolo"])
def test_no_crash_no_hang_no_swelling(target):
    before = fuzz.peak_memory()  # of the tests before this one
    answers, found, slowest, memory = fuzz.fuzz(target, 1500, seed=9)
    assert found == {} and set(answers) == {"read", "ImageError"}
    assert slowest < fuzz.LIMIT and memory - before < fuzz.MEMORY // 2


PERSON = {"image": "1.jpg", "joints": [[5.0 + i, 6.0] for i in range(16)], "joints_vis": [1] * 16, "scale": 0.5,
          "center": [30.0, 20.0]}


@pytest.mark.parametrize("change", [  # each of them ended in another exception than ImageError
    dict(center=[1, [2, 3]]), dict(center=[{}, {}]), dict(center=["x", ""]), dict(center=[1e308, 2]),
    dict(scale=2 ** 2000), dict(scale=[1]), dict(scale="x")])
def test_mpii_without_a_place_or_a_size(tmp_path, change):
    "What only serves people without joints is unknown then; the joints count."
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{**PERSON, **change}]))
    assert (MPII(path, "train").labels(0, 48, 64)["keypoints"] if len(MPII(path, "train")) else
            MPII(path, "test").labels(0, 48, 64)["keypoints"]).shape == (1, 16, 3)


@pytest.mark.parametrize("change", [
    dict(joints_vis=["1"] * 15 + ["x"]), dict(joints_vis=[None] * 16), dict(joints_vis=[[1]] * 16), dict(joints=[[1e300, 1]] * 16),
    dict(joints=[[1, [2]]] * 16), dict(joints=None), dict(joints=[[2 ** 2000, 1]] * 16)])
def test_mpii_with_broken_joints_is_refused(tmp_path, change):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{**PERSON, **change}]))
    with pytest.raises(ImageError, match=r"train.json: \[0\] "):
        MPII(path)


@pytest.mark.parametrize("make", [lambda path: MPII(path), lambda path: CocoKeypoints(path)])
def test_json_deeper_than_the_stack_is_refused(tmp_path, make):
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ImageError, match="not JSON"):
        make(path)


def test_boxes_beyond_single_precision_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}],
                                "annotations": [{"image_id": 1, "bbox": [0, 0, 1e308, 1]}]}))
    with pytest.raises(ImageError, match="bbox"):
        CocoKeypoints(path)


def yolo(folder, labels=b"", listed=b"images/a.png\n", **yaml):
    "A data set of one picture; the names of its YAML's entries may be anything."
    content = {"train": "images", "val": "list.txt", "kpt_shape": [17, 3], **yaml}
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "images" / "a.png").write_bytes(b"")
    (folder / "labels" / "a.txt").write_bytes(labels)
    (folder / "list.txt").write_bytes(listed)
    (folder / "x.yaml").write_text(json.dumps(content))
    return folder / "x.yaml"


@pytest.mark.parametrize("what, cause", [  # each of them ended in another exception than ImageError
    (dict(names=5), "names"), (dict(names=True), "names"), (dict(flip_idx=7), "flip_idx"), (dict(train=7), "allowed are the names"),
    (dict(train=[["images"]]), "allowed are the names"), (dict(train={"a": 1}), "allowed are the names"),
    (dict(train="x" * 5000), "no name of a file"), (dict(labels=b"0 \xff"), "no text"), (dict(kpt_shape="17\n3"), "kpt_shape"),
    (dict(train="two\nlines"), "no such file")])
def test_yolo_with_a_broken_part_is_refused_in_one_line(tmp_path, what, cause):
    with pytest.raises(ImageError, match=cause) as caught:
        YoloPose(yolo(tmp_path, **what))
    assert "\n" not in str(caught.value)


def test_yolo_with_a_broken_list_and_a_deep_yaml(tmp_path):
    path = yolo(tmp_path, listed=b"\xff\xfe")
    with pytest.raises(ImageError, match="list.txt: no text"):
        YoloPose(path, "test")
    (tmp_path / "list.txt").write_bytes(b"/")
    with pytest.raises(ImageError, match="no name of a picture"):
        YoloPose(path, "test")
    path.write_text("[" * 5000)
    with pytest.raises(ImageError, match="not YAML"):
        YoloPose(path)


# Matlab

def release(path, compressed=False):
    savemat(path, {"RELEASE": {"annolist": fuzz.structs([{"image": {"name": "1.jpg"}}]), "img_train": np.array([1])}},
            do_compression=compressed)
    return path.read_bytes()


def test_every_prefix_and_every_single_byte_of_a_matlab_file(tmp_path):
    "Files of which SciPy's reader crashed on one in a hundred; the reader of room 01c refuses or reads."
    path, answers = tmp_path / "a.mat", {"read": 0, "refused": 0}
    content = release(path)
    broken = [content[:n] for n in range(0, len(content), 7)]
    for place in range(124, len(content)):
        for value in (0, 0xFF, content[place] ^ 0x80, content[place] ^ 1):
            broken.append(content[:place] + bytes([value]) + content[place + 1:])
    for made in broken:
        path.write_bytes(made)
        try:
            read_matlab(path)
            answers["read"] += 1
        except ValueError as error:
            assert "\n" not in str(error)
            answers["refused"] += 1
    assert min(answers.values()) > 100


def test_a_matlab_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    from privnb import matlab

    path = tmp_path / "a.mat"
    release(path, compressed=True)
    assert read_matlab(path)["RELEASE"][0].img_train == 1
    monkeypatch.setattr(matlab, "LARGEST", 100)
    with pytest.raises(ValueError, match="unpacks to more than 100"):
        read_matlab(path)


def test_promises_that_the_file_cannot_hold_cost_nothing(tmp_path):
    path = tmp_path / "a.mat"
    content = release(path)
    place = content.index(np.array([5, 8, 1, 1], "<i4").tobytes())  # the shape of the outermost struct
    for many in (2 ** 31 - 1, -1, 10 ** 6):
        path.write_bytes(content[:place + 8] + np.array([many, many], "<i4").tobytes() + content[place + 16:])
        if many > 0:
            with pytest.raises(ValueError, match="promised"):
                read_matlab(path)
        else:
            assert read_matlab(path)["RELEASE"] == []


# many pictures

def test_a_folder_with_broken_pictures(tmp_path):
    "The tool at a smaller scale: every tenth of 80 is broken; all good ones are done, each bad one is named."
    run = subprocess.run([sys.executable, "tools/measure_batch.py", "--count", "80", "--every", "10", "--size", "96",
                          "--out", str(tmp_path / "batch"), "--json", str(tmp_path / "batch.json")], cwd=ROOT, capture_output=True, text=True)
    figures = json.loads((tmp_path / "batch.json").read_text())
    assert figures["good ones done"] == figures["good ones"] == 72, run.stderr
    assert figures["bad ones named"] == figures["bad ones"] == 8 and figures["others named"] == figures["bad ones written"] == []
    assert len(set(figures["ways"].values())) == 7 and figures["status"] == 1


def test_the_thousand_that_were_measured():
    figures = json.loads((ROOT / "nbs" / "results" / "batch.json").read_text())
    assert figures["pictures"] == 1000 and figures["bad ones"] == figures["bad ones named"] == 10
    assert figures["good ones done"] == figures["good ones"] == 990
    assert figures["memory late, MB"] < 1.05 * figures["memory early, MB"]
