"Portraits on random boxes: exactness, ownership, gradients and refusals."
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.portraits import (_reflected, crop_portraits, fill_portraits, group_by_side, owner_map,
                              painters_order, paste_portraits, portrait_boxes, portrait_mask,
                              working_size)

few = settings(max_examples=30, deadline=None)


@st.composite
def batches(draw):
    "Pictures of any small size, with people anywhere in or out of them."
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    n, m = draw(st.integers(1, 3)), draw(st.integers(0, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    images = torch.rand(n, 3, height, width, generator=generator)
    corner = torch.rand(m, 2, generator=generator) * 120 - 60
    boxes = torch.cat([corner, corner + torch.rand(m, 2, generator=generator) * 30], 1)
    return images, boxes, torch.randint(0, n, (m,), generator=generator)


def crops(images, squares, index):
    "Native portraits, a list in the order of the squares."
    found = [None] * len(squares)
    for rows in group_by_side(squares):
        for m, portrait in zip(rows.tolist(), crop_portraits(images, squares[rows], index[rows])):
            found[m] = portrait
    return found


def plain_crop(images, squares, index):
    "Native portraits by an index of mirrored pixels; torch's own gradient."
    height, width = images.shape[2:]
    return torch.stack([
        images[i][:, mirrored(top, bottom, height)][:, :, mirrored(left, right, width)]
        for (left, top, right, bottom), i in zip(squares.int().tolist(), index.tolist())])


def mirrored(start, stop, length):
    "Source pixels of an axis that goes on in mirror images without repeating its ends."
    axis = [*range(length), *range(length - 2, 0, -1)]
    return torch.tensor([axis[p % len(axis)] for p in range(start, stop)])


@few
@given(batch=batches(), side=st.integers(1, 50))
def test_a_crop_and_its_gradient_are_those_of_an_index(batch, side):
    images, boxes, index = batch
    squares = torch.cat([boxes[:, :2].round(), boxes[:, :2].round() + side], 1)
    if not len(squares):
        return
    results = []
    for crop in (crop_portraits, plain_crop):
        pictures = images.double().requires_grad_()
        portraits = crop(pictures, squares, index)
        (portraits * torch.linspace(-1, 1, portraits.numel()).view_as(portraits)).sum().backward()
        results.append((portraits, pictures.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


@few
@given(batch=batches(), snap=st.sampled_from([1, 4, 16]), grow=st.floats(0, 1))
def test_squares_cover_their_people(batch, snap, grow):
    boxes = batch[1]
    squares = portrait_boxes(boxes, grow=grow, snap=snap)
    side = squares[:, 2] - squares[:, 0]
    assert torch.equal(squares, squares.round()) and torch.equal(side, squares[:, 3] - squares[:, 1])
    assert (side % snap == 0).all() and (side >= snap).all()
    assert (squares[:, :2] <= boxes[:, :2]).all() and (squares[:, 2:] >= boxes[:, 2:]).all()
    assert (side < (1 + grow) * ((boxes[:, 2:] - boxes[:, :2]).amax(1) + 2) + snap).all()


@few
@given(length=st.floats(1, 9000), max_side=st.sampled_from([64, 256, 1024]))
def test_large_people_are_never_cut(length, max_side):
    square = portrait_boxes(torch.tensor([[0.0, 0.0, 5.0, length]]), max_side=max_side)
    side = int(square[0, 3] - square[0, 1])
    size = working_size(side, max_side)
    assert side >= length and size <= max_side and size % 16 == 0 and side % size == 0


def test_a_box_on_the_grid_is_not_rounded_up_twice():
    square = portrait_boxes(torch.tensor([[3.0, 0.0, 100.0, 160.0]]))
    assert square.tolist() == [[-37.0, -8.0, 139.0, 168.0]]


@few
@given(batch=batches())
def test_native_round_trip_is_exact(batch):
    images, boxes, index = batch
    squares = portrait_boxes(boxes, snap=4)
    kept = images.clone()
    assert torch.equal(paste_portraits(images, crops(images, squares, index), squares, index), kept)
    assert torch.equal(images, kept)


@few
@given(batch=batches())
def test_native_crop_equals_reflect_padding(batch):
    images, boxes, index = batch
    squares = portrait_boxes(boxes, snap=4)
    for square, i, portrait in zip(squares.int().tolist(), index.tolist(), crops(images, squares, index)):
        picture, shift = images[i:i + 1], [0, 0]
        if min(picture.shape[2:]) == 1:
            continue
        while not (shift[0] >= -square[0] and shift[1] >= -square[1]
                   and picture.shape[3] - shift[0] >= square[2]
                   and picture.shape[2] - shift[1] >= square[3]):
            x, y = picture.shape[3] - 1, picture.shape[2] - 1
            picture, shift = F.pad(picture, (x, x, y, y), mode="reflect"), [shift[0] + x, shift[1] + y]
        left, top = square[0] + shift[0], square[1] + shift[1]
        side = square[2] - square[0]
        assert torch.equal(portrait, picture[0, :, top:top + side, left:left + side])


@few
@given(batch=batches(), size=st.integers(1, 24))
def test_each_pixel_comes_from_its_owner(batch, size):
    images, boxes, index = batch
    squares = portrait_boxes(boxes, snap=4)
    n, _, height, width = images.shape
    flags = torch.arange(len(squares))[:, None, None, None].expand(-1, 3, size, size) + 10.0
    pasted = paste_portraits(images, flags, squares, index)
    owner = owner_map(squares, index, n, height, width)
    background = owner < 0
    assert torch.equal(background, ~portrait_mask(squares, index, n, height, width))
    assert torch.equal(pasted.movedim(1, 3)[background], images.movedim(1, 3)[background])
    torch.testing.assert_close(pasted[:, 1][~background], owner[~background] + 10.0)


@few
@given(batch=batches(), size=st.integers(1, 24))
def test_gradient_goes_to_the_owner_only(batch, size):
    images, boxes, index = batch
    squares = portrait_boxes(boxes, snap=4)
    images.requires_grad_()
    portraits = torch.rand(len(squares), 3, size, size, requires_grad=True)
    paste_portraits(images, portraits, squares, index).sum().backward()
    owner = owner_map(squares, index, len(images), *images.shape[2:])
    assert torch.equal(images.grad[:, 0], (owner < 0).float())
    for m in range(len(squares)):
        owned = (owner == m).sum().float()
        torch.testing.assert_close(portraits.grad[m, 0].sum(), owned, atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("size", [None, 5, 8, 13])
def test_gradients_equal_finite_differences(size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 9, 10, dtype=torch.float64, generator=generator).requires_grad_()
    squares = torch.tensor([[-3.0, 2, 5, 10], [1, 1, 9, 9], [4, -4, 12, 4]])
    index = torch.tensor([0, 0, 1])

    def both_ways(t):
        portraits = crop_portraits(t, squares, index, size)
        return paste_portraits(t, portraits ** 2, squares, index)

    assert torch.autograd.gradcheck(both_ways, images)


@pytest.mark.parametrize("side, size", [(64, 32), (48, 48), (40, 64), (30, 17)])
def test_resampling_equals_antialiased_interpolation(side, size):
    images = torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    square = torch.tensor([[5.0, 7.0, 5.0 + side, 7.0 + side]])
    ours = crop_portraits(images, square, torch.tensor([0]), size)
    theirs = F.interpolate(images[:, :, 7:7 + side, 5:5 + side], size=(size, size), mode="bilinear",
                           antialias=True, align_corners=False)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_square_between_pixels_samples_between_pixels():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    crop = crop_portraits(ramp, torch.tensor([[2.25, 3.0, 10.25, 11.0]]), torch.tensor([0]), 8)
    torch.testing.assert_close(crop[0, 0, 0, 1:-1], torch.arange(3.25, 9.0))


def test_order_is_by_picture_then_bottom_then_row():
    boxes = torch.tensor([[0, 0, 4, 9], [0, 0, 4, 7], [0, 0, 4, 7], [0, 0, 4, 1]]).float()
    assert painters_order(boxes, torch.tensor([0, 1, 0, 0])).tolist() == [3, 2, 0, 1]
    same = boxes[1:3]
    assert painters_order(same, torch.tensor([0, 0])).tolist() == [0, 1]


def test_an_order_can_be_given():
    squares = torch.tensor([[0.0, 0, 4, 8 - 4], [2, 2, 6, 6]])
    index = torch.tensor([0, 0])
    for order, top in (([0, 1], 1), ([1, 0], 0)):
        assert owner_map(squares, index, 1, 8, 8, order)[0, 3, 3] == top
        portraits = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 4, 4)
        pasted = paste_portraits(torch.full((1, 3, 8, 8), 0.5), portraits, squares, index, order)
        assert pasted[0, 0, 3, 3] == top


@few
@given(batch=batches())
def test_fill_covers_all_that_a_box_touches(batch):
    images, boxes, index = batch
    filled = fill_portraits(images, boxes, index, colour=(2.0, 3.0, 4.0))
    height, width = images.shape[2:]
    covered = (filled[:, 0] == 2) & (filled[:, 1] == 3) & (filled[:, 2] == 4)
    for i, (x0, y0, x1, y1) in zip(index.tolist(), boxes.tolist()):
        for y, x in ((y0, x0), (y1 - 1e-3, x1 - 1e-3), ((y0 + y1) / 2, (x0 + x1) / 2)):
            if 0 <= y < height and 0 <= x < width and y1 - y0 > 2e-3 and x1 - x0 > 2e-3:
                assert covered[i, int(y), int(x)]
    assert torch.equal(filled.movedim(1, 3)[~covered], images.movedim(1, 3)[~covered])


def test_a_frame_far_outside_and_a_single_pixel():
    images, index = torch.rand(1, 3, 1, 1), torch.tensor([0])
    square = torch.tensor([[-5000.0, 7000.0, -4968.0, 7032.0]])
    crop = crop_portraits(images, square, index)
    assert torch.equal(crop, images.expand(1, 3, 32, 32))
    assert torch.equal(paste_portraits(images, crop + 1, square, index), images)
    assert (owner_map(square, index, 1, 1, 1) == -1).all()


def test_dtypes_of_portraits_follow_the_pictures():
    images, index = torch.rand(1, 3, 20, 20), torch.tensor([0])
    square = torch.tensor([[2.0, 2.0, 18.0, 18.0]])
    half = crop_portraits(images, square, index).half().requires_grad_()
    pasted = paste_portraits(images, half, square, index)
    pasted.sum().backward()
    assert pasted.dtype == torch.float32 and half.grad.dtype == torch.float16


def test_bad_input_is_named():
    images, index = torch.rand(2, 3, 20, 20), torch.tensor([0, 1])
    squares = torch.tensor([[0.0, 0, 8, 8], [0, 0, 16, 16]])
    oblong, nan = squares * torch.tensor([1, 1, 1, 0.5]), squares * float("nan")
    backwards = squares[:, [2, 3, 0, 1]]
    portraits = torch.zeros(2, 3, 8, 8)
    cases = [("size", lambda: crop_portraits(images, squares, index)),
             ("size", lambda: crop_portraits(images, squares, index, 0)),
             ("boxes", lambda: crop_portraits(images, oblong, index, 8)),
             ("boxes", lambda: portrait_boxes(nan)), ("boxes", lambda: portrait_boxes(backwards)),
             ("boxes", lambda: fill_portraits(images, nan, index)),
             ("boxes", lambda: fill_portraits(images, squares[:, :3], index)),
             ("index", lambda: crop_portraits(images, squares, index + 1, 8)),
             ("index", lambda: crop_portraits(images, squares, index - 1, 8)),
             ("index", lambda: paste_portraits(images, portraits, squares, index[:1])),
             ("portraits", lambda: paste_portraits(images, portraits[:1], squares, index)),
             ("portraits", lambda: paste_portraits(images, portraits[..., :4], squares, index)),
             ("order", lambda: paste_portraits(images, portraits, squares, index, [0, 0]))]
    for name, call in cases:
        with pytest.raises(ValueError, match=rf"^{name}: got .*allowed"):
            call()
    with pytest.raises(ValueError, match="max_side 40.*allowed"):
        portrait_boxes(squares, max_side=40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees():
    images = torch.rand(2, 3, 40, 60)
    squares = portrait_boxes(torch.tensor([[-5.0, 3, 20, 30], [30, 10, 50, 44], [5, 5, 9, 9]]))
    index = torch.tensor([0, 0, 1])
    for size in (16, 24):
        results = []
        for device in ("cpu", "cuda"):
            a, b, c = (t.to(device) for t in (images, squares, index))
            portraits = crop_portraits(a, b, c, size)
            results.append(paste_portraits(a, portraits, b, c).cpu())
            results.append(owner_map(b, c, 2, 40, 60).cpu())
        torch.testing.assert_close(results[0], results[2])
        assert torch.equal(results[1], results[3])


def test_places_of_a_prediction_serve_in_training():
    box, index = torch.tensor([[-9.0, -9, 23, 23]]), torch.zeros(1, dtype=torch.int64)
    picture = torch.rand(1, 3, 37, 41)
    with torch.inference_mode():
        seen = crop_portraits(picture, box, index)
    picture.requires_grad_()
    again = crop_portraits(picture, box, index)
    again.sum().backward()
    assert torch.equal(seen, again) and picture.grad.sum() == again.numel()


def test_a_square_far_outside_costs_no_more_than_its_pixels():
    picture, index = torch.rand(1, 3, 5, 7), torch.zeros(1, dtype=torch.int64)
    across, down = 12 * 10**5, 8 * 10**5  # whole periods of the mirror images
    near = torch.tensor([[-3.0, -2, 13, 14]])
    far = near + torch.tensor([across, down, across, down])
    assert torch.equal(crop_portraits(picture, far, index), crop_portraits(picture, near, index))
    places = _reflected(-10**13, -10**13 + 4, 5, picture.device)
    assert places.tolist() == [(-10**13 + k) % 8 if (-10**13 + k) % 8 < 5 else 8 - (-10**13 + k) % 8
                               for k in range(4)]
