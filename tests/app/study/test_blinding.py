"""Acceptance S13: nothing of what goes over the wire, but the sound itself, tells what a sound is.

The long run, against a server of its own with times: `python -m pytest tests/app/study/test_blinding.py -m long -s`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from starlette.testclient import TestClient

from app.study import routes
from app.study.library import Library
from tests.app.study.conftest import MEMORY
from tests.app.study.studies import Clock
from tests.app.study.visitors import Visitor, assembled
from tests.journeys.conftest import ROOT, free_port, wait_until_it_answers

MODELS = [
    LogisticRegression(max_iter=500),
    KNeighborsClassifier(),
    DecisionTreeClassifier(max_depth=4),
    RandomForestClassifier(random_state=0),
]


def says_generated(trial, heard):
    return {"value": "generated"}


def gathered(client, study, clock, people):
    """Every sound of the study's conditions that these participants fetched with its truth, and what they were told."""
    truth = {clip.sha256: clip.generated for clip in study.clips if clip.condition in study.conditions}
    traces, told = [], []
    for number in range(people):
        visitor = Visitor(client, study.id, clock, PROLIFIC_PID=f"{number}")
        told.append(json.dumps({**visitor.agree(), "token": ""}))
        visitor.go_on(study, says_generated)
        traces += [(trace, truth[trace.sha256]) for trace in visitor.traces if trace.sha256 in truth]
        told += [json.dumps(visitor.get("page").json()), json.dumps(visitor.post("finish").json())]
    return traces, told


@pytest.fixture(scope="module")
def traffic():
    """What 16 participants fetched and were told."""
    clock = Clock()
    folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
    library = Library(Path(folder.name), clock)
    study, files, token = assembled(items=5)
    library.add(study, files, token)
    with TestClient(routes.study_app(library), base_url="http://studies.example") as client:
        traces, told = gathered(client, study, clock, 16)
    library.store.close()
    folder.cleanup()
    return study, traces, told


def test_sounds_of_both_conditions_come_with_equal_sizes_and_headers(traffic):
    _, traces, _ = traffic
    assert Counter(generated for _, generated in traces).keys() == {True, False}
    assert len({(trace.status, trace.headers, trace.size) for trace, _ in traces}) == 1
    headers = dict(traces[0][0].headers)
    assert not set(headers) & {"etag", "last-modified", "content-disposition", "accept-ranges", "content-encoding"}
    assert "no-transform" in headers["cache-control"]  # nobody on the way may pack them: packed sizes would differ


def test_no_address_names_a_sound_twice(traffic):
    _, traces, _ = traffic
    assert len({trace.address for trace, _ in traces}) == len(traces)


def test_what_a_page_is_told_names_no_condition_clip_or_recording(traffic):
    study, _, told = traffic
    forbidden = (
        {clip.id for clip in study.clips} | {clip.sha256 for clip in study.clips} | {trial.id for trial in study.trials}
    )
    forbidden |= {f'"{clip.item}"' for clip in study.clips} | {"detector", "seed", "attention", "trap"}
    assert [word for word in forbidden for text in told if word in text] == []


@pytest.mark.parametrize("model", MODELS[:3])
def test_a_classifier_learns_nothing_of_the_condition_from_the_network(traffic, model):
    _, traces, _ = traffic
    assert learnt(model, traces).pvalue > 1e-4


@pytest.mark.parametrize("model", MODELS[:3])
def test_the_classifier_would_find_two_bytes_of_difference(traffic, model):
    _, traces, _ = traffic
    leaking = [(replace(trace, size=trace.size + 2 * generated), generated) for trace, generated in traces]
    assert learnt(model, leaking).pvalue < 1e-4


def learnt(model, traces, with_times=False):
    """The binomial test of how often it is right of one half of the participants' sounds after it saw the other."""
    features = np.array([_seen(trace) + [trace.waited_s, trace.took_s] * with_times for trace, _ in traces])
    truth = np.array([generated for _, generated in traces])
    half = len(truth) // 2
    learner = make_pipeline(StandardScaler(), model).fit(features[:half], truth[:half])
    hits = int((learner.predict(features[half:]) == truth[half:]).sum())
    usual = max(truth[half:].mean(), 1 - truth[half:].mean())
    return binomtest(hits, len(truth) - half, usual, alternative="greater")


def _seen(trace):
    """Numbers from everything but the sound itself."""
    handle = trace.address.rsplit("/", 1)[1]
    digits = [int(handle[start : start + 4], 16) for start in range(0, 32, 4)]
    header = "".join(name + value for name, value in trace.headers).encode()
    return [trace.size, trace.status, trace.place, len(trace.address), len(header), sum(header), *digits]


@pytest.mark.long
def test_a_classifier_learns_nothing_from_a_servers_headers_sizes_and_times(tmp_path):
    study, files, token = assembled(items=5)
    checks = replace(study.checks, must_play=0.0)
    study = replace(study, checks=checks, plan=replace(study.plan, target_sessions=200))
    library = Library(tmp_path, Clock())
    library.add(study, files, token)
    library.store.close()
    port = free_port()
    command = [sys.executable, "-m", "app.study", "--studies", str(tmp_path), "serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/study/assets/dom.js", server)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/study", timeout=60) as client:
            traces, _ = gathered(client, study, Clock(), 200)
    finally:
        server.kill()
        server.wait()
    assert len({(trace.status, trace.headers, trace.size) for trace, _ in traces}) == 1
    for model in MODELS:
        found = learnt(model, traces, with_times=True)
        right = f"{found.k} of {found.n} right, at least {found.proportion_ci().low:.3f}"
        print(f"\n{type(model).__name__}: {right}, p = {found.pvalue:.3f}")
        assert found.pvalue > 1e-3
