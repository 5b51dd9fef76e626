"""What the project tells the world beside its code: workflows, versions, requirements."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import yaml

import xpconv

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SESSIONS = {
    name or function.replace("_", "-")
    for name, function in re.findall(
        r'^@nox\.session(?:\((?:name="([\w-]+)")?.*\))?\ndef (\w+)',
        (ROOT / "noxfile.py").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}


def jobs():
    """Each job of each workflow, once for each member of its matrix."""
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items():
            yield f"{path.name}: {name}", job


def test_every_command_of_a_workflow_is_a_session_of_nox():
    """`nox -s` with a session by name, or with those of a matrix; the one other command installs nox."""
    seen = set()
    for where, job in jobs():
        members = [
            row["session"] for row in job.get("strategy", {}).get("matrix", {}).get("include", []) if "session" in row
        ]
        for step in job["steps"]:
            if command := step.get("run"):
                asked = re.fullmatch(
                    r"nox -s (\$\{\{ matrix\.session \}\}|[\w-]+)( -- [^;&|$\n]*| -- \"\$\w+\")?", command
                )
                assert asked, f"{where}: {command}"
                seen |= set(members if "matrix" in asked[1] else [asked[1]])
    assert seen <= SESSIONS
    assert SESSIONS - seen == {"bench", "bench-dask", "fit"}  # they measure


def test_no_action_comes_from_strangers():
    known = ("actions/", "pypa/gh-action-pypi-publish@", "./.github/")
    for where, job in jobs():
        assert all(step["uses"].startswith(known) for step in job["steps"] if "uses" in step), where


def test_the_pythons_that_are_tested_are_those_that_are_promised():
    matrix = dict(jobs())["tests.yml: cpu"]["strategy"]["matrix"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    assert set(promised) <= set(matrix["python"])
    assert PYPROJECT["project"]["requires-python"] == f">={matrix['python'][0]}"
    assert {matrix["os"][0], *(row["os"] for row in matrix["include"])} == {
        f"{system}-latest" for system in ("ubuntu", "macos", "windows")
    }


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == xpconv.__version__
    released = re.findall(
        r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert (xpconv.__version__, citation["date-released"]) == released[0]
    assert released == sorted(released, key=lambda one: [int(number) for number in one[0].split(".")], reverse=True)


def test_pre_commit_has_the_same_releases_as_the_sessions():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    asked = {need for hook in hooks for need in hook["additional_dependencies"]}
    groups, needed = PYPROJECT["dependency-groups"], PYPROJECT["project"]["dependencies"]
    assert asked <= {*groups["lint"], *groups["typing"], *needed}
    assert {need for need in asked if "==" in need} | {"check-jsonschema==0.39.0"} == {
        *groups["lint"],
        *groups["typing"],
    }


def test_the_pictures_are_those_of_the_benchmark():
    """Otherwise: python docs/pictures/draw.py."""
    folder = ROOT / "docs" / "pictures"
    for name, draw in runpy.run_path(str(folder / "draw.py"))["PICTURES"].items():
        assert (folder / name).read_text(encoding="utf-8") == draw()
