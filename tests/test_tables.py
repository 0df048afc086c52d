"""Rows, runs and tables: shared, killed and gone on with, two side by side; and the paper's
orderings on the results that lie in nbs/papers/results."""

import csv
import html
import io
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from privnb import report as pages
from privnb.images import load_image, save_image
from privnb.plans import BLUR, MOSAIC, NOISE, TABLES, plan, runs_of
from privnb.report import MOST, _keep_strip, collect, read_results, to_csv, to_html, to_latex
from privnb.results import (belongs, cell_of, contradictions, gather, missing_in_words,
                            missing_rows, printed_results, read_record, verdict, verdicts)
from privnb.rows import (NEUTRAL, Claim, Line, Row, Table, changed, paper_figures, row_command,
                         row_config, run_key)
from privnb.tables import (compute_row, is_done, machine, main, parser, row_path, run_tables, test_data,
                           train_run)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "papers" / "results"
NOTEBOOK = ROOT / "nbs" / "papers" / "recoverable_anonymization.ipynb"
test_data.__test__ = False  # a function of the package, not a test


# plans

@pytest.mark.parametrize("name", ["smoke", "lecture", "paper"])
def test_every_row_is_a_run(name):
    rows = [row for table in plan(name).values() for row in table.rows]
    configs = {row.name: row_config(row, name) for row in rows}
    keys = {row.name: run_key(config) for row, config in zip(rows, map(row_config, rows))}
    assert len(keys) == len(set(rows))
    for row in rows:
        plain = row_config(Row(row.guidance, row.radius), name)
        assert configs[row.name].conventional == (configs[row.name] == plain)
        assert configs[row.name].system.guidance.kind == row.guidance


@pytest.mark.parametrize("name", ["lecture", "paper"])
def test_every_row_is_a_command(name):
    for row in dict.fromkeys(row for table in plan(name, tests=("coco:DIR",)).values()
                             for row in table.rows):
        words = row_command(row, name, "mpii:DIR", 3, "out", {"steps": 5, "sizes": [96]})
        args = parser().parse_args(words)
        pairs = tuple((k, v) for k, _, v in (entry.partition("=") for entry in args.set))
        assert Row(args.guidance, args.radius, pairs, args.test) == row
        assert (args.preset, args.data, args.seed) == (name, "mpii:DIR", 3)
        assert args.base == ["steps=5", "sizes=[96]"]


def test_equal_runs_have_equal_keys():
    config = row_config(MOSAIC, "smoke")
    for field, value in (("every", 1), ("preset", "mine"), ("accelerator", "cuda")):
        assert field in NEUTRAL and run_key(replace(config, **{field: value})) == run_key(config)
    for field, value in (("seed", 1), ("steps", 9), ("lambda_style", 1.0), ("data", "coco:DIR")):
        assert run_key(replace(config, **{field: value})) != run_key(config)
    other = replace(config, system=replace(config.system, options={"width": 8}))
    assert run_key(other) != run_key(config)


def test_tables_share_runs():
    runs = runs_of(plan("lecture", ("1", "2", "3", "noise")), "lecture", seeds=(0, 1))
    assert len(runs) == 2 * 9
    first = list(runs.values())
    assert {seed for served in first[:9] for _, seed in served} == {0}
    served = runs_of(plan("lecture", ("transfer",)), "lecture")
    assert sorted(len(rows) for rows in served.values()) == [3, 3]


def test_equal_curves_are_one_run():
    lines = {line.label: line.row for line in plan("lecture", ("threshold",))["threshold"].lines}
    plain = {lines[f"T = 0, {mode}"] for mode in ("paper", "hinge", "huber", "l1")}
    assert plain == {lines[f"T = {zone}, l1"] for zone in ("0.02", "0.05", "0.1")}
    assert lines["T = 0.02, paper"] == changed(MOSAIC, steps=200)


