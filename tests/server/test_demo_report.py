"""The demo is right only if every token is."""

import io

from rich.console import Console

from jscale.core.units import NS_PER_S
from jscale.server.demo_report import DemoReport, Marks
from jscale.server.load import Finished, difference, rate_per_s

MARKS = Marks(*(moment * NS_PER_S for moment in (0, 10, 12, 13, 20, 30)))


def finished(moment_s, fault=""):
    sent_ns = int(moment_s * NS_PER_S)
    return Finished("Once", sent_ns, sent_ns + 5, sent_ns + 9, 3, fault)


def report(*ended):
    return DemoReport(4, MARKS, ended, tuple(range(0, 30 * NS_PER_S, 10**8)), 7)


def test_a_difference_says_where_it_is():
    assert difference([1, 2, 3], [1, 2, 3]) == ""
    assert difference([1, 9, 3], [1, 2, 3]) == "token 1 is 9, a single worker gave 2"
    assert difference([1, 2], [1, 2, 3]) == "2 tokens, a single worker gave 3"


def test_rates_count_what_lies_in_the_interval():
    assert rate_per_s([0, 1, 2, NS_PER_S], 1, NS_PER_S + 1) == 3 / 1.0


def test_a_demo_without_a_finished_request_is_not_right():
    assert not report().is_right


def test_one_wrong_request_is_enough():
    assert report(finished(1), finished(15)).is_right
    wrong = report(finished(1), finished(2, "token 1 is 9"))
    assert not wrong.is_right
    assert wrong.faults == ("token 1 is 9",)


def test_the_summary_says_what_happened():
    console = Console(file=io.StringIO(), width=100)
    console.print(report(finished(1), finished(15), finished(25, "no")).render())
    text = console.file.getvalue()
    assert "2 of 3 requests have exactly the tokens of a single worker" in text
    assert "after 2.0 s, ran a stage after 3.0 s; all 4 were local after 10.0 s" in text
    assert "handed over: 7" in text
    assert "wrong: no" in text
