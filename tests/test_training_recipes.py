"""Recipes that learn from rewards: every one that is shipped resolves, mistakes are named, and one runs end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents.records import Message
from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.corpora.records import Document
from sleuth.retrieval.build import build_once
from sleuth.training import recipe, rl_recipe
from sleuth.training.algorithms import ALGORITHMS
from sleuth.training.crew import Crew
from sleuth.training.rewards import Term
from sleuth.training.rl_recipe import starting_point
from sleuth.training.tasks import TaskSpec, WorldSpec, open_tasks
from tests import tiny_model
from tests.retrieval_stores import use_hash_embedder
from tests.scripted import ScriptedPolicy
from tests.training_data import make

ROOT = Path(__file__).resolve().parent.parent / "recipes"
SYSTEMS = sorted((ROOT / "systems").glob("*.toml"))
HARDWARE = sorted((ROOT / "hardware").glob("*.toml"))

WORLD = """
name = "toy"
base = "{base}"
seed = 3
[tasks]
world = {{ entities = 20, hops = [1], seed = 1 }}
limit = 6
dev = 2
search = "bm25"
[rl]
steps = 3
rank = 2
checkpoint_every = 1
[rollout]
strategy = "naive-rag"
changes = {{ k = 1, read = 1 }}
questions = 2
group = 2
[reward.terms]
em = 1.0
length = {{ weight = -1.0, when = "always" }}
[algorithm]
name = "dr_grpo"
clip_high = 0.3
"""


@pytest.mark.parametrize("path", [*SYSTEMS, *HARDWARE, ROOT / "fictional.toml"], ids=lambda path: path.stem)
def test_every_recipe_resolves_to_what_it_says(path: Path) -> None:
    read = recipe.read(path)
    assert read.rl is not None and read.name == path.stem
    text = path.read_text(encoding="utf-8")
    named = re.search(r'\[algorithm\]\nname = "(\w+)"', text)
    assert read.rl.offline if named is None else read.rl.spec.algorithm.name == named[1]
    read.rl.spec.rollout.chosen()
    assert text.startswith("# ")


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_what_a_system_chooses_acts(path: Path) -> None:
    read = recipe.read(path).rl
    assert read is not None
    choices, reward = read.spec.algorithm, read.spec.reward
    bounds = choices.clip_high != choices.clip_low or choices.ratio == "sequence" or choices.surrogate != "clip"
    if bounds or choices.entropy == "kl_cov":  # ratios differ from 1 from the second update of a batch on
        assert choices.epochs > 1
    if reward.false_positive or reward.false_negative:  # a factor, which a group's deviation would divide out
        assert choices.scale == "none"
    assert "honesty" not in reward.terms  # the sets that systems name have no question without an answer


def test_systems_differ_from_one_another() -> None:
    seen: dict[str, str] = {}
    for path in SYSTEMS:
        read = recipe.read(path).rl
        assert read is not None
        key = repr(read)
        assert key not in seen, f"{path.stem} is {seen.get(key)} under another name"
        seen[key] = path.stem
    assert len(SYSTEMS) >= 20
    used = {r.rl.spec.algorithm.name for path in SYSTEMS if (r := recipe.read(path)).rl}
    assert used <= set(ALGORITHMS) and len(used) >= 10


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("em = 1.0", "emm = 1.0"), r"toy.toml: reward: unknown reward term 'emm' \(did you mean 'em'\?\)"),
        (("weight = -1.0, ", ""), "reward.terms.length needs a weight"),
        (('"always"', '"sometimes"'), "reward.terms.length.when must be one of always, correct, wrong"),
        (("group = 2", "grop = 2"), r"unknown key 'rollout.grop' \(did you mean 'group'\?\)"),
        (("group = 2", "group = 1"), "toy.toml: rollout: rollout: expected group >= 2"),
        (("steps = 3", "steps = 3.5"), "rl.steps must be int; found 3.5"),
        (("clip_high = 0.3", "clip_hi = 0.3"), "algorithm: unknown algorithm key 'clip_hi'"),
        (("entities = 20", "entities = 0"), "tasks: expected exactly one of"),
        (("hops = [1]", "hops = 1"), "tasks.world.hops must be a list; found 1"),
        (("hops = [1]", "hops = [9]"), r"tasks.world: hops: expected some of 1, 2, 3; found \[9\]"),
        (
            ("entities = 20", "entities = 12"),
            "tasks.world: entities: expected 0 for no world, or at least 20; found 12",
        ),
        (('"naive-rag"', '"naive-rg"'), r"rollout: unknown strategy 'naive-rg' \(did you mean 'naive-rag'\?\)"),
        (("{ k = 1", "{ kk = 1"), "rollout: unknown strategy key 'kk'"),
        (("{ k = 1", '{ name = "x"'), "rollout: unknown strategy key 'name'"),
        (("seed = 3", 'start = "frist"'), r"toy.toml: start: .* found 'frist' \(did you mean 'first'\?\)"),
        (("rank = 2", "reference_every = 5"), "toy.toml: rl.reference_every needs algorithm.kl over 0; found 5 and 0"),
        (("[tasks]\n", "[task]\n"), r"unknown key 'task' \(did you mean 'tasks'\?\)"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = WORLD.format(base="b")
    assert change[0] in text
    with pytest.raises(ConfigError, match=said):
        recipe.read(write(tmp_path, text.replace(*change)))


def test_a_recipe_runs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    base = tiny_model.make(tmp_path / "base", max_position_embeddings=4096)
    path = write(tmp_path, WORLD.format(base=base))
    said: list[str] = []
    records: list[object] = []
    adapter = recipe.run(str(path), str(tmp_path / "out"), progress=said.append, record=records.append)
    assert (adapter / "adapter_model.safetensors").is_file() and len(records) == 3
    assert said[0] == "6 tasks, 2 held out, 2 x 2 rollouts a step" and said[-1].startswith("step 3/3")
    resolved = json.loads((tmp_path / "out" / "recipe.json").read_text())
    kept = [json.loads(line) for line in (tmp_path / "out" / "episodes" / "step-00001.jsonl").open()]
    assert {row["config"]["policy"].partition(":")[2] for row in kept} == {"training out"}  # not the untrained base
    assert all(re.search(r"\+out@0$", step["completion"]["policy_version"]) for row in kept for step in row["steps"]
               if step["completion"])  # fmt: skip
    assert resolved["seed"] == 3 and resolved["rl"]["spec"]["algorithm"]["clip_high"] == 0.3
    write(tmp_path, path.read_text().replace("steps = 3", "steps = 4"))  # a run can be made longer
    recipe.run(str(path), str(tmp_path / "out"), resume=True, progress=said.append)
    assert said[-1].startswith("step 4/4")
    write(tmp_path, path.read_text().replace("questions = 2", "questions = 3"))
    changed = r"another recipe \(then -> now\): rollout\.questions: 2 -> 3$"
    with pytest.raises(InputError, match=changed):
        recipe.run(str(path), str(tmp_path / "out"), resume=True)
    other = recipe.read(path, seed=9)
    assert other.seed == 9 and other.rl is not None and other.rl.spec.seed == 9


def test_a_recipe_that_did_not_come_to_training_can_be_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    out = tmp_path / "out"
    path = write(tmp_path, WORLD.format(base=tmp_path / "base").replace("steps = 3", "steps = 1"))
    with pytest.raises(ModelError):
        recipe.run(str(path), str(out), progress=lambda line: None)  # the store is made, the base is not there
    assert (out / "recipe.json").exists() and (out / "store").exists()
    with pytest.raises(InputError, match="already holds a run"):  # its store is that of other tasks
        recipe.run(str(write(tmp_path, path.read_text().replace("entities = 20", "entities = 21"))), str(out))
    base = tiny_model.make(tmp_path / "right", max_position_embeddings=4096)
    path = write(tmp_path, WORLD.format(base=base).replace("steps = 3", "steps = 1"))
    recipe.run(str(path), str(out), progress=lambda line: None)
    assert json.loads((out / "recipe.json").read_text())["base"] == str(base)
    with pytest.raises(InputError, match="already holds a run"):
        recipe.run(str(path), str(out))


def test_a_recipe_that_another_starts_from_is_trained_by_the_first_of_a_crew_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Two(Crew):
        def gather(self, value: Any) -> list[Any]:
            return [value, value]

    seen: list[tuple[str, int]] = []

    def trains(read: Any, base: str, start: Any, out: Path, data: Any, *, crew: Crew | None = None, **_: Any) -> Path:
        seen.append((out.name, (crew or rl_recipe.join()).size))
        (out / "adapter").mkdir()
        (out / "adapter" / "adapter_config.json").write_text("{}")
        return out / "adapter"

    for module in (recipe, rl_recipe):
        monkeypatch.setattr(module, "join", lambda: Two(0, 2))
    monkeypatch.setattr(rl_recipe, "run", trains)
    (tmp_path / "one.toml").write_text(WORLD.format(base="b"), encoding="utf-8")
    path = write(tmp_path, WORLD.format(base="b").replace('name = "toy"', 'name = "two"\nstart = "one.toml"'))
    recipe.run(str(path), str(tmp_path / "out"), progress=lambda line: None)
    assert seen == [("start", 1), ("out", 2)]


def test_a_recipe_learns_from_the_episodes_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    base = tiny_model.make(tmp_path / "base", max_position_embeddings=4096)
    path = write(tmp_path, WORLD.format(base=base).replace("steps = 3", "steps = 1\nkeep_every = 1"))
    recipe.run(str(path), str(tmp_path / "out"), progress=lambda line: None)
    kept = tmp_path / "out" / "episodes" / "step-00001.jsonl"
    offline = f'[offline]\nmethod = "accept"\nepisodes = ["{kept}"]\n'
    text = WORLD.format(base=base).replace("[reward.terms]", '[reward]\nsuccess = "format"\n[reward.terms]') + offline
    said: list[str] = []
    adapter = recipe.run(str(write(tmp_path, text)), str(tmp_path / "off"), progress=said.append)
    assert adapter.is_dir() and said[1] == "4 stored episodes, 4 successful" and said[-1].startswith("step 1/1")
    with pytest.raises(ConfigError, match=r"offline\.episodes is missing"):
        recipe.read(write(tmp_path, WORLD.format(base=base) + "[offline]\n"))


def test_a_judge_and_a_reflector_are_opened_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    right = {task.question: task for task in open_tasks(TaskSpec(world=WorldSpec(20)), None, tmp_path / "x", 3)[1]}
    opened: list[tuple[str, object]] = []

    class Both(ScriptedPolicy):
        async def aclose(self) -> None: ...

    def reply(messages: Sequence[Message]) -> object:
        if not messages[1].content.startswith("Earlier reply: "):
            return {"reason": "r", "grade": "incorrect"}
        question = messages[1].content.split("\nQuestion: ")[1].split("\n")[0]
        return {
            "answer": right[question].answers[0],
            "quotes": [e["text"] for e in right[question].metadata["evidence"]],
        }

    def opens(spec: str, adapter: object) -> Both:
        opened.append((spec, adapter))
        return Both(reply)

    monkeypatch.setattr("sleuth.agents.policy.open_policy", opens)
    base = tiny_model.make(tmp_path / "base", max_position_embeddings=4096)
    text = (
        WORLD.format(base=base).replace("steps = 3", "steps = 1\nkeep_every = 1").replace("1, read = 1", "4, read = 2")
    )
    asked = text.replace("[reward.terms]", '[reward]\njudge = "http://127.0.0.1:1/v1#m"\n[reward.terms]\njudged = 0.5')
    recipe.run(str(write(tmp_path, asked)), str(tmp_path / "out"), progress=lambda line: None)
    (line,) = map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert line["term/judged"] == 0.0 and line["failed"] == 0 and opened == [("http://127.0.0.1:1/v1#m", "none")]
    assert all(json.loads(row)["reason"] == "r" for row in (tmp_path / "out" / "verdicts-0.jsonl").open())
    kept = tmp_path / "out" / "episodes" / "step-00001.jsonl"
    mend = write(tmp_path, f'{text}[offline]\nmethod = "reflect"\nepisodes = ["{kept}"]\n')
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if "mended" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.run(str(mend), str(tmp_path / "off"), progress=stop)
    recipe.run(str(mend), str(tmp_path / "off"), resume=True, progress=said.append)  # asks nobody again
    assert said[1] == "4 stored episodes, 0 successful" and opened[1:] == [("embedded:first", "none")]
    assert said[2] == "4 failed episodes mended by embedded:first" and said[-1].startswith("step 1/1")


def test_question_sets_leave_out_what_is_reported_or_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleuth.eval.split import bucket

    use_hash_embedder(monkeypatch)
    data = make(tmp_path / "data")
    spec = TaskSpec(sets={"hotpotqa_s": 12}, dev=5)
    store, train, dev = open_tasks(spec, data, tmp_path / "room", 0)
    assert len(train) == 12 and {bucket({"id": task.id}) for task in train} <= set(range(4, 10))
    assert dev and {bucket({"id": task.id}) for task in dev} == {3}
    assert store.search(["novel Book3"], 1)[0]
    _, every, held = open_tasks(TaskSpec(sets={"hotpotqa_s": 99}, dev=99), data, tmp_path / "room", 0)
    numbers = {int(task.id.split("-")[1]) for task in [*every, *held]}
    assert len(numbers) == len(every) + len(held) > 12  # musique_s asks the same questions under other ids
    assert all(bucket({"id": f"{kind}-{n}"}) >= 3 for n in numbers for kind in ("hot", "musique"))
    with pytest.raises(InputError, match="needs --data"):
        open_tasks(spec, None, tmp_path / "room", 0)


def test_tasks_that_cannot_be_rewarded_are_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleuth.eval.split import bucket

    use_hash_embedder(monkeypatch)
    documents = [Document("a", "Anna was born in Vienna.", title="Anna"), Document("b", "Boris lives.", title="Boris")]
    build_once(documents, tmp_path / "store")
    ids = [f"t{n}" for n in range(400)]
    train, dev = ([i for i in ids if bucket({"id": i}) in tenths] for tenths in (range(4, 10), [3]))
    rows: list[dict[str, Any]] = [
        {"id": train[0], "question": "Where was Anna born?", "answers": ["Vienna"], "supporting": ["a"]},
        {"id": train[1], "question": "Where was Boris born?", "answers": ["Graz"], "supporting": ["b"]},
        {"id": train[2], "question": "Where was Clara born?", "answers": ["Linz"], "supporting": ["c"]},
        {"id": train[3], "question": "Who else?", "answers": [], "answerable": False},
        {"id": dev[0], "question": "Where was Anna  born", "answers": ["Vienna"], "supporting": ["a"]},
        {"id": dev[1], "question": "Who was born in Vienna?", "answers": ["Anna"], "supporting": ["a"]},
        {"id": dev[2], "question": "Who was born in Linz?", "answers": ["Clara"], "supporting": ["c"]},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    spec = TaskSpec(questions=str(tmp_path / "q.jsonl"), store=str(tmp_path / "store"))
    _, learned, held = open_tasks(spec, None, tmp_path, 0, said.append)
    assert {task.id for task in learned} == {train[0], train[1], train[3]}
    assert {task.id for task in held} == {dev[1]}  # the first asks what is trained on, the last names no document
    assert said == [
        f"1 of 3 training tasks: no gold document holds the answer, the first is {train[1]}",
        f"1 of 4 training tasks left out; the first: task {train[2]}: "
        "'supporting' must name documents of the corpus; not there are 1 of 1: 'c'",
        f"1 of 3 dev tasks left out; the first: task {dev[2]}: "
        "'supporting' must name documents of the corpus; not there are 1 of 1: 'c'",
    ]


def test_a_world_is_held_out_by_another_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    store, train, dev = open_tasks(TaskSpec(world=WorldSpec(20, (1, 2))), None, tmp_path, 0)
    assert all(task.id.startswith("fw1-") for task in train) and all(task.id.startswith("fw2-") for task in dev)
    assert {task.hops for task in train} == {1, 2}
    hits = store.search([dev[0].question], 3)[0]
    assert dev[0].supporting[0] in {hit.passage.doc_id for hit in hits}


def test_starting_points(tmp_path: Path) -> None:
    assert starting_point("none", tmp_path) is None
    first = starting_point("first", tmp_path)
    assert first is not None and first.name == "first"
    with pytest.raises(ConfigError, match="found 'nowhere'"):
        starting_point("nowhere", tmp_path)
    assert Term(1.0).when == "always"
