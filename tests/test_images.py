"Odd picture files, writing whole or not at all, metadata, gradients and grids."
import errno
import json
import os
import stat
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import privnb.images as images
from privnb.images import (COCO_SKELETON, FLIP_INDEX, ImageError, draw_pose, jpeg_round_trip,
                           load_image, picture_count, quantize, read_metadata, save_image,
                           show_grid, to_tensor, to_uint8, write_file)

few = settings(max_examples=25, deadline=None)


def pixels(height=12, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def refused(path):
    "The one line with which a file is refused; it begins with the file."
    with pytest.raises(ImageError) as caught:
        load_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


# reading

@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm"])
def test_every_common_format_is_read(tmp_path, ending):
    flat = np.full((9, 7, 3), (200, 60, 20), np.uint8)
    Image.fromarray(flat).save(tmp_path / f"a.{ending}")
    found = load_image(tmp_path / f"a.{ending}")
    assert found.shape == flat.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - flat).max() <= 6


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, ending):
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None].repeat(2, 0)
    Image.fromarray(ramp).save(tmp_path / f"a.{ending}")
    assert (load_image(tmp_path / f"a.{ending}")[..., 1] == np.arange(256)).all()


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point_pictures(tmp_path, top):
    ramp = np.linspace(0, top, 256, dtype=np.float32)[None].repeat(2, 0)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert np.abs(load_image(tmp_path / "a.tif")[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    ramp[0, 0] = np.nan
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert load_image(tmp_path / "a.tif")[1, 255, 0] == 255
    assert load_image(tmp_path / "a.tif")[0, 0].tolist() == [0, 0, 0]


def test_one_bit_grey_and_palette(tmp_path):
    grey = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    Image.fromarray(grey).save(tmp_path / "l.png")
    assert (load_image(tmp_path / "l.png") == grey[..., None]).all()
    Image.fromarray(grey > 99).save(tmp_path / "1.png")
    assert (load_image(tmp_path / "1.png")[0, :, 2] == np.where(grey[0] > 99, 255, 0)).all()
    indexed = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(tmp_path / "p.png")
    assert load_image(tmp_path / "p.png").tolist() == [[[255, 0, 0], [0, 255, 0]],
                                                       [[0, 0, 255], [0, 255, 0]]]


def test_transparency_is_laid_over_white(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(tmp_path / "p.png", transparency=0)
    assert load_image(tmp_path / "p.png").tolist() == [[[255] * 3, [40, 50, 60]]]
    rgba = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert load_image(tmp_path / "rgba.png")[0, :, 0].tolist() == [255, 0, 127]
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")
    assert load_image(tmp_path / "la.png")[0, :, 1].tolist() == [255, 0, 127]


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red = load_image(tmp_path / "a.jpg")[8, 8]
    assert red[0] > 240 and red[1:].max() < 15


@pytest.mark.parametrize("flag", range(1, 9))
def test_exif_orientation(tmp_path, flag):
    "Each flag says how the stored picture has to be turned; the upright one is known."
    upright = pixels(12, 20)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1),
              7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1)}[flag]
    exif = Image.Exif()
    exif[0x0112] = flag
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert (load_image(tmp_path / "a.png") == upright).all()


@pytest.mark.parametrize("shape", [(1, 1), (10000, 3), (3, 10000)])
def test_extreme_sizes(tmp_path, shape):
    image = pixels(*shape)
    save_image(image, tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == image).all()
    assert (to_uint8(to_tensor(image))[0] == image).all()


def test_refusals_name_the_cause(tmp_path):
    assert refused(tmp_path / "absent.png") == "no such file or folder"
    (tmp_path / "empty.png").touch()
    assert refused(tmp_path / "empty.png") == "the file is empty"
    assert refused(tmp_path) == "is a folder, not a picture file"
    (tmp_path / "text.png").write_text("hello")
    assert refused(tmp_path / "text.png") == "not a picture that can be read"
    assert refused(tmp_path / "text.png" / "deeper.png") == "not a directory"
    assert refused(tmp_path / ("n" * 300)) == "file name too long"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif"])
