"""Attacks: fair conditions, strength against what is known to leak, resuming, and the table that is kept."""
import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from privnb.attack_results import (AttackRun, add_attack, cell, figure, pair_curve, read_attacks,
                                   row_key, run_attacks, table, to_html)
from privnb.attack_table import published_scenes, residual, wrong_key
from privnb.attacks import Protection, baseline, call, guidance_protection, protected, protection_of
from privnb.datasets import collate
from privnb.figures import guide_batch, render_scenes
from privnb.images import ImageError
from privnb.inversion import Inverse, Pairs, fitted, invert_by_queries, linear_inverse
from privnb.metrics import psnr
from privnb.parrot import enrol, mean_accuracy, parrot_attack, parts
from privnb.system import PrivacySystem
from privnb.targets import PLANS, attack_data, attack_plan, held_out, query, render_portraits

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "nbs" / "results" / "attacks.json"
PLAN = attack_plan("smoke", side=64)


@pytest.fixture(scope="module")
def data():
    return attack_data(PLAN, seed=0)


@pytest.fixture(scope="module")
def default():
    return PrivacySystem.load("single")


@pytest.fixture(scope="module")
def continuous():
    return PrivacySystem.load("continuous")


# targets

@pytest.mark.parametrize("seed", range(6))
def test_the_attacker_never_meets_those_whom_he_must_find(seed):
    data = attack_data(PLAN, seed)
    known, judged = (set(part.identity.tolist()) for part in (data.attacker, data.probes))
    assert not known & set(data.held_out) and judged <= set(data.held_out)
    assert set(held_out(seed)) & {9, 10} == {9, 10} and len(set(held_out(seed))) == 4


@pytest.mark.parametrize("side", [64, 96, 128, 160, 256])
def test_portraits_hold_their_person(side):
    portraits = render_portraits(3, 6, side, (9, 10), "probes")
    assert portraits.images.shape == (6, 3, side, side) and portraits.images.dtype == torch.uint8
    assert (portraits.boxes[:, 2:] > portraits.boxes[:, :2]).all()
    assert (portraits.boxes >= 0).all() and (portraits.boxes <= side).all()
    low, high = portraits.boxes[:, None, :2] - 3, portraits.boxes[:, None, 2:] + 3
    shown = portraits.keypoints[..., 2:] > 1
    inside = ((portraits.keypoints[..., :2] >= low) & (portraits.keypoints[..., :2] <= high)).all(2)
    assert inside[shown[..., 0]].float().mean() > 0.98


def test_lecture_uses_every_query():
    for name in ("lecture", "equal"):
        assert PLANS[name].steps * PLANS[name].batch >= max(PLANS[name].queries)
        assert PLANS[name].probes >= 128


def test_queries_beyond_the_photographs_are_new_pictures(data):
    count = len(data.attacker)
    pictures, _ = query(data.attacker, torch.arange(4 * count))
    rows = pictures.flatten(1)[:, ::37]
    assert len(torch.unique(rows, dim=0)) == 4 * count
    assert torch.equal(pictures, (pictures * 255).round() / 255)
    again, _ = query(data.attacker, torch.tensor([3 * count - 1]))
    assert torch.equal(again[0], pictures[3 * count - 1])


# protections

def test_a_protection_may_take_one_argument_or_two(data):
    x, facts = data.probes.batch(slice(0, 3))
    one, two = call(lambda x: 1 - x, x, facts), call(lambda x, facts: 1 - x, x, facts)
    bound = call(Protection("p", lambda x, facts, gain=1.0: gain - x).protect, x, facts)
    assert torch.equal(one, two) and torch.equal(one, bound)


@pytest.mark.parametrize("spoil", [lambda x: x[:1], lambda x: x * math.nan, lambda x: x[..., ::2]])
def test_a_broken_protection_is_named(data, spoil):
    with pytest.raises(ValueError, match="protect"):
        protected(spoil, data.probes)


def test_what_is_published_has_eight_bits(data, default, continuous):
    for one in (protection_of(default), protection_of(continuous.at("blur", 8.0)),
                baseline("noise", default), guidance_protection(continuous.at("blur", 3.0))):
        y = protected(one, data.probes)
        assert torch.equal(y, (y * 255).round() / 255) and 0 <= y.min() and y.max() <= 1