def test_comparisons_take_a_third_of_the_steps_and_the_tables_of_the_estimator_all():
    tables = plan("lecture")
    for name, table in tables.items():
        brief = name in ("table4", "lambda", "threshold", "resolution", "scenes")
        assert {row_config(row).steps for row in table.rows} == {200 if brief else 600}, name
        assert ("A third of the preset's steps: 200." in table.note) == brief
    assert {row_config(row, "paper").epochs for table in plan("paper").values()
            for row in table.rows} == {120}


def test_runs_of_one_seed_share_their_control(tmp_path):
    rows = [MOSAIC, BLUR]
    keys = [run_key(row_config(row, "smoke", seed=0, base=FEW)) for row in rows]
    compute_row(rows[0], "smoke", "scenes", 0, tmp_path, FEW, progress=False)
    controls = list((tmp_path / "controls").glob("*"))
    marked = controls[0].stat().st_mtime_ns
    compute_row(rows[1], "smoke", "scenes", 0, tmp_path, FEW, progress=False)
    assert list((tmp_path / "controls").glob("*")) == controls and len(controls) == 1
    assert controls[0].stat().st_mtime_ns == marked
    one, other = ((tmp_path / "runs" / key / "control.safetensors").read_bytes() for key in keys)
    assert one == other == controls[0].read_bytes()


def test_names_are_checked():
    with pytest.raises(ValueError, match="tables: .'table9'"):
        plan("lecture", ("table9",))
    with pytest.raises(ValueError, match="preset"):
        row_config(MOSAIC, "tiny")
    with pytest.raises(ValueError, match="lambda_x"):
        row_config(changed(MOSAIC, lambda_x=1))
    with pytest.raises(ValueError, match="jobs"):
        run_tables("nowhere", "smoke", jobs=0)


def test_the_paper_agrees_with_itself():
    tables = plan("paper")
    for name in ("table1", "table2", "table3", "table4"):
        for data in ("MPII", "COCO"):
            printed = printed_results(tables[name], data)
            if printed:
                assert not contradictions({name: tables[name]}, printed)
    assert paper_figures(4, "pixelate", 12, "resnet9")["MPII"]["ap50_p"] == 60.9
    assert not paper_figures(4, "pixelate", 12, "edge") and not paper_figures(0, "blur", 8)


# results

def records(row, values, **more):
    config = row_config(row, "smoke")
    return [{"row": row.name, "run": run_key(replace(config, seed=seed)), "preset": "smoke",
             "data": "scenes", "base": {}, "seed": seed, "command": "python -m privnb.tables",
             "steps": 4, "seconds": 1, "hours": 0.1, "threads": 1, "machine": "m, 2 cores",
             "date": "2026-01-01", "notes": {}, "figures": figures,
             "intervals": {name: [v - 1, v + 1] for name, v in figures.items()
                           if isinstance(v, float)}, **more}
            for seed, figures in enumerate(values)]


def test_cells_have_mean_range_and_interval():
    tables = plan("smoke")
    results = {BLUR.name: records(BLUR, [{"ap50_p": 70.0}, {"ap50_p": 74.0}, {"ap50_p": None}])}
    line = next(x for x in tables["table2"].lines if x.label == "blur, joint")
    cell = cell_of(tables["table2"], line, "ap50_p", {BLUR.name: results[BLUR.name][:2]})
    assert (cell.mean, cell.least, cell.most, cell.seeds) == (72.0, 70.0, 74.0, 2)
    assert cell.interval == (71.0, 73.0) and cell.paper == {"MPII": 81.5, "COCO": 75.3}
    assert missing_rows(tables["table2"], results) == [MOSAIC.name]
    assert missing_rows(tables["table2"], {BLUR.name: results[BLUR.name][:2]}, (0, 2)) == [
        "blur 8, seed 2", MOSAIC.name]
    text = missing_in_words(tables["table2"], {BLUR.name: results[BLUR.name][:2]}, (0, 2))
    assert text == "missing: pixelate 12 (1 of 2, seed 0) and all rows (2 of 2, seed 2)"
    assert missing_in_words(tables["table2"], {}, (0, 1)) == "missing: all rows (2 of 2, seeds 0, 1)"


