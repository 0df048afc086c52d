"""The labs as participants get them: nbs/labs/source through nbgrader into privnb/assets/labs.

python tools/pack_labs.py           write them
python tools/pack_labs.py --check   say which differ from what the sources give, and fail if any does

Lab 4 reads results of real runs: its copy of nbs/results/lecture.json is renewed here too.
"""
import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LABS, RELEASED = ROOT / "nbs" / "labs", ROOT / "privnb" / "assets" / "labs"
DATA = {LABS / "source" / "4_joint_training" / "runs.json": ROOT / "nbs" / "results" / "lecture.json"}


def converter(kind, course, **options):
    """An nbgrader converter (GenerateAssignment, Autograde) of one course folder, quiet.

    nbgrader starts `alembic` by its bare name, so the folder of this Python must be on the PATH.
    """
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    binaries = str(Path(sys.executable).parent)
    if binaries not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = binaries + os.pathsep + os.environ["PATH"]
    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.course_id = "privnb"
    config.Execute.timeout = 180
    for name, value in options.items():
        setattr(config.CourseDirectory, name, value)
    made = kind(coursedir=CourseDirectory(config=config), parent=None, config=config)
    made.log.setLevel("ERROR")
    return made


def course_at(folder):
    "A course with the sources of the labs in an empty folder; returns the names of the labs."
    shutil.copytree(LABS / "source", folder / "source",
                    ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return sorted(path.name for path in (folder / "source").iterdir())


def release(folder, lab):
    "Let nbgrader make release/LAB of source/LAB."
    from nbgrader.converters import GenerateAssignment

    converter(GenerateAssignment, folder, assignment_id=lab).start()
    return folder / "release" / lab


def contents(folder):
    "Relative name -> bytes of every file."
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--check", action="store_true", help="write nothing")
    args = options.parse_args()
    stale = [str(copy.relative_to(ROOT)) for copy, source in DATA.items()
             if copy.read_bytes() != source.read_bytes()]
    if not args.check:
        for copy, source in DATA.items():
            shutil.copyfile(source, copy)
    with tempfile.TemporaryDirectory() as made:
        for lab in course_at(Path(made)):
            release(Path(made), lab)
        fresh, kept = contents(Path(made) / "release"), contents(RELEASED)
    stale += [name for name in sorted({*fresh, *kept}) if fresh.get(name) != kept.get(name)]
    if args.check:
        print("\n".join(f"stale: {name}" for name in stale) or "the released labs are fresh")
        return int(bool(stale))
    shutil.rmtree(RELEASED, ignore_errors=True)
    for name, content in fresh.items():
        (RELEASED / name).parent.mkdir(parents=True, exist_ok=True)
        (RELEASED / name).write_bytes(content)
    print(f"{len(fresh)} files in {RELEASED.relative_to(ROOT)}, {len(stale)} of them new or changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
