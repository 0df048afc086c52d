"Matching, weighted AP and intervals against faster-coco-eval; the record of an evaluation."

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from privnb.datasets import Sample
from privnb.evaluation import (Evaluation, difference, evaluate_system, evaluation_from,
                               save_evaluation, summarise)
from privnb.figures import COMPARISONS, evaluate, look, render_scenes
from privnb.guidance import Guidance
from privnb.images import ImageError
from privnb.matching import (interval, joined, match, matches_from, measures, over_seeds,
                             resamples, weighted_mean)
from privnb.metrics import head_size, match_people, pckh, pose_ap
from privnb.pose import PoseEstimator, Prediction
from privnb.system import PrivacySystem, SystemConfig
from privnb.weights import shipped

NAMES = ("ap50", "ar50", "ap", "ar")


def image(rng, joints=17, regions=True, most=6):
    "Labels of one made-up image, and what somebody found in it: near, far, twice, and in crowds."
    count = int(rng.integers(0, most))
    truth = rng.uniform(0, 200, (count, 1, 2)) + rng.normal(0, 25, (count, joints, 2))
    seen = rng.integers(0, 3, (count, joints, 1))
    if count:
        seen[0] = rng.integers(0, 2) * seen[0]
    keypoints = np.concatenate([truth, seen], 2).astype(np.float32)
    spread = rng.choice([1.0, 6.0, 20.0, 60.0], (count, 1, 1))
    near = truth + rng.normal(0, 1, truth.shape) * spread
    ignored = np.concatenate([rng.uniform(0, 150, (2, 2)), rng.uniform(150, 220, (2, 2)),
                              rng.uniform(500, 5000, (2, 1)), [[0], [1]]], 1)
    inside = rng.uniform(ignored[:, None, :2], ignored[:, None, 2:4], (2, joints, 2))
    inside += 0 if regions else 300  # far from the corner, where people without a label have no box
    more = rng.uniform(0, 200, (int(rng.integers(0, 4)), joints, 2))
    points = np.concatenate([near, near[: count // 2] + 3, inside.repeat(2, 0), more])
    points = np.concatenate([points, np.ones((len(points), joints, 1))], 2)
    order = rng.permutation(len(points))
    scores = torch.tensor(rng.random(len(points)), dtype=torch.float32)
    found = Prediction(torch.zeros(len(points), 4), scores, torch.tensor(points[order]).float())
    labels = SimpleNamespace(keypoints=keypoints, heads=None,
                             areas=rng.uniform(500, 9000, count).astype(np.float32),
                             ignored=ignored.astype(np.float32) if regions else None)
    return found, labels


def same(ours, theirs, at=0):
    return all(ours[n][at] == pytest.approx(theirs[n], abs=1e-6, nan_ok=True) for n in NAMES)


@pytest.mark.parametrize("joints", [16, 17])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_measures_equal_faster_coco_eval(seed, joints, regions):
    rng = np.random.default_rng(seed)
    found, labels = zip(*(image(rng, joints, regions) for _ in range(12)))
    matches = joined([match(*pair) for pair in zip(found, labels)])
    assert same(measures(matches), pose_ap(list(found), list(labels)))
    assert matches.ignored.any() == regions


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_repetitions(seed):
    rng = np.random.default_rng(seed)
    found, labels = zip(*(image(rng) for _ in range(9)))
    weights = resamples(9, 5, seed)
    ours = measures(joined([match(*pair) for pair in zip(found, labels)]), weights)
    for b, row in enumerate(weights):
        drawn = np.repeat(np.arange(9), row)
        assert same(ours, pose_ap([found[i] for i in drawn], [labels[i] for i in drawn]), b)


def test_portions_change_nothing(monkeypatch):
    from privnb import matching

    rng = np.random.default_rng(1)
    matches = joined([match(*image(rng)) for _ in range(9)])
    weights, calls = resamples(9, 7), []
    whole, portion = measures(matches, weights), matching._portion
    monkeypatch.setattr(matching, "_portion", lambda m, w: calls.append(len(w)) or portion(m, w))
    matches.scores = np.concatenate([matches.scores, np.zeros(1_500_000)])
    for name, blank in (("image", 0), ("hits", False), ("ignored", True)):
        value = getattr(matches, name)
        more = np.full((1_500_000, *value.shape[1:]), blank, value.dtype)
        setattr(matches, name, np.concatenate([value, more]))
    parts = measures(matches, weights[:3])
    assert calls == [2, 1]
    assert all(np.allclose(parts[name], whole[name][:3]) for name in NAMES)


def test_more_than_twenty_findings():
    rng = np.random.default_rng(3)
    found, labels = image(rng, most=6)
    many = Prediction(found.boxes.repeat(9, 1), torch.rand(9 * len(found.scores)),
                      found.keypoints.repeat(9, 1, 1))
    assert len(many.scores) > 20 == len(match(many, labels).scores)
    assert same(measures(match(many, labels)), pose_ap([many], [labels]))


def empty(joints=17):
    return Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, joints, 3))


def test_nobody_there_and_nobody_found():
    rng = np.random.default_rng(5)
    found, labels = image(rng)
    nobody = SimpleNamespace(keypoints=np.zeros((0, 17, 3), np.float32),
                             areas=np.zeros(0, np.float32), heads=None, ignored=None)
    assert all(math.isnan(v[0]) for v in measures(match(found, nobody)).values())
    assert measures(match(empty(), labels))["ap50"][0] == 0.0
    assert math.isnan(measures(match(empty(), nobody))["ap50"][0])
    weights = np.array([[1, 0], [0, 1]])
    both = measures(joined([match(empty(), labels), match(found, nobody)]), weights)
    assert both["ar50"][0] == 0.0 and math.isnan(both["ar50"][1])


def test_pckh_is_pooled_over_joints():
    rng = np.random.default_rng(6)
    pairs = [image(rng, regions=False) for _ in range(8)]
    pairs = [(found, labels) for found, labels in pairs if len(found.scores) <= 20]
    paired = [match_people(found, labels.keypoints, labels.areas) for found, labels in pairs]
    truth = torch.cat([torch.as_tensor(labels.keypoints) for _, labels in pairs])
    expected = pckh(torch.cat(paired), truth, head_size(truth))
    matches = joined([match(*pair) for pair in pairs])
    assert measures(matches)["pckh"][0] == pytest.approx(expected)


def test_head_boxes_of_mpii_are_used():
    rng = np.random.default_rng(7)
    found, labels = image(rng, joints=16, regions=False)
    while not (labels.keypoints[..., 2] > 0).any(-1).all() or not len(labels.keypoints):
        found, labels = image(rng, joints=16, regions=False)
    labels.heads = np.tile(np.float32([0, 0, 1e-3, 1e-3]), (len(labels.keypoints), 1))
    tiny = match(found, labels).joints[0]
    labels.heads = labels.heads * 1e9
    huge = match(found, labels).joints[0]
    assert tiny[1] == huge[1] > 0 and tiny[0] == 0 and huge[0] == huge[1]


@pytest.mark.parametrize("call, word", [
    (lambda m: measures(m, np.ones((2, 5))), "weights"),
    (lambda m: measures(m, np.ones(3)), "weights"),
    (lambda m: resamples(0), "images"),
    (lambda m: resamples(3, 0), "times"),
])
def test_wrong_weights(call, word):
    matches = joined([match(empty(), image(np.random.default_rng(i))[1]) for i in range(3)])
    with pytest.raises(ValueError, match=word):
        call(matches)


def test_intervals():
    assert interval([]) is None and interval([math.nan]) is None
    assert interval([math.inf] * 5) == (math.inf, math.inf)
    low, high = interval(np.arange(1001))
    assert (low, high) == (25, 975)
    assert math.isnan(weighted_mean([math.nan, 2.0], np.array([[3, 0]]))[0])
    assert weighted_mean([math.inf, 2.0], np.array([[0, 2], [1, 1]])).tolist() == [2.0, math.inf]


def test_bootstrap_has_the_width_of_theory():
    "For a mean the interval is that of the normal law: 2 x 1.96 s / sqrt(n)."
    values = np.random.default_rng(0).normal(30, 2, 400)
    low, high = interval(weighted_mean(values, resamples(400, 2000)))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_over_seeds_leaves_out_what_is_not_there():
    found = over_seeds([{"a": 1.0, "b": None}, {"a": 3.0, "c": math.nan}])
    assert found == {"a": (2.0, 1.0, 3.0, 2)}


# systems

@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    made = PrivacySystem(SystemConfig(guidance=Guidance("pixelate", 12.0), portrait=128,
                                      pose={"width": 0.1875})).eval()
    made.pose.load_state_dict(unaware().state_dict())
    return made


def unaware():
    return PoseEstimator.from_file(shipped("pose.safetensors"))


@pytest.fixture(scope="module")
def scenes():
    return render_scenes(7, 3, 96, (1, 2), "test") + render_scenes(7, 1, 96, (0, 0), "test")


@pytest.fixture(scope="module")
def whole(system, scenes):
    return evaluate_system(system, scenes, unaware(), unaware(), unaware(), times=50)


def test_short_and_full_figures_agree(system, scenes, whole):
    short = evaluate(system, scenes, unaware(), unaware(), control=unaware())
    assert set(short) == {n for n in whole.figures if n.startswith(("psnr", "ssim", "ap50"))}
    for name, value in short.items():
        assert whole.figures[name] == pytest.approx(value, abs=1e-4), name


def test_every_comparison_has_every_measure(whole):
    expected = {f"{m}_{e}" for m in (*NAMES, "pckh") for e in COMPARISONS}
    assert expected <= set(whole.figures) and expected <= set(whole.intervals)
    assert whole.notes["images"] == 4 and whole.notes["skeleton"] == "COCO-17"
    assert [row["people"] for row in whole.images][-1] == 0 and "psnr_op" not in whole.images[-1]


def test_any_data_set_will_do(system, scenes, whole):
    class Data:
        def __len__(self):
            return len(scenes)

        def __getitem__(self, i):
            return Sample(**{**vars(scenes[i]), "name": f"{i}.jpg"})

    made = evaluate_system(system, Data(), unaware(), unaware(), unaware(), times=50)
    quick = {n: v for n, v in made.figures.items() if not n.startswith("fps_")}
    assert quick == {n: v for n, v in whole.figures.items() if not n.startswith("fps_")}
    assert [row["name"] for row in made.images] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_pictures_of_unequal_size(system):
    data = [*render_scenes(7, 1, 96, (1, 1), "test"), *render_scenes(7, 1, 128, (1, 1), "test")]
    assert evaluate_system(system, data, times=5).notes["images"] == 2


def test_no_picture_and_nobody(system):
    with pytest.raises(ValueError, match="data"):
        evaluate_system(system, [])
    made = evaluate_system(system, render_scenes(7, 1, 96, (0, 0), "test"), times=5)
    assert math.isnan(made.figures["ap50_p"]) and not made.intervals


def test_without_recoverer(scenes):
    made = PrivacySystem(SystemConfig(pose={"width": 0.125}), recoverer=False).eval()
    figures = evaluate_system(made, scenes[:1], times=5).figures
    assert not [name for name in figures if name.endswith("_r") or name == "psnr_or"]
    assert set(look(made, scenes[0], {"joint": made.pose}).found) == {"p", "o"}


def test_json_keeps_infinity_and_what_is_not_a_number(tmp_path):
    images = [{"name": "a", "people": 1, "psnr_oa": math.inf}, {"name": "b", "people": 0}]
    figures, intervals = summarise(images, {}, times=20)
    made = Evaluation({**figures, "ap50_p": math.nan}, intervals, images, {}, {})
    text = save_evaluation(made, tmp_path / "e.json").read_text()
    again = evaluation_from(json.loads(text, parse_constant=pytest.fail))
    assert again.figures["psnr_oa"] == math.inf and math.isnan(again.figures["ap50_p"])
    assert again.images == images and again.intervals == intervals
    with pytest.raises(ImageError, match="exists"):
        save_evaluation(made, tmp_path / "e.json")
    with pytest.raises(ValueError, match="figures"):
        evaluation_from({})


def test_matches_through_json():
    matches = joined([match(*image(np.random.default_rng(i))) for i in range(3)])
    again = matches_from(json.loads(json.dumps(matches.to_dict())))
    assert all(np.array_equal(getattr(again, k), v) for k, v in vars(matches).items())


def test_differences(whole, system, scenes):
    gain, ends = difference(whole, "ap50_o", whole, "ap50_o_pre", times=50)
    assert gain == 0 and ends == (0.0, 0.0)
    change, (low, high) = difference(whole, "psnr_or", whole, "psnr_op", times=50)
    assert low <= change <= high and change == pytest.approx(
        whole.figures["psnr_or"] - whole.figures["psnr_op"])
    other = evaluate_system(system, scenes[:2], times=5)
    with pytest.raises(ValueError, match="other"):
        difference(whole, "ap50_p", other, "ap50_p")
    for part in (replace(whole, images=[{**row, "name": f"{row['name']}x"} for row in whole.images]),
                 replace(whole, matches={k: replace(m, joints=m.joints + 1) for k, m in whole.matches.items()})):
        with pytest.raises(ValueError, match="other: was taken on other images"):
            difference(whole, "ssim_op", part, "ssim_op")
    assert difference(whole, "ssim_op", replace(whole, matches={}), "ssim_op", times=5)[0] == 0