@pytest.mark.parametrize("left, right, held, agreeing, word", [
    ((5, 6, 7), (4, 4, 4), True, 3, "holds ("),
    ((5, 6, 3), (4, 4, 4), True, 2, "holds on the mean only"),
    ((3, 3, 5), (4, 4, 4), False, 1, "does not hold here"),
    ((4, 4), (4, 4), True, 2, "holds ("),
    ((), (4, 4, 4), None, 0, "open, missing blur 8"),
])
def test_verdicts(left, right, held, agreeing, word):
    results = {BLUR.name: records(BLUR, [{"ap50_p": float(v)} for v in left]),
               MOSAIC.name: records(MOSAIC, [{"ap50_p": float(v)} for v in right])}
    made = verdict(Claim("it is so", (((BLUR, "ap50_p"), (MOSAIC, "ap50_p")),)), results)
    assert (made.held, made.agreeing) == (held, agreeing) and word in made.sentence


def test_who_finds_as_much_does_not_find_more():
    tie, more = [{"ap50_p": 4.0}, {"ap50_p": 4.0}], [{"ap50_p": 5.0}, {"ap50_p": 4.0}]
    pair = (((BLUR, "ap50_p"), (MOSAIC, "ap50_p")),)
    for ours, strict, held, agreeing in ((tie, False, True, 2), (tie, True, False, 0), (more, True, True, 1)):
        results = {BLUR.name: records(BLUR, ours), MOSAIC.name: records(MOSAIC, tie)}
        made = verdict(Claim("it is so", pair, strict=strict), results)
        assert (made.held, made.agreeing) == (held, agreeing)


def test_claims_whose_words_are_strict_are_strict():
    strict = re.compile(r"more|less|better|faster|exceeds|falls|rises|closer")
    loose = re.compile(r"at (least|most)|no more than|within")
    claims = [claim for table in plan("lecture").values() for claim in table.claims]
    assert {claim.strict for claim in claims} == {False, True}
    for claim in claims:
        assert claim.strict == bool(strict.search(claim.text) and not loose.search(claim.text)), claim.text


def test_infinite_figures_are_figures():
    tables, line = plan("smoke"), Line("x", MOSAIC, ("psnr_oa",))
    found = records(MOSAIC, [{"psnr_oa": "inf"}])
    found[0]["intervals"] = {"psnr_oa": ["inf", "inf"]}
    cell = cell_of(tables["table1"], line, "psnr_oa", {MOSAIC.name: found})
    assert cell.mean == math.inf and cell.text(cell.mean) == "inf"


def test_only_common_seeds_are_compared():
    results = {BLUR.name: records(BLUR, [{"ap50_p": 1.0}, {"ap50_p": 9.0}])[1:],
               MOSAIC.name: records(MOSAIC, [{"ap50_p": 50.0}, {"ap50_p": 5.0}])}
    made = verdict(Claim("it is so", (((BLUR, "ap50_p"), (MOSAIC, "ap50_p")),)), results)
    assert made.held and made.seeds == 1


def test_a_claim_may_compare_with_a_number_and_have_slack():
    results = {BLUR.name: records(BLUR, [{"psnr_or": 29.5}])}
    pair = ((BLUR, "psnr_or"), 30.0)
    assert verdict(Claim("x", (pair,)), results).held is False
    assert verdict(Claim("x", (pair,), slack=0.5), results).held is True


def test_test_sets_of_one_name_have_rows_of_their_own(tmp_path):
    tests = ("", "photographs", "scenes:train", "scenes:test", "coco:a/val.json", "coco:b/val.json", "a/b", "a_b")
    names = [row_path(tmp_path, "k", replace(BLUR, test=test)).name for test in tests]
    assert names[:4] == ["k.json", "k.photographs_.json", "k.scenes_train.json", "k.scenes_test.json"]
    assert len(set(names)) == len(tests)
    assert re.fullmatch(r"k\.coco_val_json_[0-9a-f]{8}\.json", names[4])


def test_a_row_that_lies_in_two_files_counts_once():
    found = records(BLUR, [{"ap50_p": 1.0}, {"ap50_p": 3.0}])
    assert gather([*found, *found], plan("smoke"))[BLUR.name] == found


