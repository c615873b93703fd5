"""Traces are read as they are, and every mistake in one is named with its line."""

import gzip

import pytest

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation.results import TraceRequest
from jscale.simulation.trace_file import columns_from_text
from jscale.simulation.traces import NAMED_TRACES, TraceOptions, load_trace

HEADER = "arrival_s,prompt_tokens,output_tokens\n"


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def test_azure_code_is_the_published_trace():
    trace = load_trace("azure-code")
    assert len(trace) == 8819
    assert trace[0] == TraceRequest(0, 4808, 10)
    assert trace[1] == TraceRequest(52_000_000, 3180, 8)
    assert sum(request.prompt_tokens for request in trace) == 18_059_974
    assert sum(request.output_tokens for request in trace) == 245_896
    assert trace[-1].arrival_ns == 3_435_948_056_000


def test_the_arrival_trace_has_its_30_minutes():
    trace = load_trace("lambda-scale")
    assert len(trace) == 3645
    assert 1799 < trace[-1].arrival_ns / NS_PER_S < 1800


@pytest.mark.parametrize("name", NAMED_TRACES)
def test_a_named_trace_says_whose_it_is(name):
    source = (NAMED_TRACES[name].parent / "SOURCE.txt").read_text()
    assert "icence" in source or "License" in source
    assert "commit" in source


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_a_file_is_read_with_its_own_times(tmp_path, name):
    path = written(tmp_path, HEADER + "1.5,10,2\n1.5,20,3\n", name)
    assert load_trace(path) == (
        TraceRequest(1_500_000_000, 10, 2),
        TraceRequest(1_500_000_000, 20, 3),
    )


def test_dates_count_from_the_first(tmp_path):
    path = written(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,1,2\n2023-11-17 00:00:03.9799600,3,4\n",
    )
    trace = load_trace(path)
    assert [request.arrival_ns for request in trace] == [0, 20_580 * NS_PER_S]


def test_columns_may_be_named(tmp_path):
    path = written(tmp_path, "out,x,when,in\n7,a,0.25,9\n")
    options = TraceOptions(
        columns=columns_from_text("arrival=when,prompt=in,output=out")
    )
    assert load_trace(path, options) == (TraceRequest(250_000_000, 9, 7),)


def test_lengths_are_drawn_where_there_are_none_and_only_there(tmp_path):
    times = written(tmp_path, "0.0\n0.5\n", "times.txt")
    options = TraceOptions(lengths="fixed:prompt=5,output=6")
    assert load_trace(times, options) == (
        TraceRequest(0, 5, 6),
        TraceRequest(500_000_000, 5, 6),
    )
    path = written(tmp_path, HEADER + "0,10,2\n")
    assert load_trace(path, options) == (TraceRequest(0, 10, 2),)


def test_a_window_becomes_the_trace():
    whole = load_trace("lambda-scale")
    cut = load_trace("lambda-scale", TraceOptions(start_s=600, end_s=900))
    inside = [r for r in whole if 600 <= r.arrival_ns / NS_PER_S < 900]
    assert [r.arrival_ns for r in cut] == [
        r.arrival_ns - 600 * NS_PER_S for r in inside
    ]
    assert [r.prompt_tokens for r in cut] == [r.prompt_tokens for r in inside]


def test_a_rate_of_two_halves_all_gaps():
    whole = load_trace("lambda-scale")
    fast = load_trace("lambda-scale", TraceOptions(rate_scale=2))
    assert len(fast) == len(whole)
    assert all(
        abs(f.arrival_ns - r.arrival_ns / 2) <= 1
        for f, r in zip(fast, whole, strict=True)
    )


def test_requests_may_be_given_themselves():
    requests = [TraceRequest(0, 1, 1), TraceRequest(10, 2, 2)]
    assert load_trace(requests) == tuple(requests)


@pytest.mark.parametrize("name", ["lambda-scale", "gamma:rate=5,seconds=60"])
def test_equal_seeds_give_equal_traces_and_others_do_not(name):
    assert load_trace(name, TraceOptions(seed=3)) == load_trace(
        name, TraceOptions(seed=3)
    )
    assert load_trace(name, TraceOptions(seed=3)) != load_trace(
        name, TraceOptions(seed=4)
    )


