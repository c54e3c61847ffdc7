"""The package is described in setup.cfg; here is what setup.cfg cannot say."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist


class FreshBuild(build_py):
    """Leaves out modules that an earlier build left in `build/`."""

    def run(self):
        for package in {name.partition(".")[0] for name in self.packages}:
            built = pathlib.Path(self.build_lib, package).resolve()
            if built != pathlib.Path(package).resolve():  # never the source
                shutil.rmtree(built, ignore_errors=True)
        super().run()


class WholeSource(sdist):
    """Adds what a MANIFEST.in would add."""

    def make_distribution(self):
        self.filelist.include("CHANGELOG.md")
        for folder in ("tests", "notebooks"):
            self.filelist.graft(folder)
        self.filelist.global_exclude("*.py[cod]")
        super().make_distribution()


setup(cmdclass={"build_py": FreshBuild, "sdist": WholeSource})
