"The command line on bad input: one line a failure, the others done, nothing half-written."
import errno
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from privnb import cli, config, pose, trainer
from privnb.choice import estimator_from, maker_of
from privnb.cli import main
from privnb.clips import ClipWriter
from privnb.finding import PROTECT
from privnb.images import ImageError, load_image, read_metadata, save_image
from privnb.paths import boxes_for, read_boxes, targets
from privnb.pose import PoseEstimator, Prediction
from privnb.runs import train_config
from privnb.scenes import make_scene
from privnb.system import PrivacySystem, SystemConfig
from privnb.tracks import Covering
from privnb.weights import shipped

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"width": 0.1, "depth": 0.1}
TINY = SystemConfig(portrait=64, pose=SMALL, options={"width": 8})


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    "A tiny untrained system's folder."
    torch.manual_seed(0)
    return PrivacySystem(TINY).save(tmp_path_factory.mktemp("systems") / "mine")


@pytest.fixture(scope="module")
def scene():
    return make_scene(3, 0, size=96, people=(2, 2), split="test")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(scene, path, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(path, **options)
    return str(path)


def coco(path, boxes, size=None):
    "A COCO file: name -> boxes xyxy; returns its path."
    images, marks = [], []
    for number, (name, rows) in enumerate(boxes.items()):
        extent = dict(zip(("width", "height"), size)) if size else {}
        images.append({"id": number, "file_name": name, **extent})
        for x0, y0, x1, y1 in np.asarray(rows, float).reshape(-1, 4):
            marks.append({"image_id": number, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    Path(path).write_text(json.dumps({"images": images, "annotations": marks}))
    return str(path)


def run(capsys, *arguments):
    "Exit status and the lines of standard error."
    capsys.readouterr()
    status = main([str(a) for a in arguments])
    return status, capsys.readouterr().err.splitlines()


def left(folder):
    "Every file below a folder, hidden ones too."
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


# files that cannot be read

def test_bad_files_get_one_line_each_and_the_good_one_is_done(place, scene, mine, capsys):
    good = picture(scene, "in/good.png")
    whole = Path(good).read_bytes()
    broken = {"cut.png": whole[: len(whole) // 2], "empty.jpg": b"", "text.jpg": b"no picture at all"}
    for name, content in broken.items():
        Path("in", name).write_bytes(content)
    Path("folder.png").mkdir()
    boxes = coco("boxes.json", {"good.png": scene.boxes})
    status, lines = run(capsys, "enhance", "in/*", "gone.jpg", "nothing/*.png", "folder.png",
                        "--out", "out", "--boxes", boxes, "--system", mine)
    assert status == 1 and left("out") == ["good.png"]
    causes = {"in/cut.png": "truncated", "in/empty.jpg": "empty", "in/text.jpg": "not a picture",
              "gone.jpg": "no such file", "nothing/*.png": "no picture found", "folder.png": "no picture"}
    assert len(lines) == len(causes)
    for name, cause in causes.items():
        assert any(line.startswith(f"privnb: {name}: ") and cause in line for line in lines), lines


def test_a_broken_clip_costs_only_itself(place, scene, mine, capsys):
    good = picture(scene, "good.png")
    Path("bad.mp4").write_bytes(b"no clip at all")
    status, lines = run(capsys, "enhance", "bad.mp4", good, "--out", "out", "--system", mine,
                        "--boxes", coco("boxes.json", {"good.png": scene.boxes}))
    assert status == 1 and left("out") == ["good.png"]
    assert len(lines) == 1 and lines[0].startswith("privnb: bad.mp4: ")
    status, lines = run(capsys, "recover", "bad.mp4", "--out", "back")
    assert status == 1 and "--key" in lines[0]


def test_an_unreadable_folder_costs_only_itself(place, scene, mine, capsys, monkeypatch):
    picture(scene, "open/a.png")
    picture(scene, "closed/b.png")
    listing = Path.iterdir

    def refused(path):
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    status, lines = run(capsys, "enhance", "closed", "open", "--out", "out", "--system", mine,
                        "--boxes", coco("boxes.json", {"a.png": scene.boxes}))
    assert (status, lines) == (1, ["privnb: closed: permission denied"])
    assert left("out") == ["a.png"]


def kinds(rgb):
    "The same picture in every mode that is likely to come, name -> bytes."
    image = Image.fromarray(rgb)
    alpha = image.copy()
    alpha.putalpha(Image.new("L", image.size, 255))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6  # shown after a quarter turn clockwise
    turned[0x010F] = "A camera"
    made = {"deep.png": (deep, {}), "grey.png": (image.convert("L"), {}),
            "palette.png": (image.convert("P"), {}), "alpha.png": (alpha, {}),
            "cmyk.jpg": (image.convert("CMYK"), {"quality": 95}),
            "turned.jpg": (image.transpose(Image.ROTATE_90), {"exif": turned, "quality": 95})}
    for name, (picture_, options) in made.items():
        buffer = io.BytesIO()
        picture_.save(buffer, "PNG" if name.endswith("png") else "JPEG", **options)
        yield name, buffer.getvalue()


def test_every_kind_of_picture_goes_there_and_back(place, scene, mine, capsys):
    Path("in").mkdir()
    for name, content in kinds(scene.image):
        Path("in", name).write_bytes(content)
    boxes = coco("boxes.json", {p.name: scene.boxes for p in Path("in").iterdir()}, (96, 96))
    assert run(capsys, "enhance", "in", "--out", "e", "--boxes", boxes, "--system", mine) == (0, [])
    assert run(capsys, "recover", "e", "--out", "r", "--system", mine) == (0, [])
    assert left("e") == left("r") == sorted(f"{Path(n).stem}.png" for n, _ in kinds(scene.image))
    original = load_image("in/turned.jpg").astype(int)
    assert np.abs(original - scene.image).mean() < 8  # upright: boxes fit what is seen
    with Image.open("e/turned.png") as stored:
        assert not stored.getexif() and stored.mode == "RGB"


def test_an_animation_says_what_is_left_behind(place, scene, mine, capsys):
    first = Image.fromarray(scene.image)
    first.save("a.gif", save_all=True, append_images=[first.rotate(30), first.rotate(60)])
    boxes = coco("boxes.json", {"a.gif": scene.boxes})
    capsys.readouterr()
    assert main(["enhance", "a.gif", "--out", "out", "--system", str(mine), "--boxes", boxes]) == 0
    assert capsys.readouterr().out.rstrip().endswith("; the first of 3 pictures in the file")
    assert left("out") == ["a.png"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (10000, 3, 3), (3, 10000, 3)])
def test_odd_shapes(place, shape, mine, capsys):
    Image.fromarray(np.full(shape, 90, np.uint8)).save("odd.png")
    boxes = coco("boxes.json", {"odd.png": [[0, 0, min(shape[1], 90), min(shape[0], 90)]]})
    status, lines = run(capsys, "enhance", "odd.png", "--out", "out", "--boxes", boxes,
                        "--system", mine)
    assert (status, lines) == (0, [])
    assert load_image("out/odd.png").shape == shape
    assert run(capsys, "recover", "out/odd.png", "--out", "back", "--system", mine)[0] == 0
    status, lines = run(capsys, "enhance", "odd.png", "--out", "looked", "--system", mine)
    assert status == 1 and len(lines) == 1 and lines[0].startswith("privnb: odd.png: no person")


# people and boxes

def test_without_a_person_nothing_is_written_unless_asked(place, mine, capsys):
    Image.fromarray(np.full((80, 80, 3), 120, np.uint8)).save("wall.png")
    common = ("enhance", "wall.png", "--out", "out", "--system", mine)
    status, lines = run(capsys, *common)
    assert status == 1 and "no person found" in lines[0] and not Path("out").exists()
    assert run(capsys, *common, "--allow-empty") == (0, [])
    assert (load_image("out/wall.png") == 120).all()
    assert read_metadata("out/wall.png")["squares"] == []


def test_confidence_decides_who_is_protected(place, scene, mine, capsys, monkeypatch):
    assert PROTECT == Covering.known == cli.parser().parse_args(["enhance", "a.png", "--out", "o"]).confidence

    def estimate(system, image, confidence, sizes=()):
        "Two people: one is sure, the other hardly."
        keep = np.array([0.8, 0.1]) >= confidence
        boxes = torch.tensor([[10.0, 10, 40, 80], [50, 10, 80, 80]])[keep]
        return Prediction(boxes, torch.tensor([0.8, 0.1])[keep], torch.zeros(len(boxes), 17, 3))

    monkeypatch.setattr(PrivacySystem, "estimate", estimate)
    picture(scene, "a.png")
    with ClipWriter("c.mkv", scene.image.shape, crf=0) as writer:
        for _ in range(4):
            writer.write(scene.image)
    for words, people in (((), 2), (("--confidence", 0.05), 2), (("--confidence", 0.5), 1)):
        common = ("--out", f"out{people}", "--system", mine, "--overwrite", "--records", "--quiet",
                  "--pose", "own", *words)
        assert run(capsys, "enhance", "a.png", "c.mkv", *common) == (0, [])
        assert len(read_metadata(f"out{people}/a.png")["squares"]) == people
        lines = [json.loads(line) for line in Path(f"out{people}/c.jsonl").read_text().splitlines()]
        assert [len(line["squares"]) for line in lines] == [people] * 4
    for wrong in ("0", "1", "nan", "-0.1", "half"):
        with pytest.raises(SystemExit) as stopped:
            main(["enhance", "a.png", "--out", "o", "--confidence", wrong])
        assert stopped.value.code == 2 and "from 0.01 to 0.99" in capsys.readouterr().err


def test_boxes_that_do_not_fit_are_refused(place, scene, mine, capsys):
    for name in "abcde":
        picture(scene, f"in/{name}.png")
    boxes = coco("boxes.json", {"a.png": [[200, 200, 240, 260]], "b.png": [[50, 50, 130, 120]],
                                "c.png": [[10, 10, 5, 60]], "d.png": [[float("nan")] * 4]})
    status, lines = run(capsys, "enhance", "in", "--out", "out", "--boxes", boxes, "--system", mine)
    assert status == 1 and len(lines) in (1, 4)
    if len(lines) == 1:  # a number that is none spoils the whole file
        assert lines[0].startswith("privnb: boxes.json") and not Path("out").exists()
        Path("in/d.png").unlink()
        boxes = coco("boxes.json", {"a.png": [[200, 200, 240, 260]], "b.png": [[50, 50, 130, 120]],
                                    "c.png": [[30, 10, 30, 60]]})
        status, lines = run(capsys, "enhance", "in", "--out", "out", "--boxes", boxes, "--system", mine)
    assert status == 1 and left("out") == ["b.png"]
    for name, cause in (("a", "outside"), ("c", ""), ("e", "does not list")):
        assert any(line.startswith(f"privnb: in/{name}.png: ") and cause in line for line in lines)


def test_boxes_of_another_size_or_no_json_are_refused(place, scene, mine, capsys):
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": scene.boxes}, (960, 960))
    status, lines = run(capsys, "enhance", path, "--out", "out", "--boxes", boxes, "--system", mine)
    assert status == 1 and "96 x 96" in lines[0] and "960 x 960" in lines[0]
    Path("boxes.json").write_text("{")
    status, lines = run(capsys, "enhance", path, "--out", "out", "--boxes", boxes, "--system", mine)
    assert status == 1 and len(lines) == 1 and lines[0].startswith("privnb: boxes.json: ")


def test_boxes_are_matched_by_the_longest_common_path(tmp_path):
    known = read_boxes(coco(tmp_path / "b.json", {"one/a.jpg": [[0, 0, 5, 5]], "two/a.jpg": [[1, 1, 6, 6]],
                                                  "skimage:s.png": [[2, 2, 7, 7]]}))
    assert boxes_for(tmp_path / "two/a.jpg", (9, 9, 3), known)[0, 0] == 1
    assert boxes_for(tmp_path / "s.png", (9, 9, 3), known)[0, 0] == 2
    with pytest.raises(ImageError, match="2 pictures"):
        boxes_for(tmp_path / "three/a.jpg", (9, 9, 3), known)  # whose boxes would they be?


def test_clips_beside_a_file_of_boxes_are_refused(place, scene, mine, capsys):
    path, boxes = picture(scene, "a.png"), coco("boxes.json", {"a.png": scene.boxes})
    Path("c.mp4").write_bytes(b"never opened")
    status, lines = run(capsys, "enhance", path, "c.mp4", "--out", "out", "--boxes", boxes, "--system", mine)
    assert status == 1 and len(lines) == 1 and lines[0].startswith("privnb: c.mp4: --boxes is for photographs")
    assert left("out") == ["a.png"]


def test_crowds_are_protected_and_dogs_are_not(tmp_path):
    content = {"images": [{"id": 1, "file_name": "a.jpg"}],
               "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
               "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
                               {"image_id": 1, "category_id": 18, "bbox": [3, 3, 9, 9]}]}
    (tmp_path / "b.json").write_text(json.dumps(content))
    (_, _, boxes), = read_boxes(tmp_path / "b.json")
    assert boxes.tolist() == [[0, 0, 9, 9]]


def test_a_tiny_person_is_filled(place, scene, mine, capsys):
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": [[20, 20, 28, 34]]})
    assert run(capsys, "enhance", path, "--out", "out", "--boxes", boxes, "--system", mine) == (0, [])
    stored = load_image("out/a.png")
    assert len(np.unique(stored[20:34, 20:28].reshape(-1, 3), axis=0)) == 1
    assert main(["recover", "out/a.png", "--out", "back", "--system", str(mine)]) == 0
    assert (load_image("back/a.png")[20:34, 20:28] == stored[20, 20]).all()


def test_the_detector_is_asked_without_boxes(place, scene, mine, capsys, monkeypatch):
    found = torch.from_numpy(scene.boxes).float()
    monkeypatch.setattr(PrivacySystem, "estimate", lambda self, image, confidence: Prediction(
        found, torch.ones(len(found)), torch.zeros(len(found), 17, 3)))
    path, own = picture(scene, "a.png"), ("--system", mine, "--pose", "own")
    assert run(capsys, "enhance", path, "--out", "out", *own) == (0, [])
    assert len(read_metadata("out/a.png")["squares"]) == len(found)


def test_two_estimators_look_unless_one_is_named(place, scene, mine, capsys, monkeypatch):
    monkeypatch.setattr(PrivacySystem, "estimate", lambda self, image, confidence: Prediction(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 17, 3)))
    path = picture(scene, "a.png")
    status, lines = run(capsys, "enhance", path, "--out", "own", "--system", mine, "--pose", "own")
    assert status == 1 and "no person" in lines[0] and not Path("own/a.png").exists()
    assert run(capsys, "enhance", path, "--out", "both", "--system", mine) == (0, [])
    assert len(read_metadata("both/a.png")["squares"]) == len(scene.boxes)


# outputs

def test_names_never_collide():
    inputs = [Path(p) for p in ("a.jpg", "a.png", "b/a.jpg", "B/A.bmp", "a_2.jpg")]
    names = [p.name.lower() for p in targets(inputs, "out").values()]
    assert len(set(names)) == len(inputs)


def test_equal_stems_are_both_kept(place, scene, mine, capsys):
    picture(scene, "in/a.png")
    picture(scene, "in/a.bmp")
    boxes = coco("boxes.json", {"a.png": scene.boxes, "a.bmp": scene.boxes})
    assert run(capsys, "enhance", "in", "in/a.png", "./in/a.png", "--out", "out", "--boxes", boxes,
               "--system", mine) == (0, [])
    assert left("out") == ["a.png", "a_2.png"]


def test_existing_outputs_are_kept_and_inputs_never_replaced(place, scene, mine, capsys):
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": scene.boxes, "b.png": scene.boxes})
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"mine")
    common = ("--boxes", boxes, "--system", mine)
    status, lines = run(capsys, "enhance", path, picture(scene, "b.png"), "--out", "out", *common)
    assert status == 1 and "is kept" in lines[0] and Path("out/a.png").read_bytes() == b"mine"
    assert left("out") == ["a.png", "b.png"]
    assert run(capsys, "enhance", path, "--out", "out", "--overwrite", *common) == (0, [])
    assert load_image("out/a.png").shape == (96, 96, 3)
    before = Path(path).read_bytes()
    status, lines = run(capsys, "enhance", path, "--out", ".", "--overwrite", *common)
    assert status == 1 and "one of the inputs" in lines[0] and Path(path).read_bytes() == before


@pytest.mark.parametrize("error, status", [(OSError(errno.ENOSPC, "No space left on device"), 1),
                                           (KeyboardInterrupt(), 130)])
def test_a_full_disk_and_an_interrupt_leave_nothing_half_written(
        place, scene, mine, capsys, monkeypatch, error, status):
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": scene.boxes})
    write = Path.write_bytes

    def half(self, content):
        write(self, content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    came, lines = run(capsys, "enhance", path, "--out", "out", "--boxes", boxes, "--system", mine)
    assert came == status and len(lines) == 1 and left("out") == []
    assert status == 130 or "no space left" in lines[0] and "a.png" in lines[0]


def test_an_out_that_is_no_folder(place, scene, mine, capsys):
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": scene.boxes})
    for out in ("a.png", "a.png/below"):
        status, lines = run(capsys, "enhance", path, "--out", out, "--boxes", boxes, "--system", mine)
        assert status == 1 and len(lines) == 1 and lines[0].startswith("privnb: ")


def test_what_nobody_foresaw_is_one_line_with_its_type(place, scene, mine, capsys, monkeypatch):
    def broken(self, image, boxes, confidence):
        raise MemoryError("too\nmuch")

    monkeypatch.setattr(PrivacySystem, "enhance", broken)
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": scene.boxes})
    common = ("enhance", path, "--out", "out", "--boxes", boxes, "--system", mine)
    assert run(capsys, *common) == (1, ["privnb: a.png: MemoryError: too much"])
    assert any("Traceback" in line for line in run(capsys, *common, "--debug")[1])


# recovery

def test_foreign_and_changed_pictures_are_refused(place, scene, mine, capsys):
    path = picture(scene, "a.png")
    boxes = coco("boxes.json", {"a.png": scene.boxes})
    main(["enhance", path, "--out", "e", "--boxes", boxes, "--system", str(mine)])
    torch.manual_seed(1)
    other = PrivacySystem(TINY).save("other")
    touched = load_image("e/a.png")
    touched[0, 0] ^= 1
    save_image(touched, "e/touched.png", metadata=read_metadata("e/a.png"))
    save_image(touched, "e/odd.png", metadata={"system": 3, "squares": "x", "digest": None})
    status, lines = run(capsys, "recover", path, "e/touched.png", "e/odd.png", "--out", "r", "--system", mine)
    assert status == 1 and not Path("r").exists()
    assert [line.split(": ")[1] for line in lines] == ["a.png", "e/touched.png", "e/odd.png"]
    status, lines = run(capsys, "recover", "e/a.png", "--out", "r", "--system", other)
    assert status == 1 and "another system" in lines[0]
    assert run(capsys, "recover", "e/touched.png", "--changed", "--out", "r", "--system", mine) == (0, [])


# weights

def test_cut_and_foreign_weights_stop_with_one_line(place, scene, mine, capsys):
    path = picture(scene, "a.png")
    torch.manual_seed(0)
    folder = PrivacySystem(TINY).save("cut")
    for part in ("enhancer", "pose"):
        file = folder / f"{part}.safetensors"
        whole = file.read_bytes()
        for content, cause in ((whole[: len(whole) // 2], "cut"),
                               (Path(mine, "recoverer.safetensors").read_bytes(), "architecture"), (b"", "cut")):
            file.write_bytes(content)
            status, lines = run(capsys, "enhance", path, "--out", "out", "--system", folder)
            assert status == 1 and len(lines) == 1 and not Path("out").exists()
            assert lines[0].startswith(f"privnb: {file}: ") and cause in lines[0]
        file.write_bytes(whole)
    (folder / "recoverer.safetensors").unlink()
    assert "recoverer.safetensors" in run(capsys, "recover", path, "--out", "r", "--system", folder)[1][0]
    (folder / "config.json").write_text("[]")
    for system in (folder, "nowhere"):
        status, lines = run(capsys, "enhance", path, "--out", "out", "--system", system)
        assert status == 1 and len(lines) == 1 and str(system) in lines[0]


def test_pose_weights_of_ours_bring_their_own_architecture(tmp_path, mine):
    torch.manual_seed(0)
    PoseEstimator.build(width=0.15, depth=0.1).save_weights(tmp_path / "pose.safetensors")
    ours = estimator_from(tmp_path / "pose.safetensors", {"width": 0.1, "depth": 0.1})
    assert ours.config["width"] == 0.15 and not ours.training
    assert estimator_from(Path(mine) / "pose.safetensors").config["width"] == 0.1
    Path(tmp_path / "cut.safetensors").write_bytes((tmp_path / "pose.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.safetensors: damaged"):
        estimator_from(tmp_path / "cut.safetensors")


class Shout:
    def __reduce__(self):
        return print, ("the pickle ran",)


def test_the_pretrained_estimator_has_a_name(place, scene, mine, capsys):
    found = estimator_from("pretrained").state_dict()
    kept = PoseEstimator.from_file(shipped("pose.safetensors")).state_dict()
    assert all(torch.equal(found[name], value) for name, value in kept.items())
    path = picture(scene, "a.png")
    assert run(capsys, "enhance", path, "--out", "out", "--pose", "pretrained")[0] == 0
    assert run(capsys, "recover", "out/a.png", "--out", "back")[0] == 0
    status, lines = run(capsys, "enhance", path, "--out", "out", "--pose", "retrained")
    assert status == 1 and "unknown ending" in lines[0]


def test_a_strangers_pickle_is_announced_before_it_is_loaded(place, scene, mine, capfd):
    torch.save({"model": Shout()}, "mine.pt")
    path = picture(scene, "a.png")
    assert main(["enhance", path, "--out", "out", "--system", str(mine), "--pose", "mine.pt"]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("privnb: mine.pt: a .pt file is a pickle")
    assert lines[-1].startswith("privnb: mine.pt: damaged, or no pose weights")


def test_a_published_name_is_never_run_as_a_pickle(place, capfd):
    torch.save({"model": Shout()}, "yolov8n-pose.pt")
    with pytest.raises(ValueError, match="yolov8n-pose.pt"):
        estimator_from("yolov8n-pose.pt")
    assert "the pickle ran" not in capfd.readouterr().out


def test_published_weights_are_fetched_only_when_asked(place, monkeypatch):
    with pytest.raises(ValueError, match="fetches nothing by itself.*--fetch"):
        estimator_from("yolov8n-pose.pt")
    Path("far").mkdir()
    Path("far/yolov8n-pose.pt").write_bytes(b"not weights")
    monkeypatch.setattr(pose, "ADDRESS", (place / "far").as_uri() + "/")
    with pytest.raises(ValueError, match="damaged"):
        estimator_from("yolov8n-pose", fetch=True)
    assert Path("yolov8n-pose.pt").read_bytes() == b"not weights"
    with pytest.raises(ValueError, match="cannot be fetched.*by hand"):
        estimator_from("yolov8s-pose", fetch=True)


# runs

def test_presets_and_guidances_are_those_of_the_trainer():
    from privnb.guidance import GUIDANCE_KINDS

    assert set(cli.PRESETS) == set(config.PRESETS)
    assert set(cli.GUIDANCES) == set(GUIDANCE_KINDS)


@pytest.mark.parametrize("arguments", [
    [], ["fly"], ["enhance"], ["enhance", "a.png"], ["train"], ["evaluate"],
    ["train", "--out", "x", "--radius", "-1"], ["train", "--out", "x", "--radius", "nan"],
    ["train", "--out", "x", "--preset", "huge"], ["train", "--out", "x", "--steps", "0"],
    ["evaluate", "default", "--scenes", "many"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage" in capsys.readouterr().err


def test_help_is_light():
    code = ("import sys\nfrom privnb.cli import main\n"
            "try: main(['enhance', '--help'])\nexcept SystemExit: pass\n"
            "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "EXIF" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def few():
    "A smoke configuration that needs no shipped weights."
    smoke = config.preset("smoke", "blur", 6.0, pretrained="", pretrain_steps=2)
    return replace(smoke, system=replace(smoke.system, pose=SMALL, options={"width": 8}),
                   test_scenes=2)


KEYS = {f"{kind}_o{view}" for kind in ("psnr", "ssim") for view in "apr"} | {
    "ap50_p", "ap50_r", "ap50_o", "ap50_o_pre", "ap50_p_unaware", "ap50_a_unaware",
    "ap50_p_conventional", "ap50_o_control"}


def test_train_resume_evaluate(place, few, capsys):
    Path("few.json").write_text(json.dumps(few.to_dict()))
    common = ("train", "--config", "few.json", "--quiet")
    assert run(capsys, *common, "--out", "whole")[0] == 0
    whole = [json.loads(line) for line in Path("whole/history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in whole] == [1, 2, 3, 4]
    runner = trainer.JointTrainer(few, "parts", progress=False)
    runner.train(until=2)
    assert run(capsys, *common, "--out", "parts")[0] == 0
    for name in ("enhancer", "recoverer", "pose"):
        one, two = (load_file(Path(folder, f"{name}.safetensors")) for folder in ("whole", "parts"))
        assert set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)
    status, lines = run(capsys, *common, "--seed", "5", "--out", "whole")
    assert status == 1 and len(lines) == 1 and "another run" in lines[0]
    common = ("evaluate", "whole", "--json", "figures.json", "--scenes", "2", "--quiet")
    assert run(capsys, *common)[0] == 0
    figures = json.loads(Path("figures.json").read_text())
    assert KEYS <= set(figures) and figures["scenes"] == 2
    assert figures["psnr_op"] > 5 and 0 <= figures["ssim_or"] <= 1
    status, lines = run(capsys, *common)
    assert status == 1 and "figures.json" in lines[0] and "is kept" in lines[0]
    assert run(capsys, "train", "--config", "whole/config.json", "--out", "whole", "--quiet")[0] == 0


@pytest.mark.parametrize("kind", ["coco", "mpii"])
def test_the_paper_preset_runs_on_data_sets(place, capsys, kind):
    "From start to figures, on miniatures in the real formats and at a fraction of the size."
    data = {"coco": miniatures.write_coco, "mpii": miniatures.write_mpii}[kind]
    data("people")
    assert main(["data", "check", f"{kind}:people"]) == 0
    assert f"{kind} of {kind.upper()}" in capsys.readouterr().out
    common = ("--quiet", "--accelerator", "cpu", "--guidance", "pixelate", "--radius", "12")
    assert run(capsys, "train", "--preset", "paper", "--data", f"{kind}:people", "--size", "64",
               "--batch", "2", "--steps", "1", "--pretrain-steps", "1", "--out", "made",
               *common)[0] == 0
    assert KEYS <= set(json.loads(Path("made/metrics.json").read_text()))
    joints = {"coco": 17, "mpii": 16}[kind]
    system = PrivacySystem.load("made")
    assert system.pose.config["keypoints"] == joints and system.config.generator == "unet7"
    shown = make_scene(1, 0, size=96, people=(1, 1))
    protected = system.enhance(shown.image, shown.boxes)
    assert system.recover(protected.image, protected.record).shape == shown.image.shape


def test_other_joints_need_other_weights(place, capsys):
    miniatures.write_mpii("people")
    status, lines = run(capsys, "train", "--preset", "smoke", "--data", "mpii:people", "--quiet",
                        "--out", "made")
    assert status == 1 and "pretrained: pose.safetensors has 17 joints" in lines[0]


def test_data_check_tells_what_is_missing(place, capsys):
    assert run(capsys, "data", "check", "nowhere")[0] == 1
    miniatures.write_coco("people")
    next(Path("people/train2017").iterdir()).unlink()
    assert main(["data", "check", "coco:people"]) == 1
    assert "train2017" in capsys.readouterr().out


def test_a_strength_that_was_not_trained_is_refused(place, capsys):
    status, lines = run(capsys, "demo", "--system", "single", "--guidance", "blur",
                        "--radius", "3", "--out", "shown")
    assert status == 1 and "trained for pixelate 12 only" in lines[0]


def test_an_interrupted_run_is_130_and_goes_on(place, few, capsys, monkeypatch):
    Path("few.json").write_text(json.dumps(few.to_dict()))
    step = trainer.JointTrainer._joint_step

    def stopped(self, *arguments):
        if self.step == 2:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.JointTrainer, "_joint_step", stopped)
        assert run(capsys, "train", "--config", "few.json", "--out", "run", "--quiet")[0] == 130
    assert not Path("run/enhancer.safetensors").exists()
    assert run(capsys, "train", "--config", "few.json", "--out", "run", "--quiet")[0] == 0


def test_configurations_are_changed_by_what_is_named(tmp_path, few, capsys):
    parse = cli.parser().parse_args
    config = train_config(parse(["train", "--out", "x", "--preset", "smoke", "--guidance", "blur",
                                 "--radius", "5", "--seed", "3", "--steps", "9"]))
    assert (config.seed, config.steps, config.system.guidance.radius) == (3, 9, 5)
    (tmp_path / "t.json").write_text(json.dumps({"train": few.to_dict()}))
    arguments = ["train", "--out", "x", "--config", str(tmp_path / "t.json")]
    assert train_config(parse(arguments)) == few
    assert train_config(parse([*arguments, "--radius", "2"])).system.guidance.radius == 2
    (tmp_path / "t.json").write_text("{}")
    assert run(capsys, *arguments)[1][0].startswith(f"privnb: {tmp_path / 't.json'}: ")


# the demonstration

def test_both_copies_of_the_photographs_annotations_are_equal():
    one, two = (ROOT / p for p in ("privnb/assets/photographs.json", "data_samples/photographs.json"))
    assert one.read_bytes() == two.read_bytes()


def test_demo_on_photographs_of_ones_own(place, scene, mine, capsys):
    picture(scene, "in/a.png")
    Path("in/b.png").write_bytes(b"")
    boxes = coco("boxes.json", {"a.png": scene.boxes})
    common = ("demo", "in", "--boxes", boxes, "--system", mine, "--side", "64")
    status, lines = run(capsys, *common)
    assert status == 1 and lines == ["privnb: in/b.png: the file is empty"]
    assert left("demo_out") == ["enhanced/a.png", "grid.png", "metrics.json", "recovered/a.png"]
    content = json.loads(Path("demo_out/metrics.json").read_text())
    entry, = content["images"]
    assert (entry["people_by_detector"], entry["people_by_annotation"]) == (0, len(scene.boxes))
    assert entry["psnr_op"] < entry["psnr_or"] or entry["ssim_op"] is not None
    assert load_image("demo_out/enhanced/a.png").shape == (64, 64, 3)
    status, lines = run(capsys, *common)
    assert status == 1 and "holds a demonstration already" in lines[0]
    assert run(capsys, *common, "--overwrite")[0] == 1
    assert run(capsys, "demo", "in/b.png", "--out", "none", "--system", mine)[0] == 1
    assert not Path("none").exists()


@pytest.mark.skipif(not shipped().is_dir(), reason="the weights of the package are not there yet")
def test_where_no_system_is_named_the_default_is_meant_and_the_record_names_it(place, capsys):
    from privnb.metrics import psnr
    scene = make_scene(4, 1, size=224, people=(1, 1), split="test")
    path, boxes = picture(scene, "a.png"), coco("boxes.json", {"a.png": scene.boxes})
    status, lines = run(capsys, "enhance", path, "--guidance", "blur", "--radius", "8",
                        "--boxes", boxes, "--out", "out")
    record = read_metadata("out/a.png")
    assert status == 0 and record["system"] == PrivacySystem.load("continuous").fingerprint()
    assert run(capsys, "recover", "out/a.png", "--out", "back")[0] == 0
    x, r = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255
            for image in (scene.image, load_image("back/a.png")))
    assert psnr(x, r) > 35
    assert run(capsys, "recover", "out/a.png", "--out", "no", "--system", "single")[0] == 1
    assert maker_of({"system": "0" * 16}) == maker_of(None) == "continuous"
    for name in ("continuous", "single", "leakfree"):
        assert maker_of({"system": PrivacySystem.load(name).fingerprint()}) == name
    assert PrivacySystem.load("default").fingerprint() == record["system"]


def test_shipped_weights_protect_and_recover_a_rendered_scene(place, capsys):
    scene = make_scene(77, 3, size=224, people=(2, 2), split="test")
    boxes = coco("boxes.json", {"a.png": scene.boxes})
    picture(scene, "a.png")
    assert run(capsys, "demo", "a.png", "--boxes", boxes) == (0, [])
    entry, = json.loads(Path("demo_out/metrics.json").read_text())["images"]
    assert entry["psnr_op"] <= entry["psnr_oa"] + 1 and entry["ssim_op"] <= entry["ssim_oa"] + 0.05
    assert entry["psnr_or"] >= 30 and entry["ssim_or"] >= 0.9


def test_export_writes_checked_files_and_overwrites_nothing(tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert cli.main(["export", "single", "--part", "guidance", "--dynamic", "--out",
                     str(tmp_path)]) == 0
    path = tmp_path / "guidance.onnx"
    assert "guidance.onnx" in capsys.readouterr().out
    assert onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    before = path.read_bytes()
    assert cli.main(["export", "single", "--part", "guidance", "--out", str(tmp_path)]) == 1
    assert "guidance.onnx" in capsys.readouterr().err and path.read_bytes() == before


def test_export_writes_the_estimator_that_is_named(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    made = {}
    for name in ("own", "pretrained"):
        assert cli.main(["export", "single", "--part", "pose", "--pose", name, "--dynamic", "--out",
                         str(tmp_path / name)]) == 0
        made[name] = onnx.load(tmp_path / name / "pose.onnx").graph.initializer
    assert {len(parts) for parts in made.values()} == {len(made["own"])}
    same = [a.raw_data == b.raw_data for a, b in zip(made["own"], made["pretrained"])]
    assert not all(same)
    assert cli.main(["export", "single", "--part", "pose", "--pose", "nobody.safetensors",
                     "--out", str(tmp_path / "x")]) == 1
    assert "nobody.safetensors: no such file" in capsys.readouterr().err


def test_lab_copies_the_course_once(tmp_path, capsys):
    folder = tmp_path / "course"
    assert cli.main(["lab", str(folder)]) == 0
    assert list(folder.rglob("*.ipynb"))
    assert cli.main(["lab", str(folder)]) == 1
    assert str(folder) in capsys.readouterr().err


def test_a_key_brings_back_every_bit_and_another_key_nothing(place, scene, mine, capsys):
    picture(scene, "in/a.png")
    for name in ("ann", "bob"):
        assert main(["keys", "new", "--out", name, "--no-passphrase"]) == 0
    ann, bob = (next(p for p in Path(name).iterdir() if p.suffix != ".pub") for name in ("ann", "bob"))
    assert main(["enhance", "in", "--out", "e", "--system", str(mine), "--seal-to", "ann", "--boxes",
                 coco("boxes.json", {"a.png": scene.boxes})]) == 0
    enhanced = np.asarray(Image.open("e/a.png"))
    assert Path("e/a.seal").exists() and not np.array_equal(enhanced, scene.image)
    assert main(["recover", "e/a.png", "--out", "r", "--key", str(ann)]) == 0
    assert np.array_equal(np.asarray(Image.open("r/a.png")), scene.image)
    capsys.readouterr()
    assert main(["recover", "e/a.png", "--out", "s", "--key", str(bob)]) == 1
    assert "a.png" in capsys.readouterr().err and not list(Path("s").glob("*.png"))
    assert main(["audit", "r/audit.log"]) == 0


def test_a_found_box_stands_for_one_person():
    from privnb.demo import Photograph, find_people
    drawn = np.array([[0, 0, 10, 20], [8, 0, 20, 20]], np.float32)
    picture = Photograph("two.png", np.zeros((30, 30, 3), np.uint8), drawn)
    boxes, found, added = find_people(picture, [[0, 0, 20, 20]])
    assert (len(boxes), found, added) == (2, 1, 1)
    assert any((box == person).all() for box in boxes for person in drawn)