BAD_FILES = {
    "missing columns": (
        "arrival_s,prompt_tokens\n0,1\n",
        "of its columns arrival_s, prompt_tokens, which are which? Name them",
    ),
    "an empty file": ("", "it is empty: give at least one request"),
    "a header alone": (HEADER, "it is empty: give at least one request"),
    "unsorted times": (
        HEADER + "0,1,1\n5,1,1\n3,1,1\n",
        "line 4: it comes 2 s before the one above it: sort the file by time",
    ),
    "a negative time": (
        HEADER + "-1,1,1\n",
        "line 2: time -1: give seconds of 0 or more",
    ),
    "a time that is none": (
        HEADER + "0,1,1\nsoon,1,1\n",
        "line 3: time 'soon': give seconds from the start, or a date",
    ),
    "an endless time": (HEADER + "inf,1,1\n", "line 2: time inf: give seconds"),
    "no time": (HEADER + ",1,1\n", "line 2: time '': give seconds"),
    "tokens that are no number": (
        HEADER + "0,many,1\n",
        "line 2: prompt_tokens 'many': give a whole number from 1 on",
    ),
    "half a token": (HEADER + "0,1,0.5\n", "line 2: output_tokens '0.5': give a whole"),
    "no token": (HEADER + "0,1,0\n", "line 2: output_tokens '0': give a whole number"),
    "a short line": (HEADER + "0,1\n", "line 2: output_tokens None: give a whole"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_gets_one_clear_error(tmp_path, case):
    text, message = BAD_FILES[case]
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_trace(path)
    assert message in str(raised.value)
    assert path in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_gets_one_clear_error(tmp_path):
    (tmp_path / "broken.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("nowhere.csv", "No such file or directory"),
        ("broken.csv.gz", "Not a gzipped file"),
        ("binary.csv", "byte 0 is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_trace(str(tmp_path / name))


def test_a_named_column_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path, HEADER + "0,1,1\n")
    columns = columns_from_text("arrival=arrival_s,prompt=prompt,output=output_tokens")
    with pytest.raises(ConfigError, match=r"no column 'prompt' among arrival_s, "):
        load_trace(path, TraceOptions(columns=columns))


@pytest.mark.parametrize(
    "text", ["", "arrival=a,prompt=b", "arrival=a,prompt=,output=c"]
)
def test_columns_must_all_be_named(text):
    with pytest.raises(ConfigError, match="give all of arrival=NAME,prompt=NAME"):
        columns_from_text(text)


BAD_NAMES = {
    "azure-cod": "choose one of azure-code, lambda-scale",
    "poisson": "poisson: rate is missing: give poisson:rate=NUMBER",
    "poisson:rate=5": "poisson: seconds is missing",
    "poisson:rate=5,minutes=1": "poisson: there is no 'minutes': give some of rate",
    "poisson:rate=fast,seconds=1": "'rate=fast': give numbers of 0 or more",
    "poisson:rate=-5,seconds=1": "'rate=-5': give numbers of 0 or more",
    "poisson:rate=0,seconds=1": "nobody comes in that time",
    "poisson:rate=1/2,seconds=1": "poisson: rate has 2 numbers: give one",
    "poisson:rate": "'rate': give each KEY=NUMBER once",
    "gamma:rate=0,seconds=1": "give a rate and a cv over 0",
    "steps:each_s=5": "rates is missing: give steps:rates=1/10/1",
    "burst:requests=0": "nobody comes in that time",
    "burstgpt:first_hour=1461,hours=1": "hours 1461 to 1462: there are 1461",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_gets_one_clear_error(name):
    with pytest.raises(ConfigError) as raised:
        load_trace(name)
    assert BAD_NAMES[name] in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_scale": 0}, "rate_scale 0: give a factor over 0"),
        ({"start_s": 5, "end_s": 5}, "window from 5 s to 5 s"),
        ({"start_s": -1}, "window from -1 s to None s"),
        ({"start_s": 1e6}, "nobody comes from 1e\\+06 s to its end"),
        ({"lengths": "long"}, "lengths 'long': choose one of chat, azure-code"),
        ({"lengths": "fixed:prompt=5"}, "fixed: output is missing"),
        ({"lengths": "fixed:prompt=0,output=1"}, "prompt 0: give a whole number"),
    ],
)
def test_bad_options_get_one_clear_error(options, message):
    with pytest.raises(ConfigError, match=message):
        load_trace("lambda-scale", TraceOptions(**options))