def test_records_of_another_configuration_are_not_used():
    good = records(MOSAIC, [{"ap50_p": 70.0}])[0]
    tables = plan("smoke", ("2",))
    assert gather([good], tables)[MOSAIC.name] == [good]
    for change in ({"run": "0" * 12}, {"base": {"steps": 3}}, {"seed": 5}, {"row": BLUR.name},
                   {"base": {"lambda_x": 3}}):
        assert gather([{**good, **change}], tables) == {}


# pages

def strange():
    line = Line("50 % & _more_ <b>", MOSAIC, ("ap50_p", None, "psnr_or"))
    return Table("strange", "A {strange} #1 title^2", ("a, %", "b_c", "$d"), (line,), (), 2, "~")


def test_html_is_escaped_and_marks_what_is_missing():
    page = to_html(strange(), {})
    assert "<b>" not in page.replace("<b>70.0</b>", "") and "&lt;b&gt;" in page
    assert page.count("<i>missing</i>") == 2 and page.count("&ndash;") == 1
    assert "paper: MPII 74.9, COCO 70.3" in page
    full = to_html(strange(), {MOSAIC.name: records(MOSAIC, [{"ap50_p": 70.0, "psnr_or": 30.0}])})
    assert "<b>70.0</b>" in full and "95 %: 69.0 to 71.0" in full and "missing" not in full
    assert "2 cores" in full and "0.10" in full


def test_latex_is_escaped():
    tex = to_latex(strange(), {MOSAIC.name: records(MOSAIC, [{"ap50_p": 70.0}, {"ap50_p": 72.0}])})
    assert r"50 \% \& \_more\_ <b>" in tex and r"\{strange\} \#1 title\textasciicircum{}2" in tex
    assert r"71.0{\scriptsize  (70.0--72.0) [74.9, 70.3]}" in tex
    assert tex.count("{") == tex.count("}") and r"\textit{missing}" in tex


def test_csv_has_a_line_a_cell():
    found = list(csv.DictReader(io.StringIO(to_csv(strange(), {}))))
    assert [(x["figure"], x["mean"], x["paper_MPII"]) for x in found] == [
        ("ap50_p", "missing", "74.9"), ("psnr_or", "missing", "38.54")]


# runs

FEW = {"steps": 4, "every": 1, "scenes": 4, "test_scenes": 2, "sizes": [96]}
QUICK = {**FEW, "conventional": False}


