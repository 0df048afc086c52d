"""The labs through real nbgrader: who gets how many points; and what `privnb lab` writes."""
import argparse
import ast
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from privnb import labs

ROOT = Path(__file__).resolve().parent.parent
SOURCE, NOTES = (ROOT / "nbs" / "labs" / name for name in ("source", "notes"))
NAMES = sorted(path.name for path in SOURCE.iterdir())
pytestmark = pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's use of SQLAlchemy
each_lab = pytest.mark.parametrize("lab", NAMES)
sys.path.insert(0, str(ROOT / "tools"))


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def marked(notebook):
    "Cells with nbgrader metadata: name -> (metadata, source)."
    pairs = [(cell["metadata"]["nbgrader"], "".join(cell["source"])) for cell in notebook["cells"]
             if "nbgrader" in cell["metadata"]]
    found = {meta["grade_id"]: (meta, text) for meta, text in pairs}
    assert len(found) == len(pairs), "a name is used twice"
    return found


def source_of(lab):
    return read(SOURCE / lab / f"{lab}.ipynb")


# grading

def hand_in(course, student, lab, notebook):
    path = course / "submitted" / student / lab / f"{lab}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")


SLIPS = {  # an exercise with a common error that the visible tests do not find
    "1_guidance": ("ex2", "math.log(255)", "math.log(510)"),
    "2_losses": ("ex2", "threshold / 2).clamp", "threshold).clamp"),
    "3_recovery": ("ex2", ".clamp(0, 1)", ""),
    "4_joint_training": ("ex2", " if total else 0.0", ""),
    "5_edge": ("ex4", "    times.sort()\n", ""),
    "6_privacy": ("ex6", "max(row['attackers'])", "row['attackers'][0]"),
}


def half_solved(lab, released, source):
    "The release with the first, third, fifth... solution put in, their names, and one slip."
    solutions = {cell["id"]: cell for cell in source["cells"]
                 if cell["metadata"].get("nbgrader", {}).get("solution")
                 and cell["cell_type"] == "code"}
    names = {key: cell["metadata"]["nbgrader"]["grade_id"] for key, cell in solutions.items()}
    chosen, (slip, right, wrong) = list(solutions)[::2], SLIPS[lab]
    half = copy.deepcopy(released)
    for cell in half["cells"]:
        text = "".join(solutions[cell["id"]]["source"]) if cell["id"] in solutions else ""
        if cell["id"] in chosen:
            cell["source"] = text
        elif names.get(cell["id"]) == slip:
            assert right in text
            cell["source"] = text.replace(right, wrong)
    return half, {names[key] for key in chosen}


@pytest.fixture(scope="session")
def graded(tmp_path_factory):
    "lab -> student -> {cell: (points, most, needs a person)}, and who had solved what."
    pytest.importorskip("nbgrader", reason="grading needs nbgrader: pip install 'privnb[course]'")
    import pack_labs
    from nbgrader.api import Gradebook
    from nbgrader.converters import Autograde

    course, solved, scores = tmp_path_factory.mktemp("course"), {}, {}
    for lab in pack_labs.course_at(course):
        released = read(pack_labs.release(course, lab) / f"{lab}.ipynb")
        half, solved[lab] = half_solved(lab, released, source_of(lab))
        for student, notebook in (("solved", source_of(lab)), ("blank", released), ("half", half)):
            hand_in(course, student, lab, notebook)
        pack_labs.converter(Autograde, course, assignment_id=lab, student_id="*").start()
        with Gradebook(f"sqlite:///{course}/gradebook.db", "privnb") as book:
            scores[lab] = {student: {
                grade.name: (grade.auto_score, grade.max_score, grade.needs_manual_grade)
                for grade in book.find_submission_notebook(lab, lab, student).grades}
                for student in ("solved", "blank", "half")}
    return course, scores, solved


@each_lab
def test_the_solution_gets_full_marks(graded, lab):
    tests = {name: row for name, row in graded[1][lab]["solved"].items() if name != "open1"}
    assert sum(most for _, most, _ in tests.values()) == 20
    assert [name for name, (got, most, _) in tests.items() if got != most] == []


@each_lab
def test_the_untouched_release_gets_nothing(graded, lab):
    rows = graded[1][lab]["blank"]
    assert len(rows) == len(graded[1][lab]["solved"])
    assert [name for name, (got, *_) in rows.items() if got] == []


@each_lab
def test_half_of_the_solutions_get_exactly_their_points(graded, lab):
    _, scores, solved = graded
    assert 0 < len(solved[lab]) < sum(name.startswith("ex") for name in scores[lab]["half"])
    for name, (got, most, _) in scores[lab]["half"].items():
        earned = name.split("_")[0] in solved[lab] or name == f"{SLIPS[lab][0]}_visible"
        assert got == (most if earned else 0), name


@each_lab
def test_the_open_question_waits_for_a_person(graded, lab):
    got, most, waits = graded[1][lab]["solved"]["open1"]
    assert (got, most, waits) == (None, 5, True)


