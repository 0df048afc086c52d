"Batches of odd scenes, resuming at any step, wrong COCO entries one by one, and odd folders."
import copy
import json
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.datasets import (CocoKeypoints, PoseBatch, Sample, batches, collate, find_images,
                             locate, read_coco)
from privnb.images import ImageError, save_image

few = settings(max_examples=40, deadline=None)


def sample(number=0, people=1, size=(4, 6)):
    "A scene whose every value tells its number."
    count = np.arange(people)
    return Sample(np.full((*size, 3), number % 256, np.uint8),
                  np.full((people, 17, 3), number, np.float32), np.full((people, 4), number, np.float32),
                  np.full(people, number, np.float32), 100 * number + count)


# collate

@few
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_everybody_keeps_picture_and_order(counts):
    batch = collate([sample(n, people) for n, people in enumerate(counts)])
    assert batch.index.tolist() == [n for n, people in enumerate(counts) for _ in range(people)]
    assert (batch.keypoints[:, 0, 0] == batch.index).all()
    assert batch.identity.tolist() == [100 * n + k for n, p in enumerate(counts) for k in range(p)]
    assert [v.dtype for v in vars(batch).values()] == [torch.float32] * 4 + [torch.int64] * 2
    assert len(batch.boxes) == len(batch.areas) == sum(counts)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"\(4, 6, 3\), \(6, 4, 3\)"):
        collate([sample(), sample(size=(6, 4))])
    with pytest.raises(ValueError, match="exactly one size"):
        collate([])
    with pytest.raises(ValueError, match="array"):
        collate([Sample(np.zeros((4, 6, 3)), *[v for v in vars(sample()).values()][1:5])])


@pytest.mark.parametrize("name", ["keypoints", "areas", "identity"])
def test_rows_must_agree(name):
    scene = sample(people=2)
    setattr(scene, name, getattr(scene, name)[:1])
    with pytest.raises(ValueError, match=rf"scenes\[1\].{name}: 1 rows"):
        collate([sample(), scene])


def test_batches_are_moved_and_dressed_anew():
    batch = collate([sample(3, 2)])
    moved = batch.to("meta")
    assert all(v.device.type == "meta" for v in vars(moved).values())
    other = batch.with_images(batch.images + 1)
    assert isinstance(other, PoseBatch) and other.boxes is batch.boxes
    assert not torch.equal(other.images, batch.images)


# streams

@dataclass
class Numbers:
    length: int

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        assert isinstance(i, int) and 0 <= i < self.length
        return sample(i, size=(1, 1))


def drawn(stream, steps):
    return [batch.keypoints[:, 0, 0].int().tolist() for batch in islice(stream, steps)]


@few
@given(length=st.integers(1, 12), size=st.integers(1, 12), seed=st.integers(0, 9),
       start=st.integers(0, 30), steps=st.integers(1, 8))
def test_a_stream_resumes_anywhere(length, size, seed, start, steps):
    if size > length:
        with pytest.raises(ValueError, match="batch_size"):
            batches(Numbers(length), size, seed)
        return
    whole = drawn(batches(Numbers(length), size, seed), start + steps)
    assert whole[start:] == drawn(batches(Numbers(length), size, seed, start), steps)
    assert all(len(set(batch)) == size for batch in whole)
    for epoch in range(0, len(whole) - length // size + 1, length // size):
        scenes = sum(whole[epoch:epoch + length // size], [])
        assert len(set(scenes)) == len(scenes) == length // size * size


def test_seeds_and_epochs_differ():
    one, two = (drawn(batches(Numbers(40), 40, seed), 2) for seed in (0, 1))
    assert len({tuple(order) for order in one + two}) == 4


def test_wrong_arguments_are_refused_at_once():
    for size in (0, -1, 6):
        with pytest.raises(ValueError, match=f"batch_size: {size}; allowed is 1 to 5"):
            batches(Numbers(5), size)
    with pytest.raises(ValueError, match="start: -1"):
        batches(Numbers(5), 2, start=-1)


# COCO

COCO = {"images": [{"id": 1, "file_name": "a.png"}, {"id": "x", "file_name": "b.png"}],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 3.5, 4], "area": 9.5, "identity": 7,
                         "keypoints": list(range(51)), "num_keypoints": 17},
                        {"image_id": "x", "bbox": [0, 0, 2, 3]}]}