def test_baselines_equal_the_guidance_of_a_system(data, default, continuous):
    pairs = (("pixel", default), ("pixel", continuous.at("pixelate", 12.0)),
             ("blur", continuous.at("blur", 8.0)))
    for name, system in pairs:
        assert torch.equal(protected(baseline(name, default), data.probes),
                           protected(guidance_protection(system), data.probes))


# inversion

def test_a_linear_inverse_is_the_least_squares_solution():
    noise = torch.Generator().manual_seed(0)
    y = torch.rand(6, 3, 32, 32, generator=noise)
    true = Inverse(cell=2)
    true.path.weight.data.normal_(0, 0.1, generator=noise)
    true.path.bias.data.normal_(0, 0.1, generator=noise)
    true.body.body.tail.weight.data.zero_()
    with torch.no_grad():
        x = true(y)
    found = linear_inverse(x, y, cell=2)
    torch.testing.assert_close(found.weight, true.path.weight, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.bias, true.path.bias, atol=2e-3, rtol=0)


def test_a_linear_inverse_needs_pairs():
    with pytest.raises(ValueError, match="allowed is the shape of x"):
        linear_inverse(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize("kind, radius", [("pixelate", 12.0), ("blur", 8.0), ("pixelate", 8.0)])
def test_the_shipped_systems_are_open_to_a_linear_inverse(data, continuous, kind, radius):
    "24 pairs and no training: far beyond what the plain guidance gives away."
    x, facts = data.probes.batch(slice(0, 12))
    own, told = data.attacker.batch(slice(0, 24))
    got = {}
    for one in (protection_of(continuous.at(kind, radius), "system"),
                guidance_protection(continuous.at(kind, radius), "guidance")):
        y = call(one.protect, x, facts)
        with torch.no_grad():
            got[one.name] = psnr(x, fitted(own, call(one.protect, own, told))(y))
    assert got["system"] > got["guidance"] + 8


def test_pairs_ask_each_query_once(data):
    asked = []
    pairs = Pairs(lambda x: asked.append(len(x)) or x, data.attacker, 20)
    for _ in range(6):
        pairs.crops(8, 32)
    assert sum(asked) == 20
    with pytest.raises(ValueError, match="count: 0"):
        Pairs(lambda x: x, data.attacker, 0)


def test_nothing_is_found_in_an_opaque_fill(data, default):
    fill = baseline("fill", default)
    best = max(invert_by_queries(fill, data, PLAN, 16), key=lambda one: one.psnr)
    grey = torch.full((1, 3, 1, 1), 0.5).expand(len(data.probes), 3, 64, 64)
    mean = (data.attacker.images.float() / 255).mean((0, 2, 3)).view(1, 3, 1, 1).expand_as(grey)
    original = data.probes.images.float() / 255
    assert best.psnr < max(psnr(original, grey), psnr(original, mean)) + 2


def test_inversions_repeat(data, default):
    twice = [invert_by_queries(protection_of(default), data, PLAN, 8, seed=3) for _ in range(2)]
    for one, two in zip(*twice):
        assert one.start == two.start and torch.equal(one.images, two.images)


# parrot

def test_mean_accuracy_against_counts():
    noise = torch.Generator().manual_seed(1)
    guessed, true = (torch.rand(50, 3, generator=noise) < 0.4 for _ in range(2))
    for j, term in enumerate(mean_accuracy(guessed, true).tolist()):
        pairs = list(zip(guessed[:, j].tolist(), true[:, j].tolist()))
        tp, fn = pairs.count((True, True)), pairs.count((False, True))
        tn, fp = pairs.count((False, False)), pairs.count((True, False))
        assert term == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)


@pytest.mark.parametrize("side", [64, 96, 128])
def test_parts_stay_inside_any_joints(side):
    x = torch.rand(4, 3, side, side)
    joints = torch.tensor([[-50.0, -50, 1], [1e4, 0, 2], [side / 2, side, 0], [side, side, 2]])
    for name, cut in parts(x, joints[:, None].repeat(1, 17, 1)).items():
        assert cut.shape[-1] % 8 == 0 and cut.shape[-1] == cut.shape[-2], name


