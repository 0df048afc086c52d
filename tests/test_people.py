"""Puppets and scenes: what holds for any seed, size and split."""
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb import scenes
from privnb.outfits import Outfit
from privnb.people import load_people, render_person
from privnb.poses import POSE_KINDS, Pose, bone_directions, sample_pose
from privnb.scenes import BACKGROUNDS, SceneDataset, make_clip, make_scene


def same(a, b):
    "Whether two scenes are equal in every array."
    names = ("image", "keypoints", "boxes", "masks", "identity", "areas", "track")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names) and a.attributes == b.attributes


def test_splits_share_nobody_and_no_place():
    train, test = ({p.id for p in load_people(s)} for s in ("train", "test"))
    assert train | test == {p.id for p in load_people()} and not train & test
    assert test == {9, 10}
    for kind in ("amateur", "studio"):
        owners = [{n.split(":")[1] for n in BACKGROUNDS[s] if n.startswith(kind)} for s in ("train", "test")]
        assert not owners[0] & owners[1]
    textures = [{n for n in BACKGROUNDS[s] if ":" not in n} for s in ("train", "test")]
    assert textures[0] and textures[1] and not textures[0] & textures[1]


def test_backgrounds_need_no_download():
    from importlib.resources import files
    for name in BACKGROUNDS["train"] + BACKGROUNDS["test"]:
        if name.startswith("skimage:"):
            assert (files("skimage") / "data" / name.split(":")[1]).is_file()
            assert name.split(":")[1].split(".")[0] not in ("astronaut", "camera")


@pytest.mark.parametrize("split", ["train", "test"])
def test_scene_does_not_depend_on_order_or_global_state(split):
    first = make_scene(11, 3, 160, (1, 3), split)
    np.random.seed(0)
    make_scene(12, 0, 160, (1, 2), split)
    assert same(first, make_scene(11, 3, 160, (1, 3), split))


