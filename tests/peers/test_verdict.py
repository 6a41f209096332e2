"""The load table and the soak end with exit status 1 when a promise is broken: each of them, one by one."""

import sys

import pytest
from harness import HERE

sys.path.insert(0, str(HERE.parents[1] / "benches/service"))
import verdict  # noqa: E402

KEPT = {
    "trial": "a trial", "asked": 100, "twice": 0, "answered, never run": 0, "sessions lost": 0, "broken": [],
    "causes": {verdict.DIED: {"h1": 3}, "status 502: words": {"h1": 1, "tls": 1}}, "streams": {"whole, told to come back": 4},
}
ALLOWED = verdict.Allowance(failed={"status 502": 2})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"twice": 1}, "1 POSTs were run twice"),
        ({"answered, never run": 2}, "2 POSTs were answered and never run"),
        ({"sessions lost": 1}, "1 sessions were lost"),
        ({"asked": 0}, "nothing was asked"),
        ({"broken": ["exit 1"]}, "exit 1"),
        ({"causes": {"status 502: words": {"h1": 2, "h2": 1}}}, "3 × status 502: words, allowed: 2"),
        ({"causes": {"status 503": {"h1": 1}}}, "1 × status 503, allowed: 0"),
        ({"streams": {"broken off": 1}}, "1 streams ended broken off"),
    ],
)
def test_of_a_trial(change, told):
    found = verdict.of_trial(KEPT | change, ALLOWED, loaded=True)
    assert found == ([f"a trial: {told}"] if told else [])


def test_what_a_trial_allows():
    row = KEPT | {"sessions lost": 4, "streams": {"broken off": 1}, "causes": {"no answer in 30 s": {"h1": 400}}}
    allowed = verdict.Allowance(failed={"no answer": verdict.ANY}, sessions=True, streams=("whole", "broken off"))
    assert verdict.of_trial(row, allowed, loaded=True) == []
    assert verdict.of_trial(KEPT | {"asked": 0}, ALLOWED, loaded=False) == []


def soaked(**last):
    warm = {"work": "warm-up", "done": 10, "errors": 0, "rss": 10_000, "files": 20}
    return [warm, warm | {"work": "requests", "done": 100}, warm | {"work": "requests", "done": 500, "rss": 12_000, "files": 22} | last]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({}, []),
        ({"errors": 1}, ["requests: 1 errors"]),
        ({"rss": 12_100}, ["requests: RSS grew from 10000 to 12100 KiB"]),
        ({"files": 23}, ["requests: descriptors grew from 20 to 23"]),
        ({"done": 499}, ["requests: less than 500 were done"]),
    ],
)
def test_of_the_soak(last, told):
    assert verdict.of_soak(soaked(**last), {"requests": 500}) == told


def test_a_work_that_is_not_there_is_not_done():
    assert verdict.of_soak(soaked(), {"requests": 500, "streams": 1}) == ["streams: less than 1 were done"]