def test_enrolment_takes_people_whatever_their_numbers():
    points = torch.eye(6).repeat_interleave(5, 0) + 0.01 * torch.arange(30)[:, None] % 0.03
    numbers = torch.tensor([9, 2, 40, 7, 1, 3]).repeat_interleave(5)
    assert torch.equal(enrol(points, numbers).name(points), numbers)


def test_a_parrot_on_a_fill_is_at_chance(data, default):
    found = parrot_attack(baseline("fill", default), data, PLAN)
    assert found.named.unique().numel() == 1, "all probes look alike"
    assert found.ma == pytest.approx(0.5) and found.chance == 25


# the row

@pytest.mark.parametrize("name", ["continuous", "leakfree"])
def test_scenes_are_published_as_the_system_publishes_them(name):
    batch = collate(render_scenes(7, 5, 160, (1, 3), "test"))
    system = PrivacySystem.load(name).at("blur", 8.0)
    own, _ = system.enhance_batch(batch.images, batch.boxes, batch.index)
    assert torch.equal(published_scenes(protection_of(system), batch).images, own.detach())
    assert torch.equal(published_scenes(guidance_protection(system), batch).images,
                       guide_batch(system, batch).images)


def test_facts_of_scenes_lie_in_their_portraits():
    batch, seen = collate(render_scenes(7, 5, 160, (1, 3), "test")), []

    def protect(x, facts):
        low, high = facts["boxes"][:, :2], facts["boxes"][:, 2:]
        assert (low >= 0).all() and (high <= x.shape[-1]).all()
        shown = facts["keypoints"][..., 2] > 1
        seen.append(facts["keypoints"][shown][:, :2] / x.shape[-1])
        return x

    made = published_scenes(Protection("same", protect), batch)
    assert torch.equal(made.images, batch.images)
    assert 0 <= torch.cat(seen).min() and torch.cat(seen).max() <= 1


def test_a_residual_of_nothing_is_grey():
    x = torch.rand(2, 3, 32, 32)
    assert (residual(x, lambda y: y) == 0.5).all()
    assert torch.equal(residual(x, torch.zeros_like, 1.0, signs=True)[..., 0, 0],
                       (0.5 + x[..., 0, 0]).clamp(0, 1))


def test_wrong_keys_open_nothing(default):
    told = wrong_key(default, count=3, seed=5)
    assert told["opened"] == 0 and sum(told.values()) == 6


# runs

def command(*words):
    parser = argparse.ArgumentParser()
    add_attack(parser.add_subparsers(required=True))
    return parser.parse_args(["attack", *map(str, words)])


def test_the_command_writes_goes_on_and_prints(tmp_path, capsys, monkeypatch):
    small = attack_plan("smoke", queries=(8,), seals=1)
    monkeypatch.setattr("privnb.targets.attack_plan", lambda name: small)
    path = tmp_path / "a.json"
    words = ("single", "--preset", "smoke", "--seeds", 0, "--json", path, "--rows")
    args = command(*words, "fill")
    args.quiet = True
    assert args.run(args) == 0 and "fill" in capsys.readouterr().out
    before = read_attacks(path)
    args = command(*words, "fill", "pixel", "seal pixel")
    args.quiet = True
    assert args.run(args) == 0
    out, after = capsys.readouterr().out, read_attacks(path)
    assert "pixel, sealed" in out and "exact" in out and "infinite" in out
    assert after[:1] == before and len(after) == 3
    assert after[2]["figures"]["best_psnr"] == after[1]["figures"]["best_psnr"]
    assert "--rows 'seal pixel' --seeds 0" in after[2]["command"]
    assert "ap" in after[1]["figures"], "poses are judged with the first seed"


def test_every_command_of_the_kept_table_is_one_that_is_understood():
    for record in read_attacks(KEPT):
        words = [w.strip("'") for w in record["command"].replace("'seal pixel'", "seal_pixel").split()]
        args = command(*[w.replace("seal_pixel", "seal pixel") for w in words[2:]])
        assert args.seeds == [record["seed"]] and args.preset == record["plan"]["preset"]