def written(folder, content):
    path = folder / "people.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_read(tmp_path):
    for name in "ab":
        save_image(np.zeros((8, 9, 3), np.uint8), tmp_path / "pictures" / f"{name}.png")
    data = CocoKeypoints(written(tmp_path, COCO), tmp_path / "pictures")
    one, two = data[0], data[1]
    assert len(data) == 2 and one.boxes.tolist() == [[1, 2, 4.5, 6]] and one.identity.tolist() == [7]
    assert one.keypoints[0, 1].tolist() == [3, 4, 5] and one.areas.tolist() == [9.5]
    assert two.areas.tolist() == [6] and two.identity.tolist() == [-1] and not two.keypoints.any()
    assert two.name == "b.png" and collate([one, two]).index.tolist() == [0, 1]
    assert one.keypoints.dtype == one.boxes.dtype == one.areas.dtype == np.float32


def test_who_does_not_count(tmp_path):
    content = copy.deepcopy(COCO)
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["num_keypoints"] = 0
    for name in "ab":
        save_image(np.zeros((8, 9, 3), np.uint8), tmp_path / f"{name}.png")
    data = CocoKeypoints(written(tmp_path, content))
    assert all(len(data[i].boxes) == 0 and data[i].keypoints.shape == (0, 17, 3) for i in (0, 1))


def test_annotations_may_be_absent(tmp_path):
    images, people = read_coco(written(tmp_path, {"images": COCO["images"]}))
    assert len(images) == 2 and people == {1: [], "x": []}


WRONG = [
    (("annotations", 1, "image_id"), 5, "annotations[1] names an unknown image_id"),
    (("annotations", 1, "image_id"), None, "annotations[1] names an unknown image_id"),
    (("annotations", 1, "image_id"), [1], "annotations[1] names an unknown image_id"),
    (("annotations", 0, "bbox"), [1, 2, 3], "annotations[0] bbox needs 4 numbers"),
    (("annotations", 0, "bbox"), "none", "annotations[0] bbox needs 4 numbers"),
    (("annotations", 0, "bbox"), [1, 2, "3", 4], "annotations[0] bbox needs 4 numbers"),
    (("annotations", 0, "bbox"), [1, 2, -3, 4], "annotations[0] bbox needs 4 numbers"),
    (("annotations", 0, "bbox"), [1, 2, float("nan"), 4], "annotations[0] bbox needs 4 numbers"),
    (("annotations", 0, "bbox"), None, "annotations[0] bbox needs 4 numbers"),
    (("annotations", 0, "keypoints"), [0] * 50, "annotations[0] keypoints needs 51 numbers"),
    (("annotations", 0, "keypoints"), {}, "annotations[0] keypoints needs 51 numbers"),
    (("annotations", 0, "keypoints"), [None] * 51, "annotations[0] keypoints needs 51 numbers"),
    (("annotations", 0, "area"), "big", "annotations[0] area"),
    (("annotations", 0, "identity"), None, "annotations[0] area and identity"),
    (("annotations", 0), 3, "annotations[0] is not an object"),
    (("images", 1, "id"), 1, "images[1] repeats an id"),
    (("images", 1, "id"), None, "images[1] needs an id"),
    (("images", 0, "file_name"), 4, "images[0] needs a file_name"),
    (("images", 0), "a.png", "images[0] needs an id"),
    (("images",), {}, "needs the lists"),
    (("annotations",), None, "needs the lists"),
]


