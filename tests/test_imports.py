"""The import line: corpora <- retrieval <- agents <- eval <- training <- sleuth, light at import, and no pickle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = ("corpora", "retrieval", "agents", "eval", "training", "sleuth")
HEAVY = (
    "torch transformers sentence_transformers faiss langgraph trafilatura duckdb peft datasets pyarrow bm25s "
    "gguf safetensors llguidance httpx pypdf sklearn scipy starlette uvicorn"
).split()
GRAPH_FILES = {"agents/role.py", "agents/graph.py"}
"""The only files that import langgraph, which they do at their top: what imports them does so inside functions."""
BROUGHT = {"langgraph", "httpx"}
"""What these two bring with them."""
RUNS_CODE = {"pickle", "dill", "shelve", "marshal", "cloudpickle", "joblib"}


def sources(folder: str) -> list[Path]:
    files = (ROOT / folder).rglob("*.py")
    return sorted(f for f in files if folder != "sleuth" or f.relative_to(ROOT).parts[1] not in LINE)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def faults(text: str, folder: str, name: str) -> list[str]:
    """What is wrong with the imports of one file."""
    reachable = LINE[: LINE.index(folder) + 1] if folder in LINE else LINE
    found = []
    for module, line in imported(ast.parse(text)):
        first, _, rest = module.partition(".")
        second = rest.partition(".")[0]
        if first in LINE[:-1]:
            found.append(f"{name}:{line} bare import of {module}")
        if first == "sleuth" and folder in LINE[:-1] and second not in reachable and (rest or module == "sleuth"):
            found.append(f"{name}:{line} {folder} imports {module}, which stands to its right")
        if first in RUNS_CODE:
            found.append(f"{name}:{line} {first} can run a stranger's code")
        if first == "langgraph" and folder != "tests" and name not in GRAPH_FILES:
            allowed = module.startswith("langgraph.checkpoint") and name == "agents/graph.py"
            if not allowed:
                found.append(f"{name}:{line} only {sorted(GRAPH_FILES)} import langgraph")
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("folder", [*LINE, "tests"])
def test_imports_run_leftwards(folder: str) -> None:
    found = [
        fault
        for file in sources(folder)
        for fault in faults(file.read_text(encoding="utf-8"), folder, str(file.relative_to(ROOT)))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("import agents", "eval"),
        ("from corpora.records import Passage", "retrieval"),
        ("from sleuth.eval import x", "agents"),
        ("from sleuth import agents", "retrieval"),
        ("def f():\n    import sleuth.training.sft", "eval"),
        ("import pickle", "corpora"),
        ("from langgraph.graph import END", "agents"),
    ],
)
def test_the_check_finds_what_is_forbidden(text: str, folder: str) -> None:
    assert faults(text, folder, "agents/other.py")


@pytest.mark.parametrize(
    ("text", "folder"),
    [("from sleuth.corpora.records import Passage", "retrieval"), ("from sleuth.agents import cite", "eval")],
)
def test_the_check_lets_leftward_imports_be(text: str, folder: str) -> None:
    assert not faults(text, folder, "x.py")


def modules() -> list[str]:
    found = []
    for folder in LINE:
        for file in sources(folder):
            name = str(file.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
            found.append(name if folder == "sleuth" else f"sleuth.{name}")
    return found


def at_the_top(name: str) -> set[str]:
    """Our modules that a module imports when it is imported."""
    parts = name.removeprefix("sleuth.").split(".")
    base = (
        ROOT
        / ("sleuth" if name == "sleuth" or parts[0] not in LINE else "")
        / "/".join(parts if name != "sleuth" else [])
    )
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {module for node in top for module, _ in imported(ast.Module([node], [])) if module.startswith("sleuth.")}


def needing_graphs() -> set[str]:
    """The modules that import one of `GRAPH_FILES` at their top, or one that does."""
    tops = {name: at_the_top(name) for name in modules()}
    found = {"sleuth." + name.removesuffix(".py").replace("/", ".") for name in GRAPH_FILES}
    while more := {name for name, top in tops.items() if top & found} - found:
        found |= more
    return found


def test_importing_any_module_is_light() -> None:
    graphs = needing_graphs()
    light = [name for name in modules() if name not in graphs]
    assert {"sleuth", "sleuth.cli", "sleuth.agents.records", "sleuth.eval.records"} <= set(light)
    code = "\n".join(
        [
            "import importlib, sys",
            f"for names, heavy in (({light!r}, {HEAVY!r}), ({sorted(graphs)!r}, {sorted({*HEAVY} - BROUGHT)!r})):",
            "    for name in names:",
            "        importlib.import_module(name)",
            "        found = [h for h in heavy if h in sys.modules]",
            "        assert not found, f'{name} imports {found}'",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_module_opens_with_a_sentence() -> None:
    without = [
        str(file.relative_to(ROOT))
        for folder in LINE
        for file in sources(folder)
        if file.stat().st_size and not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert without == []
