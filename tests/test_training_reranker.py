"""A reranker's lists, its training on a tiny encoder, and going on after a kill."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sleuth.agents.trace import further
from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.eval.records import Task
from sleuth.training import recipe, reranker
from sleuth.training.checkpoint import TrainingError
from sleuth.training.reranker import RerankerSpec, rankings
from sleuth.training.tasks import TaskSpec, open_tasks
from tests.retrieval_stores import use_hash_embedder
from tests.training_data import make

RECIPE = """name = "r"
base = "{base}"
[tasks]
sets = {{ hotpotqa_s = 12, nq_train = 12 }}
dev = 6
search = "bm25"
[reranker]
batch = 8
negatives = 2
checkpoint_every = 4
{more}"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_hash_embedder(monkeypatch)
    return make(tmp_path / "data")


def encoder(folder: Path, texts: str) -> Path:
    """A random BERT of two small layers that knows the words of some texts."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(re.findall(r"\w+|[^\w\s]", texts.lower())))]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    return folder


def test_lists_hold_a_gold_passage_and_others_and_go_on_from_passages_found(data: Path, tmp_path: Path) -> None:
    store, tasks, _ = open_tasks(TaskSpec(sets={"hotpotqa_s": 12}, search="bm25"), data, tmp_path, 0)
    made = rankings(tasks, store, RerankerSpec(negatives=2), 0)
    by_question = {task.question: task for task in tasks}
    alone = [one for one in made if one.query in by_question]
    assert {one.query for one in alone} == set(by_question) and len(alone) == 2 * len(tasks)  # both gold passages
    for one in made:
        task = next(task for task in tasks if one.query.startswith(task.question))
        assert one.gold.doc_id in task.supporting and len(one.others) == 2
        assert not {p.doc_id for p in one.others} & set(task.supporting)
    task = tasks[0]
    author, book = store.fetch(sorted(task.supporting))  # aN before bN
    after_book = [one for one in made if one.query == further(task.question, book)]
    assert [one.gold for one in after_book] == [author]
    assert all(book not in one.others for one in after_book)
    gold = {further(task.question, passage) for passage in (author, book)}
    wrong = [one for one in made if one.query.startswith(task.question + " ") and one.query not in gold]
    assert wrong and all(one.gold in (author, book) for one in wrong)  # led from a wrong one, still towards a gold one
    assert (
        rankings(tasks, store, RerankerSpec(negatives=2), 0)
        == made
        != rankings(tasks, store, RerankerSpec(negatives=2), 1)
    )
    assert all(one.query in by_question for one in rankings(tasks, store, RerankerSpec(negatives=2, chains=False), 0))


def test_where_one_gold_passage_suffices_another_with_the_answer_is_no_negative(data: Path, tmp_path: Path) -> None:
    store, _, _ = open_tasks(TaskSpec(sets={"hotpotqa_s": 12}, search="bm25"), data, tmp_path, 0)
    answer = "Town7"  # in a7 alone, which is not the one that is marked
    any_ = Task("t", "Where was Author7 born?", (answer,), ("b7",), "any", hops=1)
    drawn = [one for seed in range(20) for one in rankings([any_], store, RerankerSpec(negatives=2), seed)]
    held = {p.doc_id for one in drawn for p in one.others}
    assert held and "a7" not in held
    all_ = Task("t", "Where was Author7 born?", (answer,), ("b7",), "all", hops=1)
    seen = {
        p.doc_id
        for seed in range(20)
        for one in rankings([all_], store, RerankerSpec(negatives=2), seed)
        for p in one.others
    }
    assert "a7" in seen


def test_it_learns_says_what_it_gained_and_goes_on_to_the_same_bytes(data: Path, tmp_path: Path) -> None:
    words = (
        " ".join(path.read_text() for path in (data / "qa").glob("*.jsonl"))
        + " novel by was born nothing else known it sold well"
    )
    base = encoder(tmp_path / "base", words)
    (tmp_path / "r.toml").write_text(RECIPE.format(base=base, more="epochs = 2"))
    said: list[str] = []
    adapter = recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "out"), str(data), progress=said.append)
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    figures = json.loads((tmp_path / "out" / "held_out.json").read_text())
    assert figures["search"]["questions"] == figures["reranked"]["questions"] > 0
    assert all(0 <= figures[name]["recall@1"] <= figures[name]["recall@5"] <= 1 for name in figures)
    assert any("lists of 3 passages" in line for line in said) and any("loss" in line for line in said)

    with pytest.raises(InputError, match="already holds a run"):
        recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "out"), str(data), progress=said.append)
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    logged = (tmp_path / "out" / "log.jsonl").read_text()
    kept = sorted((tmp_path / "out" / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    assert reranker._newest(kept[-1].parent) == str(kept[-1])
    shutil.rmtree(adapter)
    state = (kept[-1] / "trainer_state.json").read_text()
    (kept[-1] / "trainer_state.json").write_text(state[: len(state) // 2])  # a kill while it was being written
    assert reranker._newest(kept[-1].parent) == str(kept[-2])
    again = recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "out"), str(data), resume=True, progress=said.append)
    assert (again / "adapter_model.safetensors").read_bytes() == whole
    assert (tmp_path / "out" / "log.jsonl").read_text() == logged

    (tmp_path / "out" / "lists.json").write_text('{"lists": 1, "sha256": "0"}\n')
    with pytest.raises(InputError, match=r"was started with other data: expected .'lists': 1"):
        recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "out"), str(data), resume=True, progress=said.append)


def test_it_goes_on_from_another_adapter_that_fits(data: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    base = encoder(tmp_path / "base", "it sold well")
    (tmp_path / "r.toml").write_text(RECIPE.format(base=base, more="epochs = 0.5"))
    first = recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "one"), str(data), progress=lambda line: None)

    def further_on(name: str, more: str, base: Path = base) -> Path:
        (tmp_path / name).write_text(RECIPE.format(base=base, more=f'epochs = 0.5\nstart = "{first}"\n{more}'))
        return recipe.run(str(tmp_path / name), str(tmp_path / name[0]), str(data), progress=lambda line: None)

    begun = load_file(first / "adapter_model.safetensors")
    still = load_file(further_on("a.toml", "learning_rate = 1e-12") / "adapter_model.safetensors")
    moved = load_file(further_on("b.toml", "") / "adapter_model.safetensors")
    assert begun.keys() == still.keys() == moved.keys()
    assert all(torch.allclose(still[name], begun[name], atol=1e-9) for name in begun)
    assert any(not torch.allclose(moved[name], begun[name], atol=1e-5) for name in begun)
    with pytest.raises(ConfigError, match="expected rank 4 and alpha 32; found 16 and 32"):
        further_on("c.toml", "rank = 4")
    with pytest.raises(ConfigError, match=f"expected an adapter over {tmp_path / 'other'}; found one over {base}"):
        further_on("d.toml", "", encoder(tmp_path / "other", "it sold well"))
    shutil.rmtree(first)
    with pytest.raises(ModelError, match="not a LoRA adapter"):
        further_on("e.toml", "")


def test_a_loss_that_is_no_number_ends_the_run_before_a_checkpoint_of_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.cross_encoder import losses

    base = encoder(tmp_path / "base", "it sold well")
    (tmp_path / "r.toml").write_text(RECIPE.format(base=base, more="epochs = 2").replace("every = 4", "every = 10"))
    true = losses.ListNetLoss.forward
    monkeypatch.setattr(losses.ListNetLoss, "forward", lambda *a, **named: true(*a, **named) * float("nan"))
    with pytest.raises(TrainingError, match="step 10: the loss is nan"):
        recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "out"), str(data), progress=lambda line: None)
    assert not (tmp_path / "out" / "adapter").exists()
    assert not list((tmp_path / "out" / "checkpoints").glob("checkpoint-*"))


def test_an_encoder_of_another_kind_and_a_policy_that_would_start_from_a_reranker_are_refused(
    data: Path, tmp_path: Path
) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    base = encoder(tmp_path / "base", "it sold well")
    DistilBertModel(DistilBertConfig(vocab_size=9, dim=16, hidden_dim=16, n_layers=1, n_heads=2)).save_pretrained(base)
    (tmp_path / "r.toml").write_text(RECIPE.format(base=base, more=""))
    with pytest.raises(ModelError, match="expected an encoder with the layers of BERT, found no query, key, value"):
        recipe.run(str(tmp_path / "r.toml"), str(tmp_path / "out"), str(data), progress=lambda line: None)
    (tmp_path / "p.toml").write_text('name = "p"\nstart = "r.toml"\n[examples.reader]\nhotpotqa_s = 3\n')
    with pytest.raises(ConfigError, match=r"r\.toml trains a reranker; expected a recipe for a policy"):
        recipe.run(str(tmp_path / "p.toml"), str(tmp_path / "o2"), str(data), progress=lambda line: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "r"\n[reranker]\n', "goes with .tasks. alone; found no .tasks."),
        ('name = "r"\n[tasks]\nsets = {hotpotqa_s = 1}\n[rl]\nsteps = 3\n[reranker]\n', "alone; found rl"),
        ('name = "r"\n[tasks]\nsets = {hotpotqa_s = 1}\n[sft]\nrank = 3\n[reranker]\n', "alone; found sft"),
        ('name = "r"\n[tasks]\nsets = {hotpotqa_s = 1}\n[reranker]\nbatches = 1\n', "did you mean 'batch'"),
        (
            'name = "r"\n[tasks]\nsets = {hotpotqa_s = 1}\n[reranker]\nbatch = 0\n',
            "expected batch of at least 1; found 0",
        ),
        (
            'name = "r"\n[tasks]\nsets = {hotpotqa_s = 1}\n[reranker]\nepochs = 0.0\n',
            "expected epochs and learning_rate",
        ),
    ],
)
def test_a_recipe_for_a_reranker_is_checked(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        recipe.read(tmp_path / "r.toml")


def test_tasks_without_gold_passages_are_refused(data: Path, tmp_path: Path) -> None:
    store, _, _ = open_tasks(TaskSpec(sets={"hotpotqa_s": 12}, search="bm25"), data, tmp_path, 0)
    with pytest.raises(InputError, match="no list could be made of 1 tasks, 0 of them"):
        reranker.train(RerankerSpec(), "minilm", store, [Task("t", "Who?", ("x",))], [], tmp_path, 0)
