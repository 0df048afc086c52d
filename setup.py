"Beyond pyproject.toml: a wheel carries the notebooks, as privnb/nbs, for `privnb lab`."
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))


class WithNotebooks(build_py):
    "Builds the package, then copies what `privnb.labs.course_files` names, notebooks without outputs."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        from privnb.labs import course_files, fresh

        inside = Path(self.build_lib) / "privnb" / "nbs"
        shutil.rmtree(inside, ignore_errors=True)
        for name, path in course_files(ROOT / "nbs").items():
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".ipynb":
                text = fresh(path.read_text(encoding="utf-8"))
                (inside / name).write_text(text, encoding="utf-8")
            else:
                shutil.copyfile(path, inside / name)


setup(cmdclass={"build_py": WithNotebooks})
