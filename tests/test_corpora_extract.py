"""Extraction: the main text of a page by each way, its structure, what it declares, and hostile pages."""

import pytest
from lxml import etree

from sleuth.corpora.blocks import written
from sleuth.corpora.declared import declared
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.extract import METHODS, extract

SENTENCE = "The old mill at the river ground corn for the village and the farms around it. "
PARAGRAPHS = "".join(f"<p>Paragraph {n}: {SENTENCE * 3}</p>" for n in range(6))
FRAME = """<!doctype html><html lang="en-GB"><head><title>Mills | Daily Corn</title>
<meta property="og:site_name" content="Daily Corn"><link rel="canonical" href="/mills"><link rel="license" href="/cc">
<script type="application/ld+json">{"@graph":[{"author":[{"name":"Ada Miller"},{"name":"Bo"}],
"datePublished":"2019-05-06T10:00:00Z"}]}</script></head>
<body><div id="top"><ul><li><a href="/a">Home</a></li><li><a href="/b">News</a></li></ul></div>
<div class="page"><div class="text"><h1>Mills</h1>%s</div>
<div class="comments-list"><p>I once lived beside that mill and it was loud all the night, believe me, dear readers.</p>
</div></div><footer>Imprint</footer></body></html>"""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_text_and_leaves_the_frame(method: str) -> None:
    found = extract(FRAME % PARAGRAPHS, "http://corn.example/x", method)  # type: ignore[arg-type]
    assert "Paragraph 0" in found.text and "Paragraph 5" in found.text and "Imprint" not in found.text
    assert found.declared.title == "Mills" and not found.text.startswith("# Mills")


def test_the_chooser_takes_the_cheapest_way_that_fits() -> None:
    clean = extract(FRAME % PARAGRAPHS)
    linked = "".join(f'<p>{n} see <a href="/{n}">{SENTENCE}</a> {n} {SENTENCE}</p>' for n in range(8))
    assert clean.way == "clean" and "loud all the night" not in clean.text
    assert extract(FRAME % linked).way == "narrowed"
    assert extract(FRAME % f"<p>{SENTENCE}</p>").way == "whole"


def test_paragraphs_that_are_divisions_are_not_lost() -> None:
    inner = "".join(f'<div class="section"><div class="para">Step {n}: {SENTENCE * 3}</div></div>' for n in range(12))
    found = extract(FRAME % inner)
    assert all(f"Step {n}: " in found.text for n in range(12)) and "Imprint" not in found.text


LEAD = "A lead says in one sentence what the article tells of mills."


@pytest.mark.parametrize("holder", ["<div class='teaser'><p>%s</p></div>", "<header><h2>%s</h2></header>", "<p>%s</p>"])
def test_the_lead_between_heading_and_text_is_kept_once(holder: str) -> None:
    page = FRAME.replace("<h1>Mills</h1>", f"</div><h1>Mills</h1>{holder % LEAD}<div>")
    assert extract(page % PARAGRAPHS).text.startswith(f"{LEAD}\n\nParagraph 0")


@pytest.mark.parametrize(
    "between",
    [
        f"<figure><p>{LEAD}</p></figure>",
        f"<p><a href='/x'>{LEAD}</a></p>",
        f"<p class='byline'>{LEAD}</p>",
        f"<p>{LEAD[:-1]}</p>",  # no sentence
        f"<p>{LEAD}</p>" * 5,  # no lead is so long
    ],
)
def test_what_else_stands_there_is_no_lead(between: str) -> None:
    page = FRAME.replace("<h1>Mills</h1>", f"</div><h1>Mills</h1>{between}<div>")
    assert extract(page % (PARAGRAPHS * 2)).text.startswith("Paragraph 0")