@pytest.mark.parametrize("place, value, message", WRONG, ids=lambda v: str(v)[:40])
def test_each_wrong_entry_is_named(tmp_path, place, value, message):
    content = copy.deepcopy(COCO)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = written(tmp_path, content)
    with pytest.raises(ImageError) as caught:
        CocoKeypoints(path)
    assert str(caught.value).startswith(f"{path}: {message}" if "[" in message else f"{path}: not COCO")
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["image_id", "bbox"])
def test_missing_entries_are_named(tmp_path, key):
    content = copy.deepcopy(COCO)
    del content["annotations"][1][key]
    with pytest.raises(ImageError, match=rf"annotations\[1\] .*{key}"):
        read_coco(written(tmp_path, content))


def test_files_that_are_no_coco(tmp_path):
    for content in ("", "{", "[]", "3", "{}", '"images"'):
        with pytest.raises(ImageError, match="people.json: not (JSON|COCO)"):
            read_coco(written(tmp_path, content))
    (tmp_path / "people.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImageError, match="not JSON"):
        read_coco(tmp_path / "people.json")
    with pytest.raises(ImageError, match="no such file"):
        read_coco(tmp_path / "absent.json")


def test_missing_pictures_are_named_when_asked_for(tmp_path):
    data = CocoKeypoints(written(tmp_path, COCO))
    with pytest.raises(ImageError, match="a.png: no such file"):
        data[0]


def test_pictures_of_packages(tmp_path):
    assert locate("skimage:astronaut.png").is_file() and locate("ultralytics:bus.jpg").is_file()
    assert locate("plain.png", tmp_path) == tmp_path / "plain.png"
    assert locate("c:odd.png", tmp_path) == tmp_path / "c:odd.png"
    with pytest.raises(ImageError, match="skimage:absent.png: the package skimage"):
        locate("skimage:absent.png")


# folders

def test_folders_patterns_and_files(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.tiff", "d.txt", ".hidden.png", "odd[1].png", "deep/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [p.name for p in find_images([tmp_path])]
    assert names == ["a.jpg", "b.PNG", "c.tiff", "odd[1].png"]
    assert [p.name for p in find_images([tmp_path / "odd[1].png"])] == ["odd[1].png"]
    assert [p.name for p in find_images([tmp_path / "**" / "*.png"])] == ["deep/e.png"[5:], "odd[1].png"]
    again = find_images([str(tmp_path / "b.PNG"), tmp_path, tmp_path / "a.jpg"])
    assert [p.name for p in again] == ["b.PNG", "a.jpg", "c.tiff", "odd[1].png"]
    assert find_images([]) == []


def test_folders_and_patterns_without_pictures(tmp_path):
    (tmp_path / "note.txt").touch()
    for path in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(ImageError, match="no picture found"):
            find_images([path])


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    import privnb.datasets as datasets

    def locked(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(datasets.Path, "iterdir", locked)
    with pytest.raises(ImageError, match="permission denied"):
        find_images([tmp_path])


@pytest.mark.parametrize("broken", [[1], {"a": 1}])
def test_ids_of_another_type_are_faults_not_crashes(tmp_path, broken):
    save_image(np.zeros((40, 40, 3), np.uint8), tmp_path / "a.png")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81,
             "keypoints": [5, 5, 2] * 17}
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 40}],
               "annotations": [entry], "categories": [{"id": broken, "name": "person"}]}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    assert len(CocoKeypoints(path)) == 1
    path.write_text(json.dumps({**content, "annotations": [{**entry, "category_id": broken}]}))
    with pytest.raises(ImageError, match="category_id"):
        CocoKeypoints(path)


def test_without_num_keypoints_the_visibilities_say_who_is_labelled(tmp_path):
    save_image(np.zeros((40, 40, 3), np.uint8), tmp_path / "a.png")
    box = {"image_id": 1, "bbox": [1, 1, 9, 9]}
    entries = [{**box, "keypoints": [0] * 51}, {**box, "keypoints": [5, 5, 1] + [0] * 48}, box,
               {**box, "keypoints": [5, 5, 2] * 17, "num_keypoints": 0}]
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": entries}))
    data = CocoKeypoints(path)
    assert data.entries(0) == ["annotations[1]", "annotations[2]"] and len(data[0].ignored) == 2
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": entries[:1]}))
    assert len(CocoKeypoints(path, people_only=True)) == 0