def test_cut_files_are_refused(tmp_path, ending):
    Image.fromarray(pixels(64, 64)).save(tmp_path / f"a.{ending}")
    content = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"a.{ending}").write_bytes(content[:len(content) // 2])
    refused(tmp_path / f"a.{ending}")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    save_image(pixels(), tmp_path / "a.png")
    assert "decompression bomb" in refused(tmp_path / "a.png")


@few
@given(garbage=st.binary(min_size=1, max_size=80), head=st.sampled_from(
    [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF....WEBP", b"BM", b"GIF89a", b"II*\0"]))
def test_garbage_is_refused_or_read(tmp_path_factory, garbage, head):
    path = tmp_path_factory.mktemp("g") / "a"
    path.write_bytes(head + garbage)
    try:
        assert load_image(path).shape[2] == 3
    except ImageError as error:
        assert "\n" not in str(error)


# tensors

@few
@given(height=st.integers(1, 9), width=st.integers(1, 9), n=st.integers(1, 3), seed=st.integers(0, 99))
def test_bytes_survive_the_tensor(height, width, n, seed):
    batch = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    x = to_tensor(batch)
    assert (to_uint8(x) == batch).all() and (to_uint8(x[0]) == batch[0]).all()
    assert (to_uint8(x.half()) == batch).all() and (to_uint8(x.double()) == batch).all()
    assert torch.equal(quantize(quantize(x)), quantize(x))


def test_tensor_shapes_are_checked():
    for array in (np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="array"):
            to_tensor(array)
    for x in (torch.zeros(1, 4, 2, 2), torch.zeros(2, 2), torch.zeros(3, 2, 2, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="images"):
            to_uint8(x)


def test_reading_does_not_share_memory():
    image = pixels()
    x = to_tensor(image)
    x.zero_()
    assert image.any()


@few
@given(values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=30))
def test_quantize_is_the_same_with_and_without_gradient(values):
    x = torch.tensor(values)
    hot = x.clone().requires_grad_()
    assert torch.allclose(quantize(hot), quantize(x), atol=1e-6)
    level = quantize(x) * 255
    assert torch.allclose(level, level.round(), atol=1e-4) and ((level >= 0) & (level <= 255)).all()


def test_jpeg_equals_a_file(tmp_path):
    image = pixels(33, 17)
    for quality in (20, 75, 95):
        Image.fromarray(image).save(tmp_path / "a.jpg", quality=quality,
                                    subsampling=0 if quality >= 95 else 2)
        stored = to_uint8(jpeg_round_trip(to_tensor(image), quality))[0]
        assert (stored == load_image(tmp_path / "a.jpg")).all()
    hot = to_tensor(image).requires_grad_()
    jpeg_round_trip(hot).sum().backward()
    assert (hot.grad == 1).all()
    assert jpeg_round_trip(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality"):
            jpeg_round_trip(hot, quality)


# writing

@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "JPG", "webp", "bmp"])
def test_written_files_are_read_back(tmp_path, ending):
    image = np.full((8, 8, 3), 77, np.uint8)
    path = save_image(to_tensor(image), tmp_path / "new" / "folders" / f"a.{ending}")
    assert np.abs(load_image(path).astype(int) - image).max() <= 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch):
    save_image(pixels(), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(images.Path, "write_bytes", full)
    for name in ("a.png", "b.png"):
        with pytest.raises(ImageError, match="no space left on device"):
            save_image(pixels(seed=1), tmp_path / name, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(images.os, "replace", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        write_file(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_complete_before_it_has_its_name(tmp_path, monkeypatch):
    seen, replace = [], os.replace
    monkeypatch.setattr(images.os, "replace", lambda a, b: (seen.append(load_image(a)), replace(a, b)))
    image = pixels()
    save_image(image, tmp_path / "a.png")
    assert (seen[0] == image).all()


def test_overwriting_is_asked_for(tmp_path):
    write_file(tmp_path / "a", b"one")
    with pytest.raises(ImageError, match="exists already"):
        write_file(tmp_path / "a", "two")
    write_file(tmp_path / "a", "zwölf", overwrite=True)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "zwölf"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, cause in ((tmp_path / "file" / "a.png", "(file exists|not a directory)"),
                        (tmp_path / ("n" * 253 + ".png"), "file name too long"),
                        (tmp_path / ("n" * 300 + ".png"), "file name too long")):
        with pytest.raises(ImageError, match=cause):
            save_image(pixels(), path, overwrite=True)
    with pytest.raises(ImageError, match="is a directory"):
        write_file(tmp_path / "folder", "x", overwrite=True)
    for name in ("a", "a.gif", "a.png.txt"):
        with pytest.raises(ImageError, match="unknown ending"):
            save_image(pixels(), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_wrong_pictures_are_refused(tmp_path):
    wrong = [torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4), np.zeros((4, 4, 3)),
             np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
    for image in wrong:
        with pytest.raises(ValueError, match="image"):
            save_image(image, tmp_path / "a.png")
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality"):
            save_image(pixels(), tmp_path / "a.jpg", quality=quality)
    with pytest.raises(ImageError, match="a.webp"):
        save_image(np.zeros((3, 16400, 3), np.uint8), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


# metadata

plain = st.recursive(st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.text(max_size=20),
                     lambda inner: st.lists(inner, max_size=4)
                     | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=20)


@few
@given(metadata=st.dictionaries(st.text(max_size=8), plain, max_size=5),
       ending=st.sampled_from(["png", "jpg"]))
def test_metadata_round_trip(tmp_path_factory, metadata, ending):
    path = tmp_path_factory.mktemp("m") / f"a.{ending}"
    image = pixels(4, 4)
    save_image(image, path, metadata=metadata)
    assert read_metadata(path) == metadata
    assert ending == "jpg" or (load_image(path) == image).all()


def test_long_metadata(tmp_path):
    long = {"squares": [[i, i, i + 32, i + 32] for i in range(2500)]}
    assert 4096 < len(json.dumps(long)) < 65000
    for ending in ("png", "jpg"):
        save_image(pixels(), tmp_path / f"a.{ending}", metadata=long)
        assert read_metadata(tmp_path / f"a.{ending}") == long
    with pytest.raises(ImageError, match="b.jpg"):
        save_image(pixels(), tmp_path / "b.jpg", metadata={"x": "y" * 70000})
    assert not (tmp_path / "b.jpg").exists()


def test_metadata_that_cannot_be_written(tmp_path):
    for name, metadata in (("a.png", {"x": np.zeros(3)}), ("a.webp", {}), ("a.bmp", {"x": 1})):
        with pytest.raises(ImageError, match=name):
            save_image(pixels(), tmp_path / name, metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def test_foreign_and_damaged_metadata(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", comment=b"made by somebody else")
    assert read_metadata(tmp_path / "a.jpg") is None
    Image.fromarray(pixels()).save(tmp_path / "b.jpg", comment=b"privnb:{not json")
    with pytest.raises(ImageError, match="b.jpg"):
        read_metadata(tmp_path / "b.jpg")
    with pytest.raises(ImageError, match="no such file"):
        read_metadata(tmp_path / "absent.png")


def test_metadata_do_not_change_the_pixels_of_a_png(tmp_path):
    save_image(pixels(), tmp_path / "a.png")
    save_image(pixels(), tmp_path / "b.png", metadata={"a": 1})
    a, b = ((tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert zlib.crc32(a) != zlib.crc32(b)
    assert (load_image(tmp_path / "a.png") == load_image(tmp_path / "b.png")).all()


# figures

@pytest.fixture(autouse=True)
def closed():
    yield
    import matplotlib.pyplot as plt
    plt.close("all")


def test_mirroring_maps_the_skeleton_onto_itself():
    bones = {frozenset(bone) for bone in COCO_SKELETON}
    assert {frozenset(FLIP_INDEX[i] for i in bone) for bone in bones} == bones
    assert [FLIP_INDEX[i] for i in FLIP_INDEX] == list(range(17))


def test_grids_of_any_size(tmp_path):
    tall = [torch.rand(3, 30, 10), torch.rand(3, 10, 30)]
    figure = show_grid({"a": tall, "b": tall}, {"b": [np.zeros((0, 17, 3)), np.ones((2, 17, 3))]},
                       {"a": [np.zeros((0, 4)), np.array([[1, 1, 5, 5]])]}, tmp_path / "a.png",
                       caption="look")
    assert len(figure.axes) == 4 and load_image(tmp_path / "a.png").shape[1] == 600
    assert figure.axes[1].get_title() == "" and figure.axes[2].get_title() == "b"
    heights = [ax.get_position().height for ax in figure.axes[:2]]
    assert heights[0] / heights[1] == pytest.approx(9, rel=0.01)
    assert show_grid({"none": torch.zeros(0, 3, 4, 4)}).axes == []
    with pytest.raises(ValueError, match="lengths"):
        show_grid({"a": tall, "b": tall[:1]})


def test_only_seen_joints_are_drawn():
    import matplotlib.pyplot as plt

    points = np.ones((1, 17, 3))
    for seen, lines in ((1.0, 16), (0.3, 0)):
        ax = plt.figure().add_subplot()
        points[..., 2] = seen
        draw_pose(ax, torch.tensor(points))
        assert len(ax.lines) == lines
    with pytest.raises(ValueError, match="keypoints"):
        draw_pose(ax, np.zeros((17, 3)))


def test_a_small_file_that_claims_a_huge_picture_is_refused_before_it_is_decoded(tmp_path,
                                                                                  monkeypatch):
    from privnb import images

    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    assert images.load_image(tmp_path / "a.png").shape == (200, 300, 3)
    monkeypatch.setattr(images, "LARGEST_PICTURE", 59_999)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert "300 x 200 pixels" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("ending", [".gif", ".tif", ".webp", ".png"])
@pytest.mark.parametrize("count", [1, 3])
def test_pictures_of_a_file_are_counted_and_the_first_is_read(tmp_path, ending, count):
    frames = [Image.new("RGB", (9, 7), (60 * k, 10, 200)) for k in range(count)]
    more = {"save_all": True, "append_images": frames[1:]} if count > 1 else {}
    frames[0].save(tmp_path / f"a{ending}", **more)
    assert picture_count(tmp_path / f"a{ending}") == count
    assert load_image(tmp_path / f"a{ending}")[0, 0, 0] < 30


def test_what_is_no_picture_counts_as_one(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert picture_count(tmp_path / "a.png") == picture_count(tmp_path / "missing.png") == 1
