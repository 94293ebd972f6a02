"""A view shows an episode to a person: live, a step at a time, and afterwards as a tree; it computes nothing new.

What it prints comes from pages and policies, so every text passes through `plain` and none is read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from sleuth.agents.cite import Check
from sleuth.agents.records import Answer, Citation, Episode, Step
from sleuth.corpora.records import Passage
from sleuth.terminal import err, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text
    from rich.tree import Tree

SNIPPET_CHARS = 110
SHOWN_HITS = 4
LABEL = 8
"""Columns of the word that opens a line."""
HOLDS, FAILS, UNCHECKED = ("✓", "green"), ("✗", "red"), ("•", "dim")
STRAY, OTHER = ("~", "yellow"), ("•", "yellow")
SAID = {STRAY: "stands there, but says nothing of question or answer",
        OTHER: "of another version than the store is at now"}  # fmt: skip
"""What a mark needs said beside it."""


class Live:
    """Prints the steps of one run to stderr as they end."""

    def __init__(self) -> None:
        self._passages: dict[str, Passage] = {}

    def step(self, step: Step) -> None:
        self._passages.update((p.id, p) for p in step.passages)
        for line in lines(step, self._passages):
            err().print(line, soft_wrap=True)


def lines(step: Step, passages: Mapping[str, Passage]) -> Iterator[Text]:
    """One step in a few lines; a role that only prepares another one (rewriter, answerer) gives none."""
    if step.error:
        yield _line("error", step.error, "red")
    if step.role == "planner":
        for number, goal in enumerate(step.parsed.get("steps", ()), 1):
            yield _line("plan" if number == 1 else "", f"{number}. {goal}")
    for call in step.calls:
        yield _line(call.tool, str(call.arguments.get("query", dict(call.arguments))), "yellow")
        if call.error:
            yield _line("", call.error, "red")
        for part in call.missing:
            yield _line("", f"not looked for in {part}", "yellow")
        for hit in (call.result or ())[:SHOWN_HITS]:
            found = passages.get(hit["passage_id"])
            yield _line("", f"· {found.title or found.id if found else hit['passage_id']}", "dim")
    note = step.parsed.get("note")
    if note:
        if note["quote"]:
            yield _line("note", f"“{_short(note['quote'])}”")
        yield _line("" if note["quote"] else "note", f"→ {note['answer']}", "bold")


def _line(label: str, body: str, style: str = "") -> Text:
    from rich.text import Text

    return Text.assemble((f"{label:<{LABEL}}", "cyan"), (" ".join(plain(body).split()), style))


def _short(text: str, limit: int = SNIPPET_CHARS) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def answer(
    episode: Episode, urls: Mapping[str, str] | None = None, checks: Iterable[Check] | None = None
) -> RenderableType:
    """The answer with its citations: ✓ for one that ``checks`` found to hold, ✗ for one that does not, • unchecked or
    of another version than the store's.

    ~ stands where it says too, but shares no word with the question or the answer.
    ``urls`` maps document ids to addresses; ``checks`` come from `cite.verify` against a store.
    """
    from rich.console import Group
    from rich.text import Text

    given = episode.answer
    marks = {check.citation: _mark(check) for check in checks or ()}
    parts: list[Text] = [Text(plain(given.text) if given else "no answer", style="bold")]
    parts += list(_citations(given, episode.passages(), urls or {}, marks)) if given else []
    if episode.stop.startswith("budget:"):
        parts.append(Text(f"  the {episode.stop.partition(':')[2]} budget ran out: best answer so far", "yellow"))
    if episode.error:
        parts.append(Text(f"  {plain(episode.error)}", "red"))
    return Group(*parts)


def _mark(check: Check) -> tuple[str, str]:
    if not check.same_store:
        return OTHER
    if not check.holds:
        return FAILS
    return HOLDS if check.on_topic else STRAY


def _citations(
    given: Answer, passages: Mapping[str, Passage], urls: Mapping[str, str], marks: Mapping[Citation, tuple[str, str]]
) -> Iterator[Text]:
    from rich.text import Text

    for sentence in given.sentences:
        if len(given.sentences) > 1:
            yield Text.assemble("  ", (plain(sentence.text), ""))
        for citation in sentence.citations:
            passage = passages.get(citation.passage_id)
            title = plain(passage.title if passage and passage.title else citation.passage_id)
            url = urls.get(passage.doc_id, "") if passage else ""
            quote = " ".join(plain(citation.quote).split())
            mark = marks.get(citation, UNCHECKED)
            said = (f"  {SAID[mark]}", "yellow") if mark in SAID else ""
            yield Text.assemble("  ", mark, f" “{quote}” ", (f"— {title}", "italic"), said)
            if url:
                yield Text(f"    {plain(url)}", "dim")
        if sentence.citations and not sentence.supported:
            yield Text("    the quotes stand where they say, but were not found to carry the sentence", "yellow")
        if not sentence.citations:
            yield Text("  ✗ no citation was kept for this", "yellow")
    for quote in given.rejected:
        yield Text(f"  ✗ rejected, stands nowhere in the evidence: “{_short(plain(quote))}”", "red")


def tree(episode: Episode) -> Tree:
    """The whole episode: plan, searches with their evidence, notes, answer, what was spent."""
    from rich.text import Text
    from rich.tree import Tree

    passages = episode.passages()
    root = Tree(Text(plain(episode.question), style="bold"))
    for step in episode.steps:
        _branch(root, step, passages)
    root.add(Text.assemble(("answer  ", "cyan"))).add(answer(episode))
    root.add(Text.assemble(("spent   ", "cyan"), spent(episode)))
    root.add(Text.assemble(("run     ", "cyan"), described(episode)))
    return root


def _branch(root: Tree, step: Step, passages: Mapping[str, Passage]) -> None:
    from rich.text import Text

    if step.calls:
        for call in step.calls:
            query = str(call.arguments.get("query", dict(call.arguments)))
            branch = root.add(Text.assemble((f"{call.tool:<{LABEL}}", "cyan"), (plain(query), "yellow")))
            if call.error:
                branch.add(Text(plain(call.error), "red"))
            for part in call.missing:
                branch.add(Text(f"not looked for in {plain(part)}", "yellow"))
            for rank, hit in enumerate(call.result or (), 1):
                found = passages.get(hit["passage_id"])
                title, text = (found.title or found.id, found.text) if found else (hit["passage_id"], "")
                branch.add(
                    Text.assemble(f"{rank} {plain(title)}  ", (f"{hit['score']:.3f}  ", "dim"), _short(plain(text)))
                )
        return
    shown = list(lines(step, passages))
    if shown:
        branch = root.add(shown[0])
        for line in shown[1:]:
            branch.add(line[LABEL:])


def spent(episode: Episode) -> str:
    """What the run cost, in one line."""
    used, seconds = episode.spent, episode.timing.get("seconds")
    tokens = f"{used.prompt_tokens:,} + {used.completion_tokens:,} tokens ({used.cached_tokens:,} cached)"
    return f"{used.searches} searches, {tokens}" + (f", {seconds:.1f} s" if seconds is not None else "")


def described(episode: Episode) -> str:
    """How the run was made, in one line."""
    config = episode.config
    name = (config.get("strategy") or {}).get("name", "?")
    parts = (f"{episode.id}", f"stop {episode.stop}", f"strategy {name}", f"policy {config.get('policy', '?')}")
    return " · ".join([*parts, f"seed {config.get('seed', '?')}", f"store {episode.fingerprint[:12] or 'none'}"])