@each_lab
def test_the_release_in_the_package_is_the_one_that_nbgrader_makes(graded, lab):
    import pack_labs

    fresh = pack_labs.contents(graded[0] / "release" / lab)
    assert fresh == pack_labs.contents(pack_labs.RELEASED / lab), "run tools/pack_labs.py"


def test_the_course_reads_the_results_that_stand_in_the_repository():
    import pack_labs

    for kept, source in pack_labs.DATA.items():
        assert kept.read_bytes() == source.read_bytes(), "run tools/pack_labs.py"


# the sources

@each_lab
def test_cells_are_marked_as_they_should_be(lab):
    cells, exercises = marked(source_of(lab)), set()
    for name, (meta, text) in cells.items():
        assert meta["schema_version"] == 3 and not meta["task"]
        if re.fullmatch(r"ex\d", name):
            exercises.add(name)
            assert meta["solution"] and not meta["grade"] and not meta["locked"]
            assert "### BEGIN SOLUTION" in text and "### END SOLUTION" in text
        elif name == "open1":
            assert meta["solution"] and meta["grade"] and meta["points"] == 5
        else:
            assert meta["grade"] and meta["locked"] and not meta["solution"] and meta["points"] > 0
            hidden = "### BEGIN HIDDEN TESTS" in text
            assert hidden == name.endswith("_hidden")
            assert text.count("assert") > 0
    assert 4 <= len(exercises) <= 6
    wanted = {f"{name}_{kind}" for name in exercises for kind in ("visible", "hidden")}
    assert {name for name in cells if "_" in name} == wanted


@each_lab
def test_points_in_the_headings_are_those_of_the_tests(lab):
    text = "\n".join("".join(c["source"]) for c in source_of(lab)["cells"] if c["cell_type"] == "markdown")
    headings = {f"ex{n}": int(points) for n, points
                in re.findall(r"^## Exercise (\d): .*\((\d+) points\)$", text, re.M)}
    sums = {}
    for name, (meta, _) in marked(source_of(lab)).items():
        if name.startswith("ex") and meta["grade"]:
            sums[name[:3]] = sums.get(name[:3], 0) + meta["points"]
    assert headings == sums and sum(sums.values()) == 20


@each_lab
def test_the_rubric_sums_to_the_points_of_the_question(lab):
    cells = source_of(lab)["cells"]
    place = next(i for i, c in enumerate(cells)
                 if c["metadata"].get("nbgrader", {}).get("grade_id") == "open1")
    question = "".join(cells[place - 1]["source"])
    rubric = [int(points) for points in re.findall(r"^\| (\d+) \|", question, re.M)]
    assert len(rubric) >= 3
    assert sum(rubric) == cells[place]["metadata"]["nbgrader"]["points"]


@each_lab
def test_the_release_gives_nothing_away(lab):
    text = (ROOT / "privnb" / "assets" / "labs" / lab / f"{lab}.ipynb").read_text(encoding="utf-8")
    assert "BEGIN" not in text and "END SOLUTION" not in text
    assert text.count("raise NotImplementedError()") >= 4 and "YOUR ANSWER HERE" in text
    assert all(not cell.get("outputs") for cell in json.loads(text)["cells"])


@each_lab
def test_the_lecturers_note_plans_90_minutes(lab):
    text = (NOTES / f"{lab}.md").read_text(encoding="utf-8")
    plan = labs.time_plan(text)
    assert sum(minutes for minutes, _ in plan) == 90
    exercises = {name for name in marked(source_of(lab)) if re.fullmatch(r"ex\d", name)}
    planned = {f"ex{n}" for _, part in plan for n in re.findall(r"exercise (\d)", part)}
    assert planned == exercises and any("open question" in part for _, part in plan)
    assert all(f"## {part}" in text for part in ("Time plan", "Expected answers", "Common errors"))


# exercises at the end of the rooms

ROOMS = sorted(p for p in (ROOT / "nbs").glob("*.ipynb") if re.match(r"\d\d[a-z]?_", p.name))


def checks(cells):
    "How many of the code cells assert something."
    found = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            code = re.sub(r"^[%!].*$", "", "".join(cell["source"]), flags=re.M)
            found += any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))
    return found


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.stem)
def test_rooms_end_with_exercises_that_have_tested_solutions(room):
    cells = read(room)["cells"]
    text = ["".join(c["source"]) for c in cells]
    (place,) = [i for i, c in enumerate(cells) if c["cell_type"] == "markdown"
                and re.search(r"^## Exercises$", text[i], re.M)]
    assert not any(re.match(r"## ", t) for t in text[place + 1:]), "the exercises come last"
    asked = text[place].partition("## Exercises")[2] + "\n" + "\n".join(
        text[i] for i in range(place + 1, len(cells)) if cells[i]["cell_type"] == "markdown")
    count = len(re.findall(r"^(?:#+ |\*\*)?(\d)\b[.) ]", asked, re.M))
    assert 3 <= count <= 5
    assert checks(cells[place + 1:]) == count, "each exercise has a cell that checks it"
    answers = read(room.parent / "solutions" / room.name)["cells"]
    assert checks(answers) >= count, "each answer is checked where it is executed"