def test_a_system_without_a_recoverer_is_attacked_too(tmp_path, capsys, monkeypatch):
    small = attack_plan("smoke", queries=(8,), seals=1)
    monkeypatch.setattr("privnb.targets.attack_plan", lambda name: small)
    args = command("leakfree", "--guidance", "blur", "--radius", 8, "--preset", "smoke", "--seeds", 0,
                   "--json", tmp_path / "a.json", "--rows", "system", "seal")
    args.quiet = True
    assert args.run(args) == 0
    shown, sealed = read_attacks(tmp_path / "a.json")
    assert shown["figures"]["gap"] is None and not [
        name for name in shown["figures"]["inversions"] if name.startswith("A4")]
    assert sealed["figures"]["gap"] == math.inf and sealed["figures"]["wrong_key"]["opened"] == 0
    assert shown["figures"]["estimator"] == "its own" and 0 < shown["figures"]["ap"] <= 100
    assert "leakfree blur 8, sealed" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"rows": [1]}', '{"rows": [{}]}', "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ImageError, match="no attack records"):
        read_attacks(path)


def test_an_unknown_row_is_refused(tmp_path, default):
    with pytest.raises(ValueError, match="allowed are none, blur"):
        run_attacks(AttackRun(default, "single", PLAN), tmp_path / "a.json", ("mosaic",), (0,))


@pytest.fixture
def quick(monkeypatch, default):
    "Runs whose attacks cost nothing: figures name the plan's steps; poses are judged where they are asked for."
    from privnb import attack_results

    def figures(run, row, seed, known, first):
        if row.startswith("seal") and run.protection(row).name in known:
            return known[run.protection(row).name] | {"gap": math.inf}
        return {"best_psnr": float(run.plan.steps), **({"ap": 50.0} if first else {})}

    def made(system=default, **changes):
        return AttackRun(system, "single", attack_plan("smoke", **changes))

    monkeypatch.setattr(attack_results, "attack_figures", figures)
    return made


def test_rows_of_another_plan_or_system_are_never_mixed(tmp_path, quick, default):
    path = tmp_path / "a.json"
    run_attacks(quick(steps=4), path, ("pixel", "system"), (0, 1), told=lambda line: None)
    before = path.read_bytes()
    other = PrivacySystem.load("single")
    next(other.parameters()).data += 1
    assert other.fingerprint() != default.fingerprint()
    for run, row in ((quick(steps=5), "pixel"), (quick(other, steps=4), "system")):
        with pytest.raises(ImageError, match=r"a.json: holds .* of another system or plan and is kept"):
            run_attacks(run, path, (row,), (2,), told=pytest.fail)
    assert path.read_bytes() == before
    run_attacks(quick(steps=5), path, ("fill",), (0,), told=lambda line: None)
    assert len(read_attacks(path)) == 5, "what stands under other names does no harm"


def test_seals_and_poses_of_another_plan_do_not_count(tmp_path, quick):
    from privnb.attack_results import _record

    path = tmp_path / "a.json"
    old = run_attacks(quick(steps=4), path, ("pixel",), (0,), told=lambda line: None)
    with pytest.raises(ImageError, match="holds pixel, seed 0, of another system or plan"):
        run_attacks(quick(steps=5), path, ("seal pixel",), (0,), told=pytest.fail)
    sealed = _record(quick(steps=5), "seal pixel", 0, old)
    assert sealed["figures"]["best_psnr"] == 5 and "ap" in sealed["figures"]
    again = _record(quick(steps=4), "seal pixel", 0, old)
    assert again["figures"] == {"best_psnr": 4, "ap": 50, "gap": math.inf}


def test_two_commands_on_one_file_keep_each_others_records(tmp_path, quick, monkeypatch):
    from privnb import attack_results

    path, plain = tmp_path / "a.json", attack_results._record

    def slow(run, row, seed, records):
        if row == "blur":
            run_attacks(quick(), path, ("fill",), (0,), told=lambda line: None)
        return plain(run, row, seed, records)

    monkeypatch.setattr(attack_results, "_record", slow)
    found = run_attacks(quick(), path, ("blur", "pixel"), (0,), told=lambda line: None)
    assert [one["row"] for one in found] == ["fill", "blur", "pixel"]
    assert [one["key"] for one in found] == [one["key"] for one in read_attacks(path)]