def test_threads_give_the_same_scenes():
    one = [make_scene(2, i, 160) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        many = list(pool.map(lambda i: make_scene(2, i, 160), range(6)))
    assert all(same(a, b) for a, b in zip(one, many))


def test_rendering_leaves_the_global_generator_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    make_scene(0, 0, 160)
    assert np.array_equal(before, np.random.get_state()[1])


@settings(max_examples=12, deadline=None)
@given(st.integers(160, 640), st.integers(160, 640), st.integers(0, 6), st.integers(0, 10 ** 6))
def test_any_size_and_number(height, width, count, index):
    scene = make_scene(21, index, (height, width), count, "test")
    assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
    n = len(scene.identity)
    assert n <= count and (n == count or count > 3)
    assert scene.keypoints.shape == (n, 17, 3) and scene.keypoints.dtype == np.float32
    assert scene.boxes.shape == (n, 4) and scene.boxes.dtype == np.float32
    assert scene.masks.shape == (n, height, width) and scene.masks.dtype == bool
    assert scene.areas.shape == (n,) and len(scene.attributes) == n and scene.track.shape == (n,)
    assert set(scene.identity) <= {9, 10} and scene.identity.dtype == np.int64
    assert np.array_equal(scene.areas, scene.masks.sum((1, 2)))
    assert n == 0 or scene.masks.sum(0).max() <= 1


def test_boxes_are_tight_for_a_person_alone():
    for i in range(10):
        scene = make_scene(31, i, 200, 1)
        rows, columns = np.where(scene.masks[0].any(1))[0], np.where(scene.masks[0].any(0))[0]
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.array_equal(scene.boxes[0], tight)


def test_visibility_follows_masks_and_border():
    seen = hidden = 0
    for i in range(25):
        scene = make_scene(41, i, 192, (1, 4))
        for keys, mask in zip(scene.keypoints, scene.masks):
            inside = ((keys[:, :2] >= 0) & (keys[:, :2] < 192)).all(1)
            assert np.array_equal(keys[:, 2] > 0, inside)
            near = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
            x, y = np.floor(keys[keys[:, 2] == 2, :2]).astype(int).T
            assert near[y, x].max(initial=0) <= 6
            seen, hidden = seen + (keys[:, 2] == 2).sum(), hidden + (keys[:, 2] == 1).sum()
    assert seen > 2 * hidden > 0


@pytest.mark.parametrize("kind", POSE_KINDS)
def test_joints_lie_on_the_puppet(kind):
    rng = np.random.default_rng(7)
    for person in load_people()[::2]:
        for name in ("front", "left", "back"):
            puppet = render_person(person.view(name), sample_pose(kind, rng), Outfit("red", "blue"), 160)
            off = cv2.distanceTransform((puppet.alpha < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
            x, y = puppet.keypoints[:, :2].astype(int).T
            assert off[y, x].max() < 12, (person.name, name)
            assert puppet.alpha.max() <= 1.001 and (puppet.colour <= puppet.alpha[..., None] + 1e-3).all()


def test_left_and_right():
    "Frontal: the left shoulder is on the right of the picture; from behind it is on the left."
    for person in load_people():
        for name in person.view_names:
            view = person.view(name)
            keys = render_person(view, Pose("stand"), Outfit(), 160).keypoints
            if not view.profile:
                assert (keys[5, 0] > keys[6, 0]) == (view.facing == 0), (person.name, name)
            else:
                assert (keys[0, 0] > keys[4, 0]) == (view.facing == 90), (person.name, name)
    assert np.allclose(np.linalg.norm(bone_directions(Pose("stand")), axis=1), 1)


def test_flip_swaps_sides():
    person = load_people()[0]
    puppet = render_person(person.view("front"), Pose("stand"), Outfit(), 160)
    twice = scenes._flip(scenes._flip(puppet))
    assert np.allclose(twice.keypoints, puppet.keypoints) and np.array_equal(twice.layer, puppet.layer)
    flipped = scenes._flip(puppet).keypoints
    assert flipped[5, 0] > flipped[6, 0]


def test_a_hidden_wrist():
    "An arm stretched backwards is behind the torso in a frontal view."
    arms = ((-40.0, -12.0, 0.0, 0.0), (0.0, 8.0, 0.0, 8.0))
    puppet = render_person(load_people()[3].view("front"), Pose("stand", arms=arms), Outfit(), 200)
    assert puppet.keypoints[9, 2] == 1 and puppet.keypoints[10, 2] == 2


def test_faces_are_hidden_from_behind():
    keys = render_person(load_people()[0].view("back"), Pose("stand"), Outfit(), 160).keypoints
    assert (keys[:3, 2] == 1).all()


def test_outfit_changes_clothes_only():
    view = load_people()[4].view("front")
    a, b = (render_person(view, Pose("stand"), Outfit(top, "grey"), 200) for top in ("red", "green"))
    assert np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.alpha, b.alpha)
    x, y = a.keypoints[0, :2].astype(int)
    assert np.allclose(a.colour[y - 3:y + 3, x - 3:x + 3], b.colour[y - 3:y + 3, x - 3:x + 3], atol=0.02)
    x, y = a.keypoints[[5, 6, 11, 12], :2].mean(0).astype(int)
    assert a.colour[y, x, 0] > a.colour[y, x, 1] and b.colour[y, x, 1] > b.colour[y, x, 0]


def test_clip_keeps_background_people_and_outfits():
    clip = make_clip(5, 0, frames=10, size=(160, 200), people=3)
    assert len(clip) == 10
    known = {}
    for scene in clip:
        assert len(set(scene.track)) == len(scene.track)
        for track, who, attributes in zip(scene.track, scene.identity, scene.attributes):
            assert known.setdefault(int(track), (who, attributes["top"])) == (who, attributes["top"])
    still = clip[0].masks.any(0) | clip[1].masks.any(0)
    still = cv2.dilate(still.astype(np.uint8), np.ones((61, 61))) == 0
    assert np.array_equal(clip[0].image[still], clip[1].image[still])
    steps = [np.abs(a.keypoints[i, 0, :2] - b.keypoints[j, 0, :2]).max() for a, b in zip(clip, clip[1:])
             for i, t in enumerate(a.track) for j, u in enumerate(b.track) if t == u]
    assert 0 < max(steps) < 12


def test_dataset_is_picklable_and_bounded():
    data = SceneDataset(3, seed=1, size=160, people=1, cache=True)
    again = pickle.loads(pickle.dumps(data))
    assert same(data[2], again[2]) and data[2] is data[2]
    assert len(list(data)) == 3
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize("bad", [dict(size=20), dict(size=(100, 100, 3)), dict(people=(3, 1)), dict(people=99),
                                 dict(split="val")])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        make_scene(0, 0, **bad)
    with pytest.raises(ValueError, match="split"):
        load_people("everyone")
    with pytest.raises(ValueError, match="kind"):
        sample_pose("fly", np.random.default_rng(0))


def test_labels_are_small_and_complete():
    from importlib.resources import files
    folder = files("privnb") / "assets/people"
    images = [f for f in folder.iterdir() if f.name.endswith(".png")]
    assert {f"P{p.id:03d}_{n}.png" for p in load_people() for n in p.view_names} == {f.name for f in images}
    assert sum(len(f.read_bytes()) for f in images) < 1_000_000
