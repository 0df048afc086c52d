"Recovering overlapping people, in any order and size."
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.guidance import pixelate
from privnb.images import quantize
from privnb.portraits import owner_map, painters_order, portrait_boxes, portrait_mask
from privnb.recovery import (consistency_loss, map_portraits, portrait_groups,
                             recover_portraits)

few = settings(max_examples=25, deadline=None)


def nothing(y, base):
    return base


@st.composite
def crowds(draw):
    "8-bit pictures with people anywhere in or out of them, most of whom overlap."
    height, width, n = draw(st.integers(20, 70)), draw(st.integers(20, 70)), draw(st.integers(1, 2))
    people, seed = draw(st.integers(0, 5)), draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    images = quantize(torch.rand(n, 3, height, width, generator=generator))
    corner = torch.rand(people, 2, generator=generator) * 90 - 25
    boxes = torch.cat([corner, corner + torch.rand(people, 2, generator=generator) * 50], 1)
    squares = portrait_boxes(boxes, snap=draw(st.sampled_from([8, 16])))
    return images, squares, torch.randint(0, n, (people,), generator=generator)


@few
@given(crowd=crowds())
def test_a_recoverer_that_does_nothing_changes_nothing(crowd):
    images, squares, index = crowd
    same, portraits = recover_portraits(nothing, images, squares, index)
    assert torch.equal(same, images) and len(portraits) == len(squares)


@few
@given(crowd=crowds(), shuffle=st.randoms())
def test_an_invertible_enhancement_is_undone_where_it_was_painted(crowd, shuffle):
    "Inverting is its own way back: overlaps come back too, in whatever order they were painted."
    images, squares, index = crowd
    order = list(range(len(squares)))
    shuffle.shuffle(order)
    order = torch.tensor(order, dtype=torch.int64)
    hidden, _ = map_portraits(lambda x, side: 1 - x, images, squares, index, order=order)
    back, _ = recover_portraits(lambda y, base: 1 - base, hidden, squares, index, order=order)
    assert torch.equal((back * 255).round(), (images * 255).round())
    outside = ~portrait_mask(squares, index, len(images), *images.shape[2:])
    outside = outside[:, None].expand_as(images)
    assert torch.equal(hidden[outside], images[outside]) and torch.equal(back[outside], images[outside])


@few
@given(crowd=crowds())
def test_each_pixel_comes_from_its_owner(crowd):
    "A network that paints each person in one colour shows the owner map."
    images, squares, index = crowd
    calls = []

    def paint(portraits, side):
        assert portraits.shape[2:] == (side, side)
        calls.append(len(portraits))
        return portraits * 0 + float(len(calls))

    painted, portraits = map_portraits(paint, images, squares, index)
    assert sum(calls) == len(squares)
    owner = owner_map(squares, index, len(images), *images.shape[2:])
    for m, portrait in enumerate(portraits):
        mine = (owner == m)[:, None].expand_as(painted)
        assert (painted[mine] == portrait.max()).all()


@few
@given(crowd=crowds(), size=st.sampled_from([None, 16, 32]), longest=st.sampled_from([32, 64, 1024]))
def test_groups_hold_everybody_once(crowd, size, longest):
    _, squares, _ = crowd
    groups = portrait_groups(squares, size, longest)
    assert sorted(row for rows, _ in groups for row in rows.tolist()) == list(range(len(squares)))
    for rows, side in groups:
        sides = (squares[rows, 2] - squares[rows, 0]).unique()
        assert side == size if size else len(sides) == 1 and side <= longest and sides[0] % side == 0


def test_nobody_is_no_special_case():
    images, none = torch.rand(2, 3, 9, 9), torch.zeros(0, 4)
    for size in (None, 16):
        assert portrait_groups(none, size) == []
        same, portraits = recover_portraits(nothing, images, none, torch.zeros(0, dtype=torch.int64), size)
        assert torch.equal(same, images) and portraits == []
    assert consistency_loss(torch.zeros(0, 3, 4, 4), torch.zeros(0, 3, 4, 4)) == 0


def test_gradients_reach_pictures_and_recoverer():
    images = torch.rand(1, 3, 40, 40, requires_grad=True)
    squares = torch.tensor([[0.0, 0, 16, 16], [8, 8, 40, 40]])
    weight = torch.ones((), requires_grad=True)
    back, portraits = recover_portraits(lambda y, base: base * weight, images, squares,
                                        torch.zeros(2, dtype=torch.int64))
    consistency_loss(portraits[1][None], torch.zeros(1, 3, 32, 32)).backward(retain_graph=True)
    assert images.grad[..., 8:, 8:].abs().min() > 0 and not images.grad[..., :8, :8].any()
    images.grad = None
    back.sum().backward()
    assert weight.grad > 0 and (images.grad == 1).all()


def test_the_painting_order_matters_only_where_people_overlap():
    images = quantize(torch.rand(1, 3, 48, 48))
    squares = torch.tensor([[0.0, 0, 32, 32], [16, 16, 48, 48]])
    index = torch.zeros(2, dtype=torch.int64)
    order = painters_order(squares, index)
    one, two = (map_portraits(lambda x, side: pixelate(x, 5), images, squares, index, order=o)[0]
                for o in (order, order.flip(0)))
    differ = (one != two).any(1)[0]
    assert differ[16:32, 16:32].any()
    differ[16:32, 16:32] = False
    assert not differ.any()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"recovered: \(1, 3, 4, 4\); allowed: \(1, 3, 4, 8\)"):
        consistency_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 8))