def events(out):
    lines = (out / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def started(out):
    return [(e["row"], e["step"]) for e in events(out) if e["event"] == "start"]


def command(row, out, base=QUICK):
    words = row_command(row, "smoke", "scenes", 0, str(out), base)
    return [sys.executable, "-m", "privnb.tables", *words, "--quiet"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """run_tables in a process group of its own, killed by SIGKILL in the middle of its second row;
    what was there then; and the same call again, two rows side by side. One thread each, since
    other numbers of threads add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("killed")
    call = (f"from privnb.tables import run_tables; run_tables({str(out)!r}, 'smoke', seeds=(0,), "
            f"tables=('noise',), base={QUICK!r}, progress=False)")
    child = subprocess.Popen([sys.executable, "-c", call], start_new_session=True,
                             stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while child.poll() is None:
        if list(out.glob("rows/*.json")) and list(out.glob("runs/*/checkpoint.safetensors")):
            break
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = {path: path.stat() for path in out.glob("rows/*.json")}
    state = run_tables(out, "smoke", seeds=(0,), tables=("noise",), jobs=2, base=QUICK)
    yield out, before, state
    torch.set_num_threads(threads)


def test_killed_in_the_middle_no_row_is_lost(killed):
    out, before, state = killed
    assert before and state["rows"] == 3 and not state["missing"] and not state["failed"]
    assert len(list((out / "rows").glob("*.json"))) == 3
    for row in (NOISE, BLUR, MOSAIC):
        key = run_key(row_config(row, "smoke", base=QUICK))
        assert is_done(row_path(out, key, row), row)


def test_killed_in_the_middle_no_row_is_computed_twice(killed):
    out, before, _ = killed
    for path, old in before.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (old.st_mtime_ns, old.st_ino)
    found = started(out)
    done = [e["row"] for e in events(out) if e["event"] == "done"]
    assert sorted(set(done)) == sorted(done) and len(done) >= 2
    again = [name for name in {name for name, _ in found} if
             sum(name == other for other, _ in found) > 1]
    assert len(again) <= 1
    for name in again:
        steps = [step for other, step in found if other == name]
        assert steps[0] == 0 and steps[1] != 0


def test_killed_in_the_middle_every_step_is_taken_once(killed):
    out, *_ = killed
    for history in out.glob("runs/*/history.jsonl"):
        steps = [json.loads(line)["step"] for line in history.read_text().splitlines()]
        assert steps == [1, 2, 3, 4]


def test_started_a_third_time_nothing_happens(killed):
    out, *_ = killed
    count = len(events(out))
    state = run_tables(out, "smoke", seeds=(0,), tables=("noise",), jobs=2, base=QUICK)
    assert state["rows"] == 3 and len(events(out)) == count


def test_the_run_that_was_killed_is_the_run_that_was_not(killed, tmp_path):
    out, *_ = killed
    for row in (BLUR, MOSAIC):
        config = row_config(row, "smoke", base=QUICK)
        if [name for name, _ in started(out)].count(row.name) == 2:
            train_run(config, tmp_path / row.guidance, progress=False)
            one, other = (load_file(folder / "enhancer.safetensors") for folder in (
                out / "runs" / run_key(config), tmp_path / row.guidance))
            assert all(torch.equal(one[name], other[name]) for name in one | other)


def test_rows_keep_what_a_table_must_say(killed):
    out, *_ = killed
    record = json.loads(row_path(out, run_key(row_config(MOSAIC, "smoke", base=QUICK)),
                                 MOSAIC).read_text())
    assert record["command"].startswith("python -m privnb.tables --out DIR --preset smoke")
    assert record["seed"] == 0 and record["hours"] > 0 and "cores" in record["machine"]
    assert len(record["evaluation"]["images"]) == 2 and record["evaluation"]["matches"]["p"]
    assert record["config"]["steps"] == 4
    page = (out / "tables" / "noise.html").read_text()
    assert html.escape(record["command"]) in page and "<td>missing</td>" not in page


def test_other_tables_take_the_rows_that_are_there(killed):
    out, *_ = killed
    count = len(events(out))
    state = run_tables(out, "smoke", seeds=(0,), tables=("1",), base=QUICK)
    assert state["rows"] == 2 and len(events(out)) == count
    assert {path.name for path in state["files"]} == {"table1.html", "table1.csv", "table1.tex",
                                                      "index.html"}


def test_collected_files_hold_the_same_figures(killed, tmp_path):
    out, *_ = killed
    tables = plan("smoke", ("1", "noise", "table3"))
    assert collect(out, tmp_path, tables, "smoke") == []  # these rows changed the preset
    for path in (out / "rows").glob("*.json"):
        record = json.loads(path.read_text())
        row = next(r for r in tables["noise"].rows if r.name == record["row"])
        config = row_config(row, "smoke")
        record |= {"base": {}, "run": run_key(config), "config": config.to_dict()}
        (tmp_path / "out/rows").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"out/rows/{path.name}").write_text(json.dumps(record, default=list))
    made = collect(tmp_path / "out", tmp_path / "kept", tables, "smoke")
    assert [path.name for path in made] == ["smoke_table1.json", "smoke_noise.json",
                                            "smoke_table3.json"]
    results = read_results(tmp_path / "kept", tables, "smoke")
    assert sorted(results) == ["blur 8", "noise", "pixelate 12"]
    whole = json.loads(next((out / "rows").glob("*.json")).read_text())
    kept = results[whole["row"]][0]["figures"]
    for name, value in whole["evaluation"]["figures"].items():
        assert kept[name] == (value if value is None else pytest.approx(value, rel=1e-5))
    assert all(path.stat().st_size < 60_000 for path in made)


def test_paths_of_a_machine_are_not_collected(tmp_path):
    record = records(MOSAIC, [{"ap50_p": 70.0}])[0]
    config = row_config(MOSAIC, "smoke", "coco:/data/coco")
    record |= {"data": "coco:/data/coco", "run": run_key(config),
               "command": "python -m privnb.tables --data coco:/data/coco"}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.json").write_text(json.dumps(record))
    tables = plan("smoke", ("2",))
    made = collect(tmp_path, tmp_path, tables, "smoke", "coco:/data/coco")
    assert [path.name for path in made] == ["smoke_coco_table2.json"]
    assert "/data" not in made[0].read_text() and "coco:DIR" in made[0].read_text()
    assert read_results(tmp_path, tables, "smoke", "coco:DIR")[MOSAIC.name]


def test_paths_of_test_sets_and_bare_paths_are_not_collected_either(tmp_path):
    data, test = "/data/it's mine/people.yaml", "coco:/data/my coco/val.json"
    row, tables = replace(MOSAIC, test=test), plan("smoke", ("transfer",), (test,))
    record = records(row, [{"ap50_p": 70.0}])[0]
    words = row_command(row, "smoke", data, 0)
    record |= {"data": data, "run": run_key(row_config(row, "smoke", data)),
               "command": f"python -m privnb.tables {shlex.join(words)}"}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.json").write_text(json.dumps(record))
    (made,) = collect(tmp_path, tmp_path / "kept", tables, "smoke", data)
    text = made.read_text()
    assert made.name == "smoke_people_transfer.json" and made.parent == tmp_path / "kept"
    assert not [word for word in ("/data", "mine", "my coco") if word in text]
    ((name, (kept,)),) = read_results(tmp_path / "kept", tables, "smoke", data).items()
    assert name == kept["row"] == "pixelate 12 on coco:DIR/val.json" and kept["data"] == "DIR/people.yaml"
    args = parser().parse_args(shlex.split(kept["command"])[3:])
    assert (args.data, args.test) == ("DIR/people.yaml", "coco:DIR/val.json")


@pytest.mark.parametrize("content", ["[]", "[1]", "3", "null", '"a"', '{"evaluation": []}', "{"])
def test_files_that_hold_no_record(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert read_record(tmp_path / "a.json") is None and not is_done(tmp_path / "a.json", BLUR)


def test_what_was_collected_before_stays(tmp_path):
    tables, kept = plan("smoke", ("2",)), tmp_path / "kept"
    for row in (MOSAIC, BLUR):
        record = records(row, [{"ap50_p": 70.0}])[0] | {"run": run_key(row_config(row, "smoke"))}
        (tmp_path / row.guidance / "rows").mkdir(parents=True)
        (tmp_path / row.guidance / "rows/a.json").write_text(json.dumps(record))
        collect(tmp_path / row.guidance, kept, tables, "smoke")
    assert sorted(read_results(kept, tables, "smoke")) == sorted([MOSAIC.name, BLUR.name])


def test_two_processes_for_one_row(tmp_path):
    "The second one waits for the first, and finds the row done."
    children = [subprocess.Popen(command(MOSAIC, tmp_path), stderr=subprocess.DEVNULL)
                for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert len(started(tmp_path)) == 1


def test_the_command_of_a_row_says_where_it_ran(tmp_path):
    path = compute_row(MOSAIC, "smoke", "scenes", 0, tmp_path, QUICK, False, "cpu")
    command = json.loads(path.read_text())["command"]
    args = parser().parse_args(command.split()[3:])
    assert args.accelerator == "cpu"
    with pytest.raises(SystemExit):
        parser().parse_args([*command.split()[3:], "--accelerator", "gpu"])
    assert compute_row(MOSAIC, "smoke", "scenes", 0, tmp_path, QUICK, False) == path
    assert len(started(tmp_path)) == 1


def test_a_card_that_did_not_work_is_not_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert "a card" in machine("cuda") and "a card" not in machine("cpu")


def test_a_row_on_other_data_uses_the_run_that_is_there(tmp_path):
    compute_row(MOSAIC, "smoke", "scenes", 0, tmp_path, FEW, progress=False)
    other = replace(MOSAIC, test="scenes:train")
    path = compute_row(other, "smoke", "scenes", 0, tmp_path, FEW, progress=False)
    figures = json.loads(path.read_text())["evaluation"]["figures"]
    assert {"ap50_p_conventional", "ap50_o_control"} <= set(figures)
    assert [step for _, step in started(tmp_path)] == [0, -1]
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_failed_row_spoils_no_other(tmp_path, monkeypatch):
    from privnb import tables as room

    whole = room.train_run

    def fail(config, *args):
        if config.system.guidance.kind == "blur":
            raise OSError("no space left on device")
        return whole(config, *args)

    monkeypatch.setattr(room, "train_run", fail)
    state = run_tables(tmp_path, "smoke", seeds=(0,), tables=("1",), base=QUICK, progress=False)
    assert state["rows"] == 1 and state["missing"] == ["blur 8, seed 0"]
    assert list(state["failed"].values()) == ["OSError: no space left on device"]
    assert [e["event"] for e in events(tmp_path)][-1] in ("failed", "done")
    assert "missing" in (tmp_path / "tables/table1.html").read_text()


def test_a_damaged_row_is_computed_again(tmp_path):
    path = compute_row(MOSAIC, "smoke", "scenes", 0, tmp_path, QUICK, progress=False)
    path.write_text(path.read_text()[:200])
    assert not is_done(path, MOSAIC)
    compute_row(MOSAIC, "smoke", "scenes", 0, tmp_path, QUICK, progress=False)
    assert is_done(path, MOSAIC) and [step for _, step in started(tmp_path)] == [0, -1]


def test_interrupted_training_stops_the_table(tmp_path, monkeypatch):
    from privnb.trainer import JointTrainer

    def interrupted(self, until=None):
        self.checkpoint([])
        return []

    monkeypatch.setattr(JointTrainer, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_tables(tmp_path, "smoke", seeds=(0,), tables=("1",), base=QUICK, progress=False)
    assert main(command(MOSAIC, tmp_path)[3:]) == 130
    assert not list((tmp_path / "rows").glob("*.json"))


def test_photographs_are_judged_without_a_strip(tmp_path):
    real = replace(MOSAIC, test="photographs")
    path = compute_row(real, "smoke", "scenes", 0, tmp_path, QUICK, progress=False)
    content = json.loads(path.read_text())
    assert content["evaluation"]["notes"]["images"] == 3
    assert content["evaluation"]["images"][0]["name"] == "ultralytics:bus.jpg"
    assert not list(tmp_path.glob("strips/*"))


# the results in the repository

PLAN = plan("lecture")


def kept(*names):
    "Results of the tables; skips where one of them has no file yet."
    for name in names:
        if not (RESULTS / f"lecture_{name}.json").exists():
            pytest.skip(f"no results of {name} yet")
    return read_results(RESULTS, {name: PLAN[name] for name in names})


def mean(results, row, name, seeds=None):
    "Over the seeds, or some; skips while the row has not been computed, which the notebook says too."
    if row.name not in results:
        pytest.skip(f"{row.name} has not been computed yet")
    values = [record["figures"][name] for record in results[row.name]
              if seeds is None or record["seed"] in seeds]
    return sum(values) / len(values)


@pytest.mark.parametrize("row", [BLUR, MOSAIC], ids=lambda row: row.guidance)
def test_joint_training_beats_conventional_fine_tuning(row):
    results = kept("table2")
    assert mean(results, row, "ap50_p") > mean(results, row, "ap50_p_conventional")


@pytest.mark.parametrize("row", [BLUR, MOSAIC], ids=lambda row: row.guidance)
def test_recovered_pictures_serve_at_least_as_well_as_the_pretrained(row):
    results = kept("table2")
    assert mean(results, row, "ap50_r") >= mean(results, row, "ap50_o_pre")


@pytest.mark.parametrize("kind", ["blur", "pixelate"])
@pytest.mark.parametrize("figure, noise", [("ap50_p", 1.0), ("psnr_op", 0.1)])
def test_pose_falls_and_privacy_rises_with_the_radius(kind, figure, noise):
    """From end to end without exception; from one radius to the next up to the noise of training.
    Over the seeds that all radii have."""
    results = kept("table3")
    rows = [row for row in PLAN["table3"].rows if row.guidance == kind]
    seeds = set.intersection(*({record["seed"] for record in results.get(row.name, ())} for row in rows))
    if not seeds:
        pytest.skip("no seed has all radii yet")
    values = [mean(results, row, figure, seeds) for row in rows]
    assert len(values) == 4 and values[0] > values[-1]
    assert all(b < a + noise for a, b in zip(values, values[1:]))


def printed_in_the_notebook():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = ["".join(output.get("text", "")) for output in outputs]
    tables = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    return "\n".join(texts), [table for table in tables if table]


def test_u_nets_beat_resnets_or_the_notebook_says_that_they_do_not():
    results = kept("table4")
    claim = PLAN["table4"].claims[0]
    assert "U-Nets leave more pose" in claim.text
    made = verdict(claim, results)
    if made.held is None:
        pytest.skip("not all backbones have been computed yet")
    assert made.held or made.sentence in printed_in_the_notebook()[0]


def test_the_notebook_names_every_contradiction_first():
    results = read_results(RESULTS, PLAN)
    text, _ = printed_in_the_notebook()
    for sentence in contradictions(PLAN, results):
        assert sentence in text
        assert text.index(sentence) < text.index("table1 ")


def test_the_notebook_says_what_is_missing():
    results = read_results(RESULTS, PLAN)
    text, _ = printed_in_the_notebook()
    for name, table in PLAN.items():
        line = re.search(rf"^{name} +(.*)$", text, re.M)[1]
        assert line == missing_in_words(table, results)
        assert (line == "complete") == (not missing_rows(table, results))


def test_the_tables_of_the_notebook_are_those_of_the_files():
    results = read_results(RESULTS, PLAN)
    _, found = printed_in_the_notebook()
    assert [page.strip() for page in found] == [
        to_html(PLAN[name], results).strip()
        for name in ("table1", "table2", "table3", "noise", "table4", "lambda", "threshold",
                     "transfer", "resolution", "scenes")]


def test_the_verdicts_of_the_notebook_are_those_of_the_files():
    text, _ = printed_in_the_notebook()
    for name, part in verdicts(PLAN, read_results(RESULTS, PLAN)).items():
        assert all(f"{name}: {one.sentence}" in text for one in part)


@pytest.mark.parametrize("name", TABLES)
def test_kept_records_are_of_the_preset_of_today(name):
    results = kept(name)
    rows = {row.name: row for row in PLAN[name].rows}
    assert results
    for row, part in results.items():
        for record in part:
            assert belongs(record, rows[row]), f"{row}, seed {record['seed']}: another run"
            assert record["command"] and record["machine"] and record["hours"] > 0
            assert all(v in (None, "inf") or math.isfinite(v) for v in record["figures"].values())


def test_stems_of_files():
    assert pages.strip_name(MOSAIC) == "lecture_pixelate_12.jpg"
    assert pages.strip_name(NOISE, "paper", "coco:/data") == "paper_coco_noise.jpg"


@pytest.mark.parametrize("calm", [True, False])
def test_strips_are_copied_or_made_small(tmp_path, calm):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    save_image(np.full_like(pixels, 90) if calm else pixels, tmp_path / "strip.jpg", quality=80)
    _keep_strip(tmp_path / "strip.jpg", tmp_path / "kept.jpg")
    same = (tmp_path / "strip.jpg").read_bytes() == (tmp_path / "kept.jpg").read_bytes()
    assert same == calm and (tmp_path / "kept.jpg").stat().st_size <= MOST
    assert load_image(tmp_path / "kept.jpg").shape == (480, 640, 3)
