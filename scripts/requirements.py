"""Print pyproject.toml's requirements and its dev group, but those that the environment already meets.

An installed torch of another build (a CPU one from the system's packages) must not be replaced by the index's.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
for requirement in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
    name = requirement.partition(">")[0].partition("=")[0].partition("[")[0]
    if name == "torch":
        try:
            found = tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2])
            least = tuple(int(part) for part in requirement.partition(">=")[2].split(",")[0].split("."))
            if found >= least:
                continue
        except PackageNotFoundError:
            pass
    print(requirement)
