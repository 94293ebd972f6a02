"""The Ray Serve recipe on one machine: shards as deployments, and one that is taken away."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from sleuth.corpora.errors import InputError
from sleuth.retrieval.build import BuildSpec, build
from tests.retrieval_stores import corpus

pytest.importorskip("ray.serve", reason="the extra ray", exc_type=ImportError)
pytestmark = pytest.mark.skipif(
    "SLEUTH_TEST_RAY" not in os.environ, reason="a cluster takes a minute; SLEUTH_TEST_RAY=1"
)
RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def test_shards_are_deployments(tmp_path: Path) -> None:
    import ray
    from ray import serve

    for number, name in enumerate(("a", "b")):
        build(corpus(20)[number::2], tmp_path / name, BuildSpec(embedder="static"))
    spec = importlib.util.spec_from_file_location("serve_ray", RECIPES / "serve_ray.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    paths = os.pathsep.join([str(RECIPES), str(RECIPES.parent), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        found = recipe.deploy({name: str(tmp_path / name) for name in ("a", "b")}, deadline_s=30, cpus=0.5)
        assert len(found) > 0 and found.search(["castle siege"], 3).missing == ()
        with pytest.raises(InputError, match="unknown field 'nope'"):
            found.search(["x"], 3, {"nope": 1})
        serve.delete("b")
        left = found.search(["castle siege"], 3)
        assert [name for name, _ in left.missing] == ["b"] and len(left[0]) == 3
    finally:
        serve.shutdown()
        ray.shutdown()