def test_names_of_systems_are_text_in_the_page():
    page = to_html([{"row": "<b>a</b> blur 8", "seed": 0, "figures": {"ap": 1.0}}])
    assert "&lt;b&gt;a&lt;/b&gt; blur 8" in page and "<b>" not in page


def test_cells_say_what_is_missing_and_what_is_exact():
    assert cell(None, 1) == "-" and cell((math.inf, 1, math.inf, 3), 1) == "exact"
    assert cell((2.0, 1.0, 4.0, 3), 1) == "2.0 ± 1.5" and cell((2.0, 2.0, 2.0, 1), 2) == "2.00"


# the kept table

@pytest.fixture(scope="module")
def kept():
    return read_attacks(KEPT)


WANTED = ("none", "blur", "pixel", "noise", "fill", "single pixelate 12", "continuous pixelate 12",
          "continuous blur 8", "single pixelate 12, sealed", "pixel, sealed", "leakfree pixelate 12",
          "leakfree blur 8", "leakfree pixelate 12, sealed", "leakfree blur 8, sealed",
          "continuous pixelate 12, sealed")


def test_the_kept_table_is_of_the_lecture_plan(kept):
    from dataclasses import asdict

    plan = json.loads(json.dumps(asdict(attack_plan("lecture"))))
    for record in kept:
        assert record["plan"] == plan, "the plan was changed since: run the commands again"
        assert record["threads"] >= 1 and record["date"] and record["machine"]
        assert record["key"] == row_key(attack_plan("lecture"), record["notes"], record["seed"])
    assert {(record["row"], record["seed"]) for record in kept} == {
        (row, seed) for row in WANTED for seed in range(3)}


def test_the_kept_rows_are_of_the_shipped_systems(kept, default, continuous):
    prints = {"single": default.fingerprint(), "continuous": continuous.fingerprint(),
              "leakfree": PrivacySystem.load("leakfree").fingerprint()}
    for record in kept:
        stem = record["row"].split()[0]
        if stem in prints:
            assert record["notes"]["system"] == prints[stem], "other weights ship now: attack them"


def test_the_notebook_shows_the_files_figures(kept):
    notebook = json.loads((ROOT / "nbs" / "17e_attack_results.ipynb").read_text(encoding="utf-8"))
    pages = ["".join(output["data"]["text/html"]) for one in notebook["cells"]
             for output in one.get("outputs", []) if "text/html" in output.get("data", {})]
    html = next(page for page in pages if "best PSNR" in page)
    for line in table(kept):
        for text in line:
            assert f">{text}<" in html, text


def test_what_the_kept_table_says(kept):
    for row in ("single pixelate 12", "continuous pixelate 12", "continuous blur 8"):
        plain = "blur" if "blur" in row else "pixel"
        assert figure(kept, row, "gap")[0] < 1, "an un-keyed system authorises nobody"
        assert figure(kept, row, "best_psnr")[1] > figure(kept, plain, "best_psnr")[2] + 10
        numbers, quality = pair_curve(kept, row)
        assert numbers == [1, 10, 100, 1000, 10000] and quality[0] > quality[-1] - 10
    for row, plain in (("leakfree pixelate 12", "pixel"), ("leakfree blur 8", "blur")):
        assert figure(kept, row, "best_psnr")[0] <= figure(kept, plain, "best_psnr")[0] + 1
        assert figure(kept, f"{row}, sealed", "authorised_psnr")[0] == math.inf
    for record in kept:
        figures = record["figures"]
        assert figures["chance"] == 25 and 0 <= figures["parrot_identity"] <= 100
        every = [v for starts in figures["inversions"].values() for v in starts.values()]
        assert figures["best_psnr"] == max(map(float, every))
        if record["row"].endswith("sealed"):
            assert figures["wrong_key"]["opened"] == 0 and math.isinf(figures["gap"])
    assert figure(kept, "none", "parrot_identity")[0] > figure(kept, "fill", "parrot_identity")[0] + 30
    assert figure(kept, "fill", "parrot_ma")[0] == pytest.approx(0.5)
