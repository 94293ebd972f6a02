"""What is installed: the wheel and the sdist hold the code of all six folders and their data, and nothing else."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sleuth

ROOT = Path(__file__).parent.parent
FOLDERS = ("corpora", "retrieval", "agents", "eval", "training")
DATA = ("agents/adapters/**/*", "retrieval/rerankers/**/*", "eval/rows/**/*")


def expected() -> set[str]:
    """Every file of the package as the wheel names it."""
    files = [f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py")]
    files += [f for pattern in DATA for f in ROOT.glob(pattern) if f.is_file()]
    names = {f"sleuth/{f.relative_to(ROOT)}" for f in files}
    return names | {str(f.relative_to(ROOT)) for f in own_files()} | {"sleuth/py.typed"}


def own_files() -> list[Path]:
    """The modules of the face, without what the links lead to."""
    return [f for f in (ROOT / "sleuth").rglob("*.py") if f.relative_to(ROOT).parts[1] not in FOLDERS]


def build(source: Path, target: str, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl" if target == "wheel" else "*.tar.gz"))


def contents(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_code_and_its_data(wheel: Path) -> None:
    found = contents(wheel)
    assert expected() - found == set()
    assert [name for name in found if not name.startswith("sleuth/") or "tests" in name or "demo/pages" in name] == []


def test_the_licence_travels_with_the_wheel(wheel: Path) -> None:
    names = [Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/licenses/" in name]
    assert sorted(names) == ["LICENSE", "NOTICE"]


def test_a_wheel_made_from_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    assert contents(build(next(tmp_path.glob("sleuth-*")), "wheel", tmp_path / "again")) == contents(wheel)


def test_the_links_lead_to_the_folders() -> None:
    for folder in FOLDERS:
        link = ROOT / "sleuth" / folder
        assert link.is_symlink() and link.readlink() == Path("..") / folder


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_pinned_versions_lie_in_the_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(n): v for n, v in (line.split("==") for line in lines if not line.startswith("#"))}
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    for text in [*project()["dependencies"], *extras["cpu"], *extras["serve"], *extras["dev"]]:
        wanted = Requirement(text)
        if wanted.name != "sleuth":
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


APART = {"inspect_ai"}
"""Bounds fsspec below our pin, so it lives in an environment of its own."""
OURS = {"sleuth", "tests", "bench"}


def test_what_is_imported_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(line.split("==")[0]) for line in lines if not line.startswith("#")}
    homes = importlib.metadata.packages_distributions()
    files = [f for folder in (*FOLDERS, "tests") for f in (ROOT / folder).rglob("*.py")] + own_files()
    unpinned = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in (
                {n.partition(".")[0] for n in names} - sys.stdlib_module_names - {"sleuth", "tests", "bench", *APART}
            ):
                if not pins & {canonicalize_name(home) for home in homes.get(name, [name])}:
                    unpinned.add(f"{file.relative_to(ROOT)}: {name}")
    assert unpinned == set()


def test_no_extra_mixes_the_two_builds_of_faiss() -> None:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    mixed = {name: [r for r in wanted if r.startswith("faiss")] for name, wanted in extras.items()}
    assert all(len(found) <= 1 for found in mixed.values())


def test_one_version_everywhere() -> None:
    assert project()["version"] == sleuth.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (\S+)", changelog, re.M)
    assert first and first[1] == sleuth.__version__


def test_every_public_name_can_be_had() -> None:
    for name in sleuth.__all__:
        assert getattr(sleuth, name) is not None
    with pytest.raises(AttributeError, match="'sleuth' has no attribute 'nonsense'"):
        sleuth.nonsense  # noqa: B018
