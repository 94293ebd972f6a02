"""The page and what stands beside it: self-contained, escaped, linked, and complete about what is not scored."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sleuth import cli
from sleuth.agents import episodes
from sleuth.agents.cite import checked
from sleuth.agents.records import Answer, Citation
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval import publish
from sleuth.eval.evaluate import rescore, tagged
from sleuth.eval.metrics import QUESTION_ANSWERING, em, f1
from sleuth.eval.page import _ticks, _top, forest, marked, scatter, waterfall_rows
from sleuth.eval.passk import repeated
from sleuth.eval.records import Scored, Task
from sleuth.eval.report import Report, text_of
from sleuth.eval.run import named_apart
from tests.eval_episodes import episode, passage

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'}}{{7*7}}"
JAWS = passage("jaws", f"Jaws is a film by Spielberg. {ATTACK}", f"Jaws {ATTACK}")
TASKS = [
    Task("a", "Who made Jaws?", ("Spielberg",), ("jaws",), "all", hops=1, type="bridge"),
    Task(f"b {ATTACK}", f"Who? {ATTACK}", ("Nobody </td><script>",), hops=2),
    Task("c", "What is missing?", ("All",)),
]


def written(folder: Path) -> Path:
    """Two episodes of three tasks, a third one cut in its line, and one of no task here."""
    path = folder / "naive-rag.jsonl"
    right = checked(TASKS[0].question, "Spielberg", ["Jaws is a film by Spielberg."], [JAWS], "f00d")
    episodes.append(path, tagged(episode(TASKS[0].question, right, [JAWS], [JAWS]), TASKS[0]))
    wrong = episode(TASKS[1].question, Answer(ATTACK), [JAWS], [JAWS], error=ATTACK)
    episodes.append(path, tagged(wrong, TASKS[1]))
    whole = path.read_text().splitlines()[0].replace('"a"', '"c"')
    with open(path, "a", encoding="utf-8") as file:
        file.write(whole[: len(whole) // 2] + "\n")
    episodes.append(path, tagged(episode("Another?"), dataclasses.replace(TASKS[0], id="other")))
    return path


def made(folder: Path, name: str = "naive-rag") -> Report:
    return rescore(
        written(folder),
        TASKS,
        QUESTION_ANSWERING,
        name=name,
        benchmark="films",
        primary="f1",
        bad=["films.jsonl:9: no id"],
    )


def test_a_cut_line_is_named_and_the_rest_is_scored(tmp_path: Path) -> None:
    report = made(tmp_path)
    assert [row.outcome for row in report.scored] == ["right", "not retrieved", "not run"]
    assert report.values("em") == {"a": 1.0, TASKS[1].id: 0.0}
    assert report.summary("em").causes == {"no episode in naive-rag.jsonl": 1, "the row could not be loaded": 1}
    cut, other = report.notes
    assert "naive-rag.jsonl:3: expected one episode" in cut
    assert other.endswith("episodes that answer no question of films: 1")


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        reports.append(made(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    relative = dataclasses.replace(reports[1], episodes="b/naive-rag.jsonl")
    names = [report.name for report in named_apart([reports[0], relative])]
    assert names == ["naive-rag (a/naive-rag.jsonl)", "naive-rag (b/naive-rag.jsonl)"]


def test_runs_that_differ_in_their_seed_alone_are_together_though_one_failed(tmp_path: Path) -> None:
    one = made(tmp_path)
    versions = [dataclasses.replace(row, policy_version="v1") for row in one.scored]
    one = dataclasses.replace(one, scored=tuple(versions), config={**one.config, "seed": 0})
    failed = (dataclasses.replace(versions[0], policy_version=""), *versions[1:])
    other = dataclasses.replace(one, scored=failed, config={**one.config, "seed": 1})
    assert repeated([one, other]) == [[one, other]]
    third = dataclasses.replace(other, scored=(dataclasses.replace(versions[0], policy_version="v2"), *versions[1:]))
    assert repeated([one, third]) == []


def test_rescoring_refuses_what_it_cannot_mean(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected episodes of films; found none"):
        rescore(written(tmp_path), [TASKS[2]], {"em": em}, benchmark="films")
    with pytest.raises(InputError, match="no such episode file"):
        rescore(tmp_path / "none.jsonl", TASKS, {"em": em})


def test_a_later_episode_of_a_task_counts(tmp_path: Path) -> None:
    path = written(tmp_path)
    again = episode(TASKS[0].question, Answer("Nobody"), [JAWS], [JAWS], config={"seed": 5})
    episodes.append(path, tagged(again, TASKS[0]))
    report = rescore(path, TASKS, {"em": em})
    assert report.values("em")["a"] == 0.0
    assert "another configuration (seed 5 there, None now): 1" in report.notes[-1]


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_no_text_of_a_page_or_policy_becomes_markup_and_nothing_is_fetched(tmp_path: Path) -> None:
    publish.write(tmp_path, [made(tmp_path, ATTACK)], f"Films {ATTACK}", f"sleuth eval {ATTACK}")
    files = [tmp_path / "report.html", *(tmp_path / "episodes").glob("*.html")]
    assert len(files) == 2
    for file in files:
        page = Elements(file.read_text())
        assert not {"script", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert ATTACK in "".join(page.words), "escaped, not dropped, and not run as a template"
        links = [a[key] or "" for _, a in page.tags for key in ("href", "src") if key in a]
        assert not [link for link in links if re.match(r"(?i)[a-z]+:|//", link) and link != "data:,"]
        policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
        assert policy and "default-src 'none'" in str(policy[0])


def test_every_row_leads_to_its_episode(tmp_path: Path) -> None:
    publish.write(tmp_path, [made(tmp_path)])
    page = Elements((tmp_path / "report.html").read_text())
    links = [str(a["href"]) for tag, a in page.tags if tag == "a" and str(a.get("href")).startswith("episodes/")]
    assert len(links) == 2, "the third task has no episode"
    for link in links:
        file, anchor = link.split("#")
        there = Elements((tmp_path / file).read_text())
        assert [a for tag, a in there.tags if tag == "article" and a.get("id") == anchor]
        assert ("a", {"href": "../report.html"}) in there.tags
    text = (tmp_path / "episodes" / "01-films-naive-rag-1.html").read_text()
    assert "<mark>Jaws is a film by Spielberg.</mark>" in text and "gold document" in text


def test_the_page_says_what_a_reader_asks_for(tmp_path: Path) -> None:
    publish.write(tmp_path, [made(tmp_path)], "Films", "sleuth eval films --store s")
    page = "".join(Elements((tmp_path / "report.html").read_text()).words)
    for wanted in (
        "F1 by run",
        "evidence recall and F1",
        "From all questions to the right answers",
        "hops: 1",
        "n 1, few",
        "Cost per question",
        "films.jsonl:9: no id",
        "expected one episode as JSON",
        "no episode in naive-rag.jsonl (1)",
        "sleuth eval films --store s",
        "numpy",
        "the evidence was retrieved, but not among",
    ):
        assert wanted in page, wanted
    assert " nan" not in page.lower() and "None" not in page


def test_csv_and_json_hold_every_question(tmp_path: Path) -> None:
    report = made(tmp_path, "=1+1")
    publish.write(tmp_path, [report])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text())))
    assert [row["em"] for row in rows] == ["1", "0", ""] and rows[0]["run"] == "'=1+1"
    assert rows[1]["question"] == TASKS[1].question and rows[2]["outcome"] == "not run"
    data = json.loads((tmp_path / "report.json").read_text())
    assert data[0]["rows"][0]["values"]["em"] == 1 and data[0]["card"]["versions"]["numpy"]
    assert json.loads(text_of([report, report])) == json.loads(json.dumps([report.to_json()] * 2))


def test_a_report_without_questions_or_figures_still_makes_a_page(tmp_path: Path) -> None:
    empty = Report("x", "none", "f1", ("em", "f1"), ())
    unscored = Report("y", "none", "f1", ("em", "f1"), (Scored("a", {"em": None, "f1": None}, {"em": "w", "f1": "w"}),))
    page = publish.write(tmp_path, [empty, unscored]).read_text()
    assert "F1 by run" not in page and "0 of 0" in page


def test_several_benchmarks_open_with_an_overview(tmp_path: Path) -> None:
    one = made(tmp_path)
    other = dataclasses.replace(one, benchmark="plays", name="decompose")
    page = "".join(Elements(publish.write(tmp_path, [one, other]).read_text()).words)
    assert "Overview" in page and "plays, F1" in page
    line = next(x for x in publish.markdown([one, other]).splitlines() if x.startswith("| naive-rag |"))
    assert line.endswith("n 2 | – |") and "[" in line


def test_runs_over_different_questions_say_so(tmp_path: Path) -> None:
    one = made(tmp_path)
    fewer = dataclasses.replace(one, name="decompose", scored=one.scored[:2])
    warning = "over different questions (naive-rag 3, decompose 2; 2 in common)"
    assert warning in publish.write(tmp_path, [one, fewer]).read_text() and warning in publish.markdown([one, fewer])
    assert publish.uneven([one, one]) == ""


def test_plots_are_drawn_to_scale() -> None:
    def report(name: str, values: list[float], recall: float | None = 0.5) -> Report:
        rows = [Scored(str(i), {"f1": v, "evidence_recall": recall}) for i, v in enumerate(values)]
        return Report(name, "b", "f1", ("f1", "evidence_recall"), tuple(rows))

    drawn = forest([report("a", [0.2, 0.4] * 20), report("b", [0.1] * 40)])
    assert [tick["shown"] for tick in drawn["ticks"]] == ["0", "10", "20", "30", "40"]
    assert drawn["rows"][0]["mean"] == 75.0 and drawn["rows"][1]["low"] == drawn["rows"][1]["high"] == 25.0
    spread = scatter([report("a", [0.5]), report("b", [0.5]), report("c", [0.0])])
    assert spread is not None and [p["left"] for p in spread["points"]] == [50.0] * 3
    assert [p["up"] for p in spread["points"]] == [0.0, 0.0, 100.0]
    assert [mark["numbers"] for mark in spread["labels"]] == [[1, 2], [3]]
    assert scatter([report("a", [0.5], None)]) is None
    assert (_top(0.0), _top(52.4), _top(100), _top(0.31)) == (1.0, 60.0, 100.0, 0.4) and len(_ticks(60.0)) == 5


def test_the_waterfall_hangs_each_bar_where_the_last_one_ended() -> None:
    rows = waterfall_rows({"all": 10, "not retrieved": 4, "citation": 1, "right": 5})
    assert [(row["start"], row["width"]) for row in rows] == [(0.0, 100.0), (60.0, 40.0), (50.0, 10.0), (0.0, 50.0)]


def test_quoted_spans_are_marked_once_each() -> None:
    text = passage("p", "One two three.")
    cites = [Citation("f", "p", 4, 7, "two"), Citation("f", "p", 0, 7, "One two"), Citation("f", "q", 0, 3, "One")]
    assert marked(text, cites) == [("One two", True), (" three.", False)]
    assert marked(text, []) == [("One two three.", False)]


def test_the_command_scores_again_without_a_store_or_policy(tmp_path: Path) -> None:
    questions = tmp_path / "films.jsonl"
    row = {"id": "a", "question": TASKS[0].question, "answers": ["Spielberg"], "supporting": ["jaws"]}
    questions.write_text(json.dumps(row) + "\n")
    arguments = ["eval", str(questions), "--rescore", str(written(tmp_path)), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert result.exit_code == 0, result.exception
    data = json.loads(result.stdout)
    assert data["metrics"]["em"]["mean"] == 1 and data["outcomes"] == {"all": 1, "right": 1}
    assert "naive-rag.jsonl:3" in result.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "episodes",
        "report.csv",
        "report.html",
        "report.json",
        "report.md",
    }
    refused = CliRunner().invoke(cli.app, [*arguments, "--policy", "embedded"])
    assert isinstance(refused.exception, ConfigError) and "--policy does not go with --rescore" in str(
        refused.exception
    )


def test_metrics_given_alone_are_all_that_is_shown(tmp_path: Path) -> None:
    report = rescore(written(tmp_path), TASKS[:2], {"f1": f1}, benchmark="films", primary="f1")
    text = publish.markdown([report])
    assert "| F1 | 50.0" in text and "| EM |" not in text and "Outcomes" in text


def test_calibration_stands_in_the_page_and_in_markdown_where_there_is_confidence(tmp_path: Path) -> None:
    values = [(0.9, 1.0), (0.6, 0.0), (0.5, 1.0), (None, 1.0)]
    rows = tuple(
        Scored(f"t{i}", {"em": right, "confidence": sure}, {}, "", "answered", outcome="right")
        for i, (sure, right) in enumerate(values)
    )
    report = Report("sure", "films", "em", ("em", "confidence"), rows)
    publish.write(tmp_path, [report])
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "| sure | 3 | 66.7 | 27.8 | 16.7 | 40.0 | 1 |" in text
    assert '<polyline points="33.33,100.0 66.67,50.0 100.0,66.67"/>' in page and "33 % of all" in page
    unsure = dataclasses.replace(report, metrics=("em",), scored=(rows[3],))
    publish.write(tmp_path, [unsure])
    assert "Calibration" not in (tmp_path / "report.md").read_text()
    assert "polyline points" not in (tmp_path / "report.html").read_text()