# what `privnb lab` writes

def links(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"]
                         if c["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)
    return [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)
            if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("instructor", (False, True))
def test_copies_are_whole_and_their_links_lead_somewhere(tmp_path, instructor):
    out = labs.copy_labs(tmp_path / "course", instructor)
    here = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    for name in NAMES:
        assert f"labs/release/{name}/{name}.ipynb" in here
        for secret in (f"labs/source/{name}/{name}.ipynb", f"labs/notes/{name}.md"):
            assert (secret in here) == instructor
    rooms = {p.name for p in (ROOT / "nbs").glob("*.ipynb")}
    assert rooms <= here and "data_samples/annotations.json" in here
    assert ("labs/nbgrader_config.py" in here) == instructor
    dead = [(str(p.relative_to(out)), link) for p in out.rglob("*") if p.suffix in (".md", ".ipynb")
            for link in links(p) if not (p.parent / link).exists()]
    assert dead == []


def test_copied_notebooks_keep_their_code(tmp_path):
    out, contents = labs.copy_labs(tmp_path / "course", True), labs._contents(True)
    for name in (name for name in contents if name.endswith(".ipynb")):
        copied, kept = read(out / name), read(contents[name])
        assert [c["id"] for c in copied["cells"]] == [c["id"] for c in kept["cells"]], name
        for one, other in zip(copied["cells"], kept["cells"]):
            assert one["cell_type"] == other["cell_type"]
            if one["cell_type"] == "code":
                assert one["source"] == other["source"], f"{name}, cell {one['id']}"
        assert (out / name).read_text(encoding="utf-8") == json.dumps(copied, indent=1, ensure_ascii=False) + "\n"


def test_a_folder_that_exists_is_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="exists already"):
        labs.copy_labs(tmp_path)
    with pytest.raises(ValueError, match="exists already"):
        labs.copy_labs(tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(labs.shutil, "copyfile", full)
    with pytest.raises(ValueError, match="no space left"):
        labs.copy_labs(tmp_path / "course")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_to_install_nbgrader(tmp_path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    labs.add_lab(parser.add_subparsers())
    args = parser.parse_args(["lab", "--instructor", str(tmp_path / "course")])
    monkeypatch.setattr(labs, "has_nbgrader", lambda: False)
    assert args.run(args) == 0
    text = capsys.readouterr().out
    assert "pip install 'privnb[course]'" in text and str(tmp_path / "course") in text
    assert (tmp_path / "course" / "labs" / "source" / NAMES[0]).is_dir()


def test_nbgrader_accepts_the_course_that_an_instructor_gets(tmp_path):
    pytest.importorskip("nbgrader")
    out = labs.copy_labs(tmp_path / "course", instructor=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run([sys.executable, "-m", "nbgrader", "generate_assignment", NAMES[0], "--force"],
                         cwd=out / "labs", env={**os.environ, "PATH": path}, capture_output=True,
                         text=True)
    assert run.returncode == 0, run.stderr
    again = out / "labs" / "release" / NAMES[0] / f"{NAMES[0]}.ipynb"
    kept = ROOT / "privnb" / "assets" / "labs" / NAMES[0] / f"{NAMES[0]}.ipynb"
    assert again.read_bytes() == kept.read_bytes()


def test_a_wheel_holds_what_the_command_needs(tmp_path):
    "Built without a network from a copy of the tree (weights left out), unpacked, and used from there."
    pytest.importorskip("setuptools", minversion="77")
    tree, skip = tmp_path / "tree", shutil.ignore_patterns("weights", "__pycache__", ".*")
    for name in ("privnb", "nbs", "data_samples"):
        shutil.copytree(ROOT / name, tree / name, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
                    "--no-build-isolation", "--disable-pip-version-check", "-w", tmp_path, tree],
                   check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        more = sum(e.compress_size for e in file.infolist() if e.filename.startswith("privnb/nbs/"))
        file.extractall(tmp_path / "site")
    assert 0 < more < 3_000_000
    code = """
import sys; from privnb import labs
assert labs.__file__.startswith(sys.argv[2]); labs.copy_labs(sys.argv[1], True)
"""
    for name, place in (("used", tmp_path / "site"), ("plain", tree)):
        subprocess.run([sys.executable, "-c", code, tmp_path / name, place], check=True, cwd=tmp_path,
                       env={**os.environ, "PYTHONPATH": str(place)})
    found = [{str(p.relative_to(tmp_path / name)) for p in (tmp_path / name).rglob("*") if p.is_file()}
             for name in ("used", "plain")]
    assert found[0] == found[1]
    differ = [name for name in found[0]
              if (tmp_path / "used" / name).read_bytes() != (tmp_path / "plain" / name).read_bytes()]
    assert differ == [], "from a wheel and from a checkout the course is the same"
