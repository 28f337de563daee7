"""The page, opened from a file in a real browser: it shows, filters, sorts, and does nothing that a model wrote."""

import os
import time

import pytest
from browser import Browser, find_browser
from report_runs import HOSTILE, row, write_history, write_settings, write_table

from trl_hybrid.report import write_report


REQUIRED = os.environ.get("TRL_HYBRID_REQUIRE_ALL") == "1"

pytestmark = [
    pytest.mark.skipif(find_browser() is None and not REQUIRED, reason="no Chromium or Chrome is installed"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert find_browser(), "TRL_HYBRID_REQUIRE_ALL is 1 and no Chromium or Chrome is installed"
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Step 1: three answers to one question, the second one a disagreement. Step 2: sixty wrong answers."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    write_history(folder, 40)
    write_settings(folder)
    first = [
        row(1, "What is 5 + 7?", "It is TWELVE, 12.", 1.0, 2.5, 1.05),
        row(1, "What is 5 + 7?", f"Hostile {HOSTILE}", 0.0, 9.0, 0.1, disagreement=True, reason="no_answer"),
        row(1, "What is 5 + 7?", "Unclear.", float("nan"), float("nan"), float("nan")),
    ]
    write_table(folder, 1, first)
    answers = [
        row(2, f"What is {n} + 0?", f"So it is {n}.", 0.0, -n / 10, 0.0, extracted_answer=str(n)) for n in range(60)
    ]
    write_table(folder, 2, answers)
    return write_report(folder)


@pytest.fixture
def opened(browser, page):
    browser.open(page.as_uri())
    return browser


def column(browser, number):
    return browser.texts(f"#rows tr.row td:nth-child({number})")


def test_it_opens_from_a_file_and_asks_the_network_for_nothing(opened, page):
    assert opened.js("document.title") == "mine - trl-hybrid"
    assert opened.texts("#count") == ["63 of 63"]
    assert len(opened.texts("figure svg")) >= 4
    assert opened.requests == [page.as_uri()]


def test_nothing_is_wrong_in_the_console(opened):
    opened.click("#rows tbody tr.row")
    assert opened.complaints == []


def test_disagreements_come_first_and_pages_follow(opened):
    assert column(opened, 1)[:2] == ["!", ""]
    assert opened.texts("#page") == ["1 of 2"]
    assert len(column(opened, 1)) == 50
    opened.click("#next")
    assert opened.texts("#page") == ["2 of 2"]
    assert len(column(opened, 1)) == 13
    assert opened.js("document.querySelector('#next').disabled")
    opened.click("#previous")
    assert opened.texts("#page") == ["1 of 2"]


def test_typing_searches_questions_completions_and_answers(opened):
    opened.click("#filters [name=q]")
    opened.type("twelve")
    assert opened.texts("#count") == ["1 of 63"]
    assert column(opened, 3) == ["right numeric"]
    opened.click("#filters [type=reset]")
    assert opened.texts("#count") == ["63 of 63"]


def test_filters_go_together_and_stay_in_the_address(opened, page):
    opened.click("#filters [name=step]")
    opened.type("1")
    assert opened.texts("#count") == ["3 of 63"]
    opened.click("#filters [name=flag]")
    assert opened.texts("#count") == ["1 of 63"]
    address = opened.js("location.href")
    assert address == f"{page.as_uri()}#step=1&flag=1"
    opened.open(address)
    assert opened.texts("#count") == ["1 of 63"]
    assert opened.js("document.querySelector('[name=flag]').checked")


@pytest.mark.parametrize(("verdict", "count"), [("right", 1), ("wrong", 61), ("not judged", 1)])
def test_verdicts_are_a_choice(opened, verdict, count):
    opened.js(
        f"(s => {{ s.value = '{verdict}'; s.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        "(document.querySelector('[name=verdict]'))"
    )
    assert opened.texts("#count") == [f"{count} of 63"]


def test_a_click_on_a_column_sorts_and_another_one_turns_it(opened):
    opened.click("th[data-key=score]")
    assert column(opened, 4)[:4] == ["9.00", "2.50", "0.00", "-0.10"]
    opened.click("th[data-key=score]")
    assert column(opened, 4)[:2] == ["-5.90", "-5.80"]
    opened.click("#next")
    assert column(opened, 4)[-3:] == ["2.50", "9.00", "-"]  # a score that is missing comes last either way
    opened.click("th[data-key=answer]")
    assert column(opened, 8)[5:12] == ["5", "6", "7", "7", "7", "8", "9"]  # as numbers, not as text
    assert opened.js("document.querySelector('th[data-key=answer]').getAttribute('aria-sort')") == "ascending"


def test_a_row_opens_and_shows_what_the_model_wrote_as_text(opened, page):
    opened.click("#rows tbody tr.row")
    shown = opened.texts("tr.detail dd")
    assert shown[:2] == ["What is 5 + 7?", f"Hostile {HOSTILE}"]
    assert shown[4:6] == ["wrong: no answer", "9.0000"]
    assert opened.js("window.attacked") is None
    assert opened.js("document.querySelectorAll('#rows img, #rows b, #rows script').length") == 0
    assert opened.requests == [page.as_uri()]
    opened.click("tr.detail button")
    assert opened.texts("#count") == ["3 of 63"]
    assert column(opened, 5) == ["1.050", "0.100", "-"]


def test_it_fits_a_phone_and_a_desk_in_both_themes(opened, tmp_path):
    pictures = {}
    for width, dark in ((390, False), (1200, False), (1200, True)):
        opened.screenshot(tmp_path / "page.png", width, 800, dark)
        pictures[width, dark] = opened.js("getComputedStyle(document.body).backgroundColor")
        assert opened.js("document.documentElement.scrollWidth") <= width
    assert pictures[1200, False] != pictures[1200, True]


def test_twenty_thousand_completions_are_quick(browser, tmp_path):
    text = "First we add the tens, then the ones. " * 20
    for step in range(1, 21):
        write_table(tmp_path, step, [row(step, f"{n}?", f"{n} {text}{step}", 0.0, n / 7, 0.0) for n in range(1000)])
    page = write_report(tmp_path)
    started = time.monotonic()
    browser.open(page.as_uri())
    assert browser.texts("#count") == ["20,000 of 20,000"]
    assert time.monotonic() - started < 10  # half a second on an idle machine
    started = time.monotonic()
    browser.click("#filters [name=q]")
    browser.type("999 first")
    assert browser.texts("#count") == ["20 of 20,000"]
    browser.click("th[data-key=score]")
    assert time.monotonic() - started < 5
