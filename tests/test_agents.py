"""The graph and its rollout, over two passages and a scripted policy."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group

from sleuth import view
from sleuth.agents import episodes
from sleuth.agents.graph import build_graph, checkpoints, roles_of
from sleuth.agents.records import Budget, Episode, PolicyError, Sampling, Step, ToolCall, episode_from_json, to_json
from sleuth.agents.role import parse_object, step_seed
from sleuth.agents.roles import ROLES, answerer, planner, reflector, rewriter
from sleuth.agents.rollout import rollout
from sleuth.agents.strategy import STRATEGIES, strategy
from sleuth.agents.tools import search_tool, tool
from sleuth.agents.trace import UNKNOWN, Trace, further
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Passage
from sleuth.retrieval.records import Hit
from sleuth.retrieval.sharded import Hits
from tests.films import BIRTH, FILM, PASSAGES, QUESTION, FilmStore, context, reply, use_reranker
from tests.scripted import ScriptedPolicy


def run(name: str = "decompose", question: str = QUESTION, **changes: Any) -> Episode:
    ctx = context(name, **changes)
    return asyncio.run(rollout(build_graph(ctx.strategy), question, ctx))


def test_a_search_notes_the_dates_of_its_sources_where_they_have_one() -> None:
    class Dated(FilmStore):
        def _rank(self, query: str) -> list[Hit]:
            return [dataclasses.replace(h, date="1976" if h.passage.id == "jaws" else "") for h in super()._rank(query)]

    (call,) = run("naive-rag", store=Dated()).steps[0].calls
    assert {hit["passage_id"]: hit.get("date") for hit in call.result} == {
        "jaws": "1976",
        "spielberg": None,
        "shark": None,
    }
    (plain,) = run("naive-rag").steps[0].calls
    assert {frozenset(hit) for hit in plain.result} == {frozenset({"passage_id", "score"})}


def test_a_search_notes_what_it_was_not_looked_for_in(tmp_path: Path) -> None:
    class Partial(FilmStore):
        def search(self, *arguments: Any) -> Any:
            return Hits(super().search(*arguments), [("east", "not answered within 4 s")])

    episode = run("naive-rag", store=Partial())
    (call,) = episode.steps[0].calls
    assert call.missing == ("east: not answered within 4 s",) and len(call.result) == 3 and not call.error
    assert episode.digest() == run("naive-rag").digest() and episode_from_json(to_json(episode)) == episode
    episodes.append(tmp_path / "e.jsonl", episode)
    assert list(episodes.read(tmp_path / "e.jsonl")) == [episode]
    for shown in (Group(*view.lines(episode.steps[0], {})), view.tree(episode)):
        out = io.StringIO()
        Console(file=out, width=200).print(shown)
        assert "not looked for in east: not answered within 4 s" in out.getvalue()


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("closed-book", ["answerer"]),
        ("naive-rag", ["searcher", "answerer"]),
        ("iterative", ["searcher", "reflector", "answerer"]),
        ("close-reading", ["searcher", "reflector", "answerer"]),
        ("iter-retgen", ["searcher", "reflector", "searcher", "answerer"]),
        ("chain", ["searcher", "searcher", "answerer"]),
        ("decompose", ["planner", *["searcher", "reflector"] * 2, "searcher", "answerer"]),
    ],
)
def test_each_strategy_walks_its_roles_and_answers(
    name: str, roles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_reranker(monkeypatch)
    episode = run(name)
    assert [step.role for step in episode.steps] == roles
    assert (episode.stop, episode.error) == ("answered", "")
    assert episode.answer and episode.answer.text == "Cincinnati, Ohio"
    assert episode.spent.searches == roles.count("searcher")


def test_a_plan_fills_its_references_with_earlier_answers() -> None:
    policy, store = ScriptedPolicy(reply), FilmStore()
    run(policy=policy, store=store)
    assert [q for batch in store.batches for q in batch] == [
        "Who directed Jaws?",
        "Where was Steven Spielberg born?",
        QUESTION,
    ]
    facts = [line for line in policy.seen[-1][1].content.splitlines() if line.startswith("Known:")]
    assert facts == [
        "Known: Who directed Jaws? Steven Spielberg",
        "Known: Where was Steven Spielberg born? Cincinnati, Ohio",
    ]


def test_a_plan_that_begins_with_the_question_keeps_its_numbers() -> None:
    def echoing(messages: Any) -> Any:
        given = reply(messages)
        return {"steps": [QUESTION, "Who lives in #1?"]} if messages[0].content == planner.PROMPT else given

    store = FilmStore()
    run(policy=ScriptedPolicy(echoing), store=store)
    assert [query for batch in store.batches for query in batch] == [
        QUESTION, "Who lives in Steven Spielberg?", QUESTION,
    ]  # fmt: skip


def test_an_answer_that_its_quote_does_not_carry_is_no_fact() -> None:
    def misread(messages: Any) -> Any:
        given = reply(messages)
        return {**given, "answer": "Shark"} if messages[0].content == reflector.PROMPT else given

    policy, store = ScriptedPolicy(misread), FilmStore()
    run(policy=policy, store=store)
    assert store.batches == [["Who directed Jaws?"], ["Where was Who directed Jaws? born?"], [QUESTION]]
    assert "Known:" not in policy.seen[-1][1].content


def test_a_query_is_not_searched_twice_for_one_goal() -> None:
    def stuck(messages: Any) -> Any:
        given = reply(messages)
        if messages[0].content == rewriter.PROMPT:
            return {"query": "jaws"}
        return {**given, "answer": "unknown"} if messages[0].content == reflector.PROMPT else given

    store = FilmStore()
    run("iterative", policy=ScriptedPolicy(stuck), store=store)
    assert store.batches == [[QUESTION], ["jaws"], [f"{QUESTION} {FILM}"]]


def test_a_fixed_number_of_searches_each_with_what_the_last_reading_found() -> None:
    def reading_all(messages: Any) -> Any:
        given = reply(messages)
        return {**given, "answer": "Jaws"} if messages[0].content == reflector.PROMPT else given

    store = FilmStore()
    episode = run("iter-retgen", policy=ScriptedPolicy(reading_all), store=store)
    assert store.batches == [[QUESTION], [f"{QUESTION} Jaws (film) {FILM}"]]  # answered at once, searched once more
    (note,) = Trace(QUESTION, episode.steps).notes()
    assert note.answer == "Jaws" and not note.done
    shown = episode.steps[-1].parsed["shown"]
    assert shown[0] == note.passage_id  # what the reading chose comes first, then what the last search found
    last = [hit["passage_id"] for hit in episode.steps[2].calls[0].result]
    assert shown[1:] == [i for i in last if i != note.passage_id]


class BirthFirst(FilmStore):
    """Its own first hit is never where a chain begins."""

    def _rank(self, query: str) -> list[Hit]:
        order = ["spielberg", "jaws", "shark"]
        return [Hit(passage, 1 / n, n, "films") for n, passage in enumerate(self.fetch(order), 1)]


def test_a_chain_searches_twice_without_the_policy_and_reads_both_hops_first(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, store, policy = use_reranker(monkeypatch), BirthFirst(), ScriptedPolicy(reply)
    episode = run("chain", policy=policy, store=store)
    film, birth = PASSAGES[:2]
    second = further(QUESTION, film)
    assert second == f"{QUESTION} {film.title} {film.text}" and store.batches == [[QUESTION], [second]]
    assert [query for query, _ in reader.asked] == [QUESTION, second] and len(policy.seen) == 1
    found = [[hit["passage_id"] for hit in step.calls[0].result] for step in episode.steps[:2]]
    assert found == [["jaws", "spielberg", "shark"], ["spielberg", "jaws", "shark"]]  # by both orders together
    shown = episode.steps[-1].parsed["shown"]
    assert shown == [film.id, birth.id, "shark"]  # not the film twice, nor its rival between
    assert episode.config["strategy"]["rerank"] and episode.config["reranker"] == "shipped@chain"
    assert (episode.stop, episode.spent.searches) == ("answered", 2)


def test_a_query_that_several_episodes_ask_at_once_is_searched_once() -> None:
    store = FilmStore()
    search = search_tool(store)

    async def ask() -> list[list[str]]:
        found = await asyncio.gather(*(search(query=query) for query in ("shark", "jaws", "shark")))
        return [[hit.passage.id for hit in hits] for hits in found]

    shark, jaws, again = asyncio.run(ask())
    assert store.batches == [["shark", "jaws"]] and shark == again and shark[0] == "shark" and jaws[0] == "jaws"


def test_a_chain_whose_budget_is_spent_answers_from_its_first_search(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reranker(monkeypatch)
    episode = run("chain", budget=Budget(searches=1))
    assert [step.role for step in episode.steps] == ["searcher", "answerer"]
    assert episode.stop == "budget:searches" and episode.answer and episode.answer.text == "Cincinnati, Ohio"


def test_a_chain_that_finds_nothing_does_not_ask_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(FilmStore):
        def _rank(self, query: str) -> list[Hit]:
            return []

    use_reranker(monkeypatch)
    store = Empty()
    episode = run("chain", store=store)
    assert store.batches == [[QUESTION]] and [step.role for step in episode.steps] == ["searcher", "answerer"]


def test_a_longer_chain_goes_on_from_what_has_not_led_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reranker(monkeypatch)
    store, (film, birth, _) = BirthFirst(), PASSAGES
    episode = run(strategy=strategy("chain", turns=3, least=3), store=store)
    assert store.batches == [[QUESTION], [further(QUESTION, film)], [further(QUESTION, birth)]]
    assert [step.role for step in episode.steps] == ["searcher"] * 3 + ["answerer"]


def test_only_what_reranks_has_hits_read_again_and_more_than_it_keeps_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Asked(FilmStore):
        ks: tuple[int, ...] = ()

        def search(self, queries: Any, k: int, where: Any = None) -> Any:
            self.ks += (k,)
            return super().search(queries, k, where)

    reader, store = use_reranker(monkeypatch), Asked()
    assert "reranker" not in run("naive-rag", store=store).config and reader.asked == [] and store.ks == (5,)
    run(strategy=strategy("naive-rag", rerank="shipped", k=1), store=store)
    assert store.ks == (5, 20) and reader.asked == [(QUESTION, ["jaws", "shark", "spielberg"])]


def test_hits_of_another_version_are_refused_behind_a_reranker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(FilmStore):
        def search(self, *arguments: Any) -> Any:
            self.fingerprint = "films-2"
            return super().search(*arguments)

    use_reranker(monkeypatch)
    episode = run("chain", store=Changing())
    assert episode.stop == "error" and "changed from version films-1 to films-2" in episode.error


def test_searches_that_no_reading_followed_are_read_in_turns() -> None:
    def search(query: str, *ids: str) -> Step:
        call = ToolCall("search", {"query": query}, [{"passage_id": i, "score": 1.0} for i in ids])
        return Step("searcher", calls=(call,), passages=tuple(Passage(i, i, 0, 1, "", i) for i in ids))

    def note(goal: int, done: bool) -> Step:
        made = {"goal": goal, "asked": "q", "quote": "", "passage_id": "", "answer": "unknown", "done": done}
        return Step("reflector", parsed={"note": made})

    first, second = search("q", "a", "b", "c"), search("q more", "d", "c", "e")
    loop = Trace("q", (first, note(0, False), second))
    assert [p.id for p in loop.evidence(5)] == ["a", "d", "b", "c", "e"]
    led = Trace("q", (first, note(0, False), search("q a", "a", "d", "e")))
    assert [p.id for p in led.evidence(3)] == ["a", "b", "d"]  # a reading stood between: nothing led by its place alone
    alone = Trace("q", (first, search("q a", "a", "d", "e")))
    assert [p.id for p in alone.evidence(4)] == ["a", "d", "b", "e"]  # the second search's best is what it led to
    read = Trace("q", (first, note(0, False), second, note(0, True)))
    assert [p.id for p in read.evidence(5)] == ["c", "a", "d", "b", "e"]  # by rank fusion: what both found comes first
    plan = Step("planner", parsed={"steps": ["s"]})
    closing = Trace("q", (plan, first, note(0, True), search("q", "d", "c")))
    assert [p.id for p in closing.evidence(3)] == ["d", "c", "a"]  # what the question itself found comes first


@pytest.mark.parametrize(
    ("read", "led"),
    [
        ({"answer": "unknown", "quote": ""}, False),
        ({"answer": "Cincinnati", "quote": "A shark is a kind of fish."}, False),  # says nothing of what it answers
        ({"answer": "unknown", "quote": BIRTH}, True),
        ({"answer": "Cincinnati", "quote": BIRTH}, True),
    ],
)
def test_a_further_search_starts_from_a_quote_that_carries_its_answer_or_the_best_passage(read: Any, led: bool) -> None:
    store = FilmStore()
    said = ScriptedPolicy(lambda messages: read if messages[0].content == reflector.PROMPT else reply(messages))
    run("iter-retgen", policy=said, store=store)
    best = store._rank(QUESTION)[0].passage
    assert best.id == "jaws"
    lead = f"Steven Spielberg {BIRTH}" if led else f"{best.title} {best.text}"
    assert store.batches[1] == [f"{QUESTION} {lead}"]


def test_a_goal_ends_when_no_query_is_left_to_try() -> None:
    def lost(messages: Any) -> Any:
        given = reply(messages)
        return {"answer": "unknown", "quote": ""} if messages[0].content == reflector.PROMPT else given

    store = FilmStore()
    episode = run("iterative", policy=ScriptedPolicy(lost), store=store)
    assert [s.role for s in episode.steps] == ["searcher", "reflector", "rewriter", "answerer"]
    episode = run(policy=ScriptedPolicy(lost), store=store)
    assert [s.role for s in episode.steps][-5:] == ["searcher", "reflector", "rewriter", "searcher", "answerer"]
    assert episode.spent.searches == 3


def test_an_unanswered_goal_is_searched_again_with_what_is_known() -> None:
    def unsure(messages: Any) -> Any:
        given = reply(messages)
        if messages[0].content == reflector.PROMPT and "Known:" not in messages[1].content:
            return {**given, "answer": "unknown"}
        return given

    policy = ScriptedPolicy(unsure)
    episode = run("iterative", policy=policy)
    assert [s.role for s in episode.steps].count("searcher") == 2
    (second,) = [m[1].content for m in policy.seen if m[0].content == rewriter.PROMPT]
    assert f"Known: {FILM}" in second and f"Tried: {QUESTION}" in second


def reading(messages: Any) -> Any:
    """Replies of a reader of one passage: it quotes the film, answers from the birth, and passes over the rest."""
    if messages[0].content == rewriter.PROMPT:
        return {"query": "film by Spielberg" if "Known:" in messages[1].content else "1975 film directed Spielberg"}
    if messages[0].content != reflector.PROMPT:
        return reply(messages)
    shown = messages[1].content
    if "Known:" in shown and BIRTH in shown:
        return {"quote": BIRTH, "answer": "Cincinnati, Ohio"}
    return {"quote": FILM if FILM in shown and "Known:" not in shown else "", "answer": "unknown"}


def readings(policy: ScriptedPolicy) -> list[str]:
    return [m[1].content for m in policy.seen if m[0].content == reflector.PROMPT]


def test_close_reading_shows_one_passage_at_a_time_until_one_answers() -> None:
    policy = ScriptedPolicy(reading)
    episode = run(policy=policy, strategy=strategy("close-reading", rewrite="every"))
    assert [s.role for s in episode.steps] == ["rewriter", "searcher", "reflector", "reflector", "answerer"]
    first, second = readings(policy)
    assert (FILM in first, BIRTH in first, "Known:" in first) == (True, False, False)
    assert f"Known: {FILM}" in second and BIRTH in second and second.count("[1]") == 1 and "[2]" not in second
    assert episode.stop == "answered" and episode.answer and episode.answer.text == "Cincinnati, Ohio"
    assert episode.steps[-1].parsed["shown"] == ["spielberg", "jaws"]  # the noted one, then the one that was quoted


def test_close_reading_does_not_read_again_what_it_quoted_and_ends_when_all_is_read() -> None:
    def blind(messages: Any) -> Any:
        given = reading(messages)
        return {**given, "answer": "unknown"} if messages[0].content == reflector.PROMPT else given

    policy = ScriptedPolicy(blind)
    episode = run(policy=policy, strategy=strategy("close-reading", rewrite="every"))
    roles = [s.role for s in episode.steps]
    assert roles == ["rewriter", "searcher", *["reflector"] * 3, "rewriter", "searcher", "reflector", "answerer"]
    shown = [s.parsed["shown"] for s in episode.steps if s.role == "reflector"]
    assert shown == [["jaws"], ["spielberg"], ["shark"], ["shark"]]  # both others were quoted for this goal
    assert [n.done for n in Trace(QUESTION, episode.steps).notes()] == [False, False, False, True]
    assert episode.stop == "answered"


def test_citations_are_spans_of_retrieved_passages_and_forged_quotes_are_rejected() -> None:
    def forging(messages: Any) -> Any:
        given = reply(messages)
        if messages[0].content == answerer.PROMPT:
            given["quotes"] += ["Spielberg was born in Cincinnati, Texas.", "[1]", "https://example.org/jaws"]
        return given

    episode = run(policy=ScriptedPolicy(forging))
    assert episode.answer is not None
    (sentence,) = episode.answer.sentences
    texts = {p.id: p.text for p in PASSAGES}
    assert [texts[c.passage_id][c.start : c.end] for c in sentence.citations] == [FILM, BIRTH]
    assert sentence.supported
    assert len(episode.answer.rejected) == 3


@pytest.mark.parametrize(
    ("budget", "stop", "roles"),
    [
        (Budget(searches=1), "budget:searches", ["planner", "searcher", "reflector", "answerer"]),
        (Budget(searches=0), "budget:searches", ["answerer"]),
        (Budget(tokens=1), "budget:tokens", ["planner"]),
        (Budget(seconds=0.0), "budget:seconds", []),
    ],
)
def test_a_spent_budget_ends_with_the_best_answer_so_far(budget: Budget, stop: str, roles: list[str]) -> None:
    episode = run(budget=budget)
    assert (episode.stop, [s.role for s in episode.steps]) == (stop, roles)
    assert episode.answer is not None and episode.answer.text


def test_running_out_of_time_inside_a_call_answers_from_the_notes() -> None:
    class Slow(ScriptedPolicy):
        async def sample(self, messages: Any, *rest: Any) -> Any:
            if messages[0].content == answerer.PROMPT:
                await asyncio.sleep(60)
            return await super().sample(messages, *rest)

    episode = run(policy=Slow(reply), budget=Budget(seconds=0.5))
    assert episode.stop == "budget:seconds"
    assert episode.answer and episode.answer.text == "Cincinnati, Ohio"
    assert episode.answer.sentences[0].supported


def test_a_search_that_hangs_does_not_outlive_the_time_of_its_episode() -> None:
    released = threading.Event()

    class Hanging(FilmStore):
        def search(self, *arguments: Any) -> Any:
            released.wait(20)
            return super().search(*arguments)

    started = time.perf_counter()
    episode = run("naive-rag", store=Hanging(), budget=Budget(seconds=0.3))
    assert episode.stop == "budget:seconds" and time.perf_counter() - started < 5
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "search")
    released.set()


def test_a_failing_policy_is_recorded_with_its_role_and_keeps_what_was_found() -> None:
    def failing(messages: Any) -> Any:
        return (
            PolicyError("timeout", "no reply in 3 s", True)
            if messages[0].content == answerer.PROMPT
            else reply(messages)
        )

    episode = run(policy=ScriptedPolicy(failing))
    assert (episode.stop, episode.error) == ("error", "answerer: PolicyError(timeout): no reply in 3 s")
    assert episode.answer and episode.answer.text == "Cincinnati, Ohio"


def test_a_search_that_dies_ends_the_episode_not_the_program() -> None:
    class Broken(FilmStore):
        def search(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError("disk gone")

    episode = run(store=Broken())
    assert (episode.stop, episode.error) == ("error", "searcher: OSError: disk gone")


def test_cancelling_hands_over_the_episode_so_far() -> None:
    ended: list[Episode] = []

    async def main() -> None:
        ctx = context(policy=ScriptedPolicy(reply, delay_s=0.05))
        steps: list[Any] = []
        task = asyncio.create_task(
            rollout(build_graph(ctx.strategy), QUESTION, ctx, on_step=steps.append, on_end=ended.append)
        )
        while len(steps) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended[0].stop == "cancelled" and len(ended[0].steps) >= 2


@pytest.mark.parametrize("question", ["", "   \n", "x" * 100_000])
def test_a_question_of_no_or_too_many_characters_is_refused(question: str) -> None:
    with pytest.raises(InputError, match="question"):
        run(question=question)


def test_nonsense_from_the_policy_still_ends_in_an_answer() -> None:
    for nonsense in ("", "{", "[]", "<think>", '{"steps": 3, "quote": [1], "answer": {}}', "\ud800", "null"):
        episode = run(policy=ScriptedPolicy(lambda messages, text=nonsense: text))
        assert episode.error == "" and episode.answer is not None
        assert not [c for s in episode.answer.sentences for c in s.citations]
        assert episode_from_json(json.loads(json.dumps(to_json(episode)))).digest() == episode.digest()


def test_the_same_seed_gives_the_same_episode_and_ids_follow_the_configuration() -> None:
    assert run(seed=1).digest() == run(seed=1).digest()
    assert run(seed=1).id != run(seed=2).id
    assert len({step_seed(seed, index) for seed in range(20) for index in range(20)}) == 400


def test_queries_of_concurrent_episodes_share_a_batch() -> None:
    store = FilmStore()
    ctx = context("naive-rag", store=store)

    async def main() -> list[Episode]:
        graph = build_graph(ctx.strategy)
        return await asyncio.gather(*(rollout(graph, f"{QUESTION} {i}", ctx) for i in range(50)))

    assert all(e.stop == "answered" for e in asyncio.run(main()))
    assert sum(map(len, store.batches)) == 50 and len(store.batches) < 25


def test_a_killed_run_resumes_from_its_checkpoint_without_asking_again(tmp_path: Any) -> None:
    calls = 0

    def dies(messages: Any) -> Any:
        nonlocal calls
        calls += 1
        return PolicyError("unreachable", "gone") if calls == 4 else reply(messages)

    async def main() -> tuple[Episode, Episode]:
        policy = ScriptedPolicy(dies)
        async with checkpoints(tmp_path / "c.sqlite") as saver:
            ctx = context(policy=policy)
            first = await rollout(build_graph(ctx.strategy, saver), QUESTION, ctx)
        async with checkpoints(tmp_path / "c.sqlite") as saver:
            return first, await rollout(build_graph(ctx.strategy, saver), QUESTION, ctx, resume=True)

    first, second = asyncio.run(main())
    assert first.stop == "error" and second.stop == "answered"
    assert second.digest() == run().digest()
    assert calls == 5  # four replies and the one that failed: nothing was asked twice


def test_episode_files_name_a_cut_line_and_keep_the_rest(tmp_path: Any) -> None:
    path = tmp_path / "runs" / "e.jsonl"
    episode = run()
    episodes.append(path, episode)
    path.write_bytes(path.read_bytes()[:-300])
    episodes.append(path, episode)
    told: list[str] = []
    (back,) = episodes.read(path, told.append)
    assert back == episode
    assert len(told) == 1 and f"{path}:1" in told[0]
    with pytest.raises(InputError, match=r"e\.jsonl:1: expected one episode"):
        list(episodes.read(path))


def test_each_prompt_example_parses_by_the_roles_own_parser() -> None:
    for role in ROLES.values():
        if role.prompt:
            example = re.search(r"Example reply: (.*)", role.prompt)
            assert example, role.name
            given = parse_object(example[1])
            assert json.dumps(given, ensure_ascii=False, separators=(",", ":")) == example[1]
    assert planner.read(planner.PROMPT.split("Example reply: ")[1], 4)["steps"][1] == "Where was #1 born?"
    assert rewriter.read(rewriter.PROMPT.split("Example reply: ")[1], "x")["query"] == "Steven Spielberg birthplace"
    assert answerer.read(answerer.PROMPT.split("Example reply: ")[1], [])["answer"] == "Cincinnati, Ohio"
    assert answerer.read(answerer.CLOSED_PROMPT.split("Example reply: ")[1], [])["answer"] == "Cincinnati, Ohio"


def test_a_reply_cut_short_yields_its_complete_fields() -> None:
    assert parse_object('Sure! ```json\n{"answer": "Ohio"}\n```') == {"answer": "Ohio"}
    assert parse_object('{"answer":"Ohio","quotes":["one","tw') == {"answer": "Ohio", "quotes": ["one"]}
    assert parse_object('{"quotes":["one","two"],"answer":"Cinc') == {"quotes": ["one", "two"]}
    assert parse_object("[1, 2]") == {} == parse_object('{"')
    assert parse_object('{"answer":"a \\"b\\" [c]","key') == {"answer": 'a "b" [c]'}
    assert parse_object('{"answer":"the "big" one","quotes":["x"]}') == {"answer": "the "}


def test_no_reply_breaks_its_parser_or_keeps_it_busy() -> None:
    started = time.perf_counter()
    assert len(parse_object('{"quotes":[' + '"a",' * 100_000)["quotes"]) == 100_000
    assert parse_object('{"answer":"one","more":"' + '\\"],' * 100_000) == {"answer": "one"}
    assert parse_object('{"a":' * 100_000) == {} == parse_object("[{" * 100_000)
    assert parse_object('{"a":' + "5" * 5_000 + ',"b":-1e999,"c":NaN,"d":7,"e":2.5}') == {
        "a": None, "b": None, "c": None, "d": 7, "e": 2.5,
    }  # fmt: skip
    assert rewriter.read('{"query":"half \\ud800 a pair"}', "x")["query"] == "half ? a pair"
    assert time.perf_counter() - started < 2


@given(st.text(st.sampled_from('{}[]",:\\ 1e-tu\n'), max_size=30))
def test_parsing_a_reply_never_raises(text: str) -> None:
    assert isinstance(parse_object(text), dict) and isinstance(parse_object('{"a":["b",{"c":' + text), dict)


def test_an_unknown_in_capitals_is_no_answer_so_far() -> None:
    def reading_only(messages: Any) -> Any:
        read = messages[0].content == reflector.PROMPT
        return {"answer": "Unknown", "quote": ""} if read else PolicyError("server", "down")

    episode = run("iterative", policy=ScriptedPolicy(reading_only))
    assert episode.answer and episode.answer.text == UNKNOWN


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_limits_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=f"temperature: expected a finite number, found {value}"):
        Sampling(temperature=value)
    with pytest.raises(ConfigError, match=f"seconds: expected a finite number, or none for no limit, found {value}"):
        Budget(seconds=value)


def test_unknown_names_keys_and_values_of_a_strategy_show_both_sides() -> None:
    with pytest.raises(ConfigError, match=r"unknown strategy 'decompos' .*mean 'decompose'.*known: closed-book"):
        strategy("decompos")
    with pytest.raises(ConfigError, match=r"unknown strategy key 'turn' .*did you mean 'turns'"):
        strategy("iterative", turn=3)
    with pytest.raises(ConfigError, match="'plan' must be one of none, decompose; found 'tree'"):
        strategy("iterative", plan="tree")
    with pytest.raises(ConfigError, match="'k' must be int; found '3'"):
        strategy("iterative", k="3")
    with pytest.raises(ConfigError, match="'k' must be at least 1; found 0"):
        strategy("iterative", k=0)
    with pytest.raises(ConfigError, match="'least' must be at most 'turns'; found 4 and 3"):
        strategy("iterative", least=4)
    with pytest.raises(ConfigError, match="needs 'reflect' = 'goal' or 'none'; found 'passage'"):
        strategy("close-reading", least=2)
    with pytest.raises(ConfigError, match=r"'least' must equal 'turns' with 'reflect' = 'none'.*; found 1 and 2"):
        strategy("naive-rag", turns=2)
    with pytest.raises(ConfigError, match=r"'least' must equal 'turns'.*; found 2 and 3"):
        strategy("chain", turns=3)
    with pytest.raises(ConfigError, match=r"'plan' = 'decompose' with 'turns' above 1 needs a 'reflect'.*found 'none'"):
        strategy("chain", plan="decompose")
    with pytest.raises(ConfigError, match="'rerank' must be str; found True"):
        strategy("naive-rag", rerank=True)
    assert strategy("naive-rag", k=7).k == 7


def test_roles_of_a_strategy_are_independent_choices() -> None:
    assert roles_of(STRATEGIES["closed-book"]) == ["answerer"]
    assert roles_of(strategy("naive-rag", rewrite="every")) == ["rewriter", "searcher", "answerer"]


@pytest.mark.parametrize(
    ("name", "rewrite", "queries"),
    [
        ("naive-rag", "none", [QUESTION]),
        ("naive-rag", "further", [QUESTION]),
        ("naive-rag", "every", ["words"]),
        ("iterative", "further", [QUESTION, "words"]),
        ("iterative", "every", ["words", QUESTION]),
    ],
)
def test_a_rewriter_words_every_query_or_those_after_the_first(name: str, rewrite: Any, queries: list[str]) -> None:
    def unsure(messages: Any) -> Any:
        given = reply(messages)
        if messages[0].content == rewriter.PROMPT:
            return {"query": "words"}
        return {**given, "answer": "unknown"} if messages[0].content == reflector.PROMPT else given

    store = FilmStore()
    run(policy=ScriptedPolicy(unsure), store=store, strategy=strategy(name, rewrite=rewrite))
    assert [q for batch in store.batches for q in batch][:2] == queries


def test_a_tool_takes_its_schema_from_its_signature_and_refuses_other_arguments() -> None:
    async def double(number: int, times: int = 2) -> int:
        """Multiply."""
        return number * times

    made = tool(double)
    assert made.schema["required"] == ["number"] and made.schema["properties"]["times"]["type"] == "integer"
    assert asyncio.run(made(number=4)) == 8
    with pytest.raises(InputError, match=r"unknown \['nmber'\], missing \['number'\]"):
        asyncio.run(made(nmber=4))