@pytest.mark.parametrize(
    ("inner", "kept"),
    [
        ("<div id='s-more-on-mills'><h2>More on mills</h2><p>Sails.</p></div>", True),  # named by its heading
        ("<div id='more'><h2>Bakers</h2><p>Sails.</p></div>", False),
        ("<div class='operating'>Sails.</div>", True),  # "rating" is no word of it
        ("<div class='customerRating'>Sails.</div>", False),
        (f"<div class='sidebar'><p>Sails. {SENTENCE * 5}</p></div>", True),  # prose
        ("<div class='box sidebar'><p>Sails.</p></div>", False),
        ("<div class='deprecation-comment'>Sails.</div>", True),
        ("<section id='kommentare'><p>Sails.</p></section>", False),
    ],
)
def test_boilerplate_is_told_by_the_words_of_its_name_unless_it_holds_prose(inner: str, kept: bool) -> None:
    found = extract(FRAME % (PARAGRAPHS * 3 + inner + PARAGRAPHS))
    assert ("Sails." in found.text) is kept and found.text.count("Paragraph 5") == 4


def test_headings_lists_tables_and_code_keep_their_shape() -> None:
    inner = (
        PARAGRAPHS + "<h2>Kinds <em>of</em> mill</h2><ul><li>Wind</li><li>Water</li></ul>"
        "<table><tr><th>Kind</th><th>Year</th></tr><tr><td>Wind</td><td>1180</td></tr></table>"
        "<pre>if x:\n    grind(x)\n</pre><p>After the <b>code</b>, <br>a new line.</p>"
    )
    text = extract(FRAME % inner).text
    assert "\n\n## Kinds of mill\n\n- Wind\n- Water\n\n| Kind | Year |\n| Wind | 1180 |\n\n" in text
    assert "```\nif x:\n    grind(x)\n```\n\nAfter the code,\na new line." in text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<div>a<p>b</p>c</div>", "a\n\nb\n\nc"),
        ("<div>one <i>two</i>\n three</div>", "one two three"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n- b\n- c"),
        ("<table><tr><td><p>left</p></td></tr></table>", "left"),
        ("<table><tr><td>a|b</td><td>c<br>d</td></tr></table>", r"| a\|b | c d |"),
        ("<p> </p>", ""),
    ],
)
def test_a_tree_is_written_block_by_block(html: str, text: str) -> None:
    assert written(etree.HTML(f"<body>{html}</body>")) == text


def test_what_a_page_declares() -> None:
    known = declared(etree.HTML(FRAME), "http://corn.example/2001/02/03/x")
    assert (known.title, known.author, known.date, known.lang) == ("Mills", "Ada Miller; Bo", "2019-05-06", "en")
    assert (known.sitename, known.url, known.licence) == (
        "Daily Corn",
        "http://corn.example/mills",
        "http://corn.example/cc",
    )
    empty = declared(etree.HTML("<p>Written on 3.4.2005</p>"), "http://corn.example/2001/02/03/x")
    assert empty.date == "2001-02-03" and empty.title == empty.author == empty.lang == ""
    assert (
        declared(etree.HTML("<span class='post-date'>31.02.2005</span><p class=date>1.3.2005</p>")).date == "2005-03-01"
    )


def test_links_are_absolute_and_only_of_the_main_part() -> None:
    inner = PARAGRAPHS + f'<p>{SENTENCE}<a href="../wind#top">wind</a> <a href="javascript:x()">x</a></p>'
    found = extract(FRAME % inner, "http://corn.example/a/b", keep_links=True)
    assert found.links == ("http://corn.example/wind",)


@pytest.mark.parametrize(
    ("html", "word"),
    [
        ("<div>" * 10_000 + "<p>" + SENTENCE, "256 levels"),
        ("<b>" * 10_000 + SENTENCE, "256 levels"),
        ("<html><body><script>x()</script></body></html>", "no main text"),
        ("", "no HTML"),
        ("<!-- -->", "no"),
    ],
)
def test_hostile_and_empty_pages_are_refused_with_a_reason(html: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        extract(html)


def test_another_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="trafilatura"):
        extract("<p>x", method="magic")  # type: ignore[arg-type]


def test_bench_measures_shingles_as_the_benchmark_does() -> None:
    from bench.corpora import overlap, scores

    assert overlap("a b c d e", "a b c d e") == (2, 0, 0)
    assert overlap("a b c d e", "x a b c d") == (1, 1, 1)
    precision, recall, f1 = scores([(2, 0, 0), (1, 1, 1), (0, 0, 3)])
    assert (precision, round(recall, 3)) == (0.75, 0.5) and round(f1, 3) == 0.6
