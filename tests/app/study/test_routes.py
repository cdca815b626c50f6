"""What goes over the wire: consent, the way through a study, who may hear what, and what it tells anybody else."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from app.study import routes
from app.study.library import Library
from tests.app.study.studies import Clock
from tests.app.study.visitors import Visitor, assembled

CODE_PLACES = ("complete", "screened_out", "no_consent", "full")


def says_generated(trial, heard):
    return {"value": "generated"}


@pytest.fixture(scope="module")
def made():
    return assembled()


@pytest.fixture
def site(quick_folder, made):
    """A client, the study and the clock of a library with one study; the other one belongs to somebody else."""
    clock = Clock()
    library = Library(quick_folder, clock)
    study, files, token = made
    codes = replace(study.codes, redirect="https://example.org/back?cc={code}")
    study = replace(study, codes=codes)
    library.add(study, files, token)
    with TestClient(routes.study_app(library), base_url="http://studies.example") as client:
        yield Site(client, library, study, token, clock)
    library.store.close()


class Site:
    def __init__(self, client, library, study, secret, clock):
        self.client, self.library, self.study, self.clock = client, library, study, clock
        self.owner = {"Authorization": f"Bearer {secret}"}

    def visitor(self, name="", study=None):
        ids = {"PROLIFIC_PID": name} if name else {}
        return Visitor(self.client, (study or self.study).id, self.clock, **ids)

    def stored(self):
        return self.library.store.results(self.study.id)

    def results(self, headers=None):
        return self.client.get(f"/{self.study.id}/api/results", headers=self.owner if headers is None else headers)


# consent


def test_page_texts_and_a_visit_leave_nothing_behind_before_consent(site):
    visitor = site.visitor("anna")
    assert site.client.get(f"/{site.study.id}?PROLIFIC_PID=anna").status_code == 200
    assert visitor.get("page").json()["consent"] == site.study.texts.consent
    assert visitor.post("enrol", ids=visitor.ids).json()["session"]["state"] == "consent"
    assert site.stored().sessions == ()


def test_a_study_that_is_not_there_is_told_of_in_a_page(site):
    page, texts = site.client.get("/nothing"), site.client.get("/nothing/api/page")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (404, "text/html")
    assert (texts.status_code, texts.json()["detail"]) == (404, "there is no study 'nothing' here")


def test_who_does_not_agree_gets_their_own_code_and_leaves_a_number_only(site):
    visitor = site.visitor("anna")
    first, answer = (visitor.post("consent", "one refusal", ids={}, agreed=False).json() for _ in range(2))
    assert first == answer
    assert answer["session"]["code"] == site.study.codes.no_consent
    assert answer["session"]["redirect"].endswith(site.study.codes.no_consent)
    assert (site.stored().sessions, site.stored().num_declined) == ((), 1)


@pytest.mark.parametrize("agreed", ["true", 1, None, {}])
def test_nothing_but_true_is_agreement(site, agreed):
    site.visitor().post("consent", ids={"PROLIFIC_PID": "anna"}, agreed=agreed)
    assert site.stored().sessions == ()


def test_consent_sent_twice_without_an_id_is_one_participant(site):
    visitor = site.visitor()
    first, second = (visitor.post("consent", "one key for both", ids={}, agreed=True).json() for _ in range(2))
    assert first["token"] == second["token"]
    assert len(site.stored().sessions) == 1


# the way through


def test_a_whole_session_is_stored_as_it_was_answered_and_ends_with_the_code(site):
    visitor = site.visitor("anna")
    assert visitor.agree()["session"]["state"] == "running"
    visitor.go_on(site.study, says_generated)
    done = visitor.post("finish").json()
    assert done["finish"]["code"] == site.study.codes.complete
    assert done["finish"]["redirect"] == f"https://example.org/back?cc={site.study.codes.complete}"
    assert visitor.step()["finish"] == done["finish"]
    scored = [answer for answer in site.stored().answers if answer.role == "scored"]
    assert {answer.value for answer in scored} == {"generated"}
    assert len(scored) == 3
    assert site.stored().sessions[0].excluded == ""


def test_the_code_is_not_given_before_every_answer_is_in(site):
    visitor = site.visitor("anna")
    visitor.agree()
    visitor.go_on(site.study, says_generated, steps=9)
    refused = visitor.post("finish")
    assert refused.status_code == 409
    assert site.study.codes.complete not in refused.text


def test_a_failed_headphone_check_ends_with_its_own_code(site):
    visitor = site.visitor("anna")
    visitor.agree()
    while (trial := visitor.step()["trial"]) is not None:
        visitor.answer(trial, {"value": trial["options"][0]["value"]})
    session = visitor.step()["session"]
    assert (session["state"], session["code"]) == ("screened_out", site.study.codes.screened_out)


def test_another_browser_with_the_same_participant_id_is_at_the_same_trial_with_the_same_sounds(site):
    visitor = site.visitor("anna")
    visitor.agree()
    visitor.go_on(site.study, says_generated, steps=8)
    there = visitor.step()["trial"]
    elsewhere = site.visitor("anna")
    resumed = elsewhere.post("enrol", ids=elsewhere.ids).json()
    elsewhere.token = resumed["token"]
    assert resumed["trial"] == there
    assert elsewhere.listen(there) == visitor.listen(there)


def test_an_answer_sent_again_with_its_key_is_kept_once_and_another_one_is_refused(site):
    visitor = site.visitor("anna")
    visitor.agree()
    trial = visitor.step()["trial"]
    first, again = (visitor.answer(trial, {"value": "ok"}, "the same key") for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["trial"]["key"] == again.json()["trial"]["key"]
    assert visitor.answer(trial, {"value": "ok"}, "another key").status_code == 409
    assert len(site.stored().answers) == 1


def test_withdrawal_erases_and_the_session_is_no_more(site):
    visitor = site.visitor("anna")
    visitor.agree()
    visitor.go_on(site.study, says_generated, steps=3)
    handle = visitor.step()["trial"]["clips"][0]["handle"]
    assert visitor.post("withdraw").json() == {"erased": True}
    assert visitor.get("step").status_code == visitor.get(f"sound/{handle}").status_code == 404
    assert (site.stored().sessions, site.stored().answers, site.stored().num_withdrawn) == ((), (), 1)


def test_a_second_tab_stores_nothing_after_withdrawal_in_the_first(site):
    first, second = site.visitor("anna"), site.visitor("anna")
    first.agree()
    resumed = second.post("enrol", ids=second.ids).json()
    second.token = resumed["token"]
    assert second.post("consent", ids={}, agreed=False).status_code == 409
    first.post("withdraw").raise_for_status()
    refused = second.answer(resumed["trial"], {"value": "ok"})
    assert refused.status_code == 404
    assert "If you have withdrawn, maybe in another tab, everything about you is erased" in refused.json()["detail"]
    assert second.post("finish").status_code == second.post("withdraw").status_code == 404
    assert (site.stored().sessions, site.stored().answers, site.stored().num_withdrawn) == ((), (), 1)


def test_a_closed_study_sends_newcomers_away_with_a_code_and_lets_others_go_on(site):
    known = site.visitor("anna")
    known.agree()
    assert site.client.post(f"/{site.study.id}/api/close", json={"closed": True}, headers=site.owner).json()["closed"]
    refused = site.visitor("ben").post("consent", ids={"PROLIFIC_PID": "ben"}, agreed=True)
    assert refused.status_code == 403
    assert refused.json()["code"] == site.study.codes.full
    assert refused.json()["redirect"].endswith(site.study.codes.full)
    assert known.step()["trial"] is not None


def test_who_was_away_too_long_is_told_so_with_a_code(site):
    visitor = site.visitor("anna")
    visitor.agree()
    trial = visitor.step()["trial"]
    site.clock.now_s += 60.0 * site.study.plan.idle_minutes + 1.0
    for number in range(site.study.plan.target_sessions):
        site.visitor(f"other {number}").agree()
    lapsed = visitor.step()["session"]
    assert (lapsed["state"], lapsed["code"]) == ("lapsed", site.study.codes.full)
    assert visitor.answer(trial, {"value": "ok"}).status_code == 410


# who may have what


def test_a_sound_is_for_the_session_and_the_step_that_it_belongs_to(site):
    anna, ben, nobody = site.visitor("anna"), site.visitor("ben"), site.visitor()
    anna.agree()
    ben.agree()
    first = anna.step()["trial"]
    handle = first["clips"][0]["handle"]
    assert anna.get(f"sound/{handle}").status_code == 200
    assert ben.get(f"sound/{handle}").status_code == 404
    assert nobody.get(f"sound/{handle}").status_code == 404
    assert all(anna.get(f"sound/{clip.id}").status_code == 404 for clip in site.study.clips)
    anna.answer(first, {"value": "ok"})
    assert anna.get(f"sound/{handle}").status_code == 409


def test_a_session_is_good_for_its_own_study_only(site):
    other, files, token = assembled(seed=6)
    site.library.add(other, files, token)
    anna = site.visitor("anna")
    anna.agree()
    stranger = site.visitor(study=other)
    stranger.token = anna.token
    asked = [
        stranger.get("step"),
        stranger.post("answer", trial="x"),
        stranger.post("finish"),
        stranger.post("withdraw"),
    ]
    assert [answer.status_code for answer in asked] == [404] * 4
    assert len(site.stored().sessions) == 1


@pytest.mark.parametrize(
    "path", ["api/results", "api/export", "api/export/answers.csv", "api/planner?margin=.05&power=.9"]
)
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
def test_results_are_for_who_has_the_secret(site, path, header):
    path = f"{path}&design_effect=1" if "?" in path else path
    assert site.client.get(f"/{site.study.id}/{path}", headers=header).status_code == 404
    assert site.client.get(f"/{site.study.id}/{path}", headers=site.owner).status_code == 200
    assert site.client.get(f"/no-such-study/{path}", headers=site.owner).status_code == 404


def test_only_the_owner_closes_a_study_or_erases_a_participant(site):
    site.visitor("anna").agree()
    assert site.client.post(f"/{site.study.id}/api/close", json={}).status_code == 404
    assert site.client.post(f"/{site.study.id}/api/erase", json={"participant": "anna"}).status_code == 404
    assert (site.stored().closed, len(site.stored().sessions)) == (False, 1)


def test_the_owner_erases_a_participant_by_the_platforms_id_whatever_the_platform(site):
    for ids in ({"PROLIFIC_PID": "anna"}, {"workerId": "anna"}, {"PROLIFIC_PID": "ben"}):
        Visitor(site.client, site.study.id, site.clock, **ids).agree()
    erase = f"/{site.study.id}/api/erase"
    assert site.client.post(erase, json={"participant": "anna"}, headers=site.owner).json() == {"erased": 2}
    assert [session.external_ids for session in site.stored().sessions] == [{"PROLIFIC_PID": "ben"}]
    site.client.post(f"/{site.study.id}/api/close", json={"closed": True}, headers=site.owner)
    assert site.client.post(erase, json={"participant": "anna"}, headers=site.owner).json() == {"erased": 0}
    assert site.client.post(erase, json={"participant": 3}, headers=site.owner).status_code == 422
    assert site.client.post(erase, json={}, headers=site.owner).json() == {"erased": 0}


@pytest.mark.parametrize(
    "path",
    ["../routes.py", "..%2f..%2fapp%2fstudy%2froutes.py", "%2e%2e/studio.css", "..%5cstudio.css", "//etc/passwd", ""],
)
def test_no_file_beside_the_pages_is_served(site, path):
    assert site.client.get(f"/assets/{path}").status_code in (404, 405)


# hostile input


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"3", b"{", b"\xff\xfe", b"[" * 60_000, b'{"key": 1}', b'{"key": "' + b"x" * 100_000 + b'"}'],
)
@pytest.mark.parametrize("path", ["consent", "answer", "enrol"])
def test_what_is_no_request_is_refused_in_words_and_stores_nothing(site, path, content):
    visitor = site.visitor("anna")
    visitor.agree()
    answer = site.client.post(f"{visitor.base}/{path}", content=content, headers=visitor.headers)
    if path == "enrol" and content == b'{"key": 1}':
        assert answer.status_code == 200  # it is asked for no key, and nothing is stored
    else:
        assert answer.status_code == 422
        assert answer.json()["detail"]
    assert (len(site.stored().sessions), site.stored().answers) == (1, ())


@pytest.mark.parametrize("ids", [None, [], "x", {"PROLIFIC_PID": 3}, {"PROLIFIC_PID": "x" * 999}, {"PROLIFIC_PID": {}}])
def test_ids_that_are_none_are_refused_or_left_out(site, ids):
    answer = site.visitor().post("consent", ids=ids, agreed=True)
    assert answer.status_code in (200, 422)
    assert all(session.external_ids == {} for session in site.stored().sessions)


def test_every_answer_forbids_what_the_pages_do_not_need(site):
    for path in (f"/{site.study.id}", f"/{site.study.id}/results", f"/{site.study.id}/api/page", "/nothing/api/page"):
        headers = site.client.get(path).headers
        assert headers["cache-control"] == "no-store, no-transform"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
    assert site.client.get("/assets/participant.js").headers["cache-control"] == "no-cache"


# what the owner gets


def test_results_and_exports_are_what_was_answered(site):
    for name, given in (("anna", "generated"), ("ben", "original")):
        visitor = site.visitor(name)
        visitor.agree()
        visitor.go_on(site.study, lambda trial, heard, given=given: {"value": given}).post("finish")
    results = site.results().json()
    assert (results["counts"]["complete"], results["counts"]["ratings"]) == (2, 6)
    by_name = {figure["name"]: figure for figure in results["figures"]}
    truths = Counter(answer.correct for answer in site.stored().answers if answer.role == "scored")
    assert by_name["correct"]["value"] == pytest.approx(truths[True] / 6)
    assert results["paper"]["value"] == 0.512
    assert set(results["clip_facts"]) == {clip.id for clip in site.study.clips}
    table = site.client.get(f"/{site.study.id}/api/export/answers.csv", headers=site.owner).text
    kept = Counter(row["value"] for row in csv.DictReader(io.StringIO(table)) if row["role"] == "scored")
    assert kept == {"generated": 3, "original": 3}


def test_participant_ids_are_exported_only_when_asked_for_and_comments_are_no_formulas(site):
    visitor = site.visitor("anna-of-prolific")
    visitor.agree()
    visitor.go_on(site.study, says_generated).post("finish")
    for query, expected in (("", False), ("?ids=true", True)):
        archive = site.client.get(f"/{site.study.id}/api/export{query}", headers=site.owner).content
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            everything = b"".join(files.read(name) for name in files.namelist())
            answers = files.read("answers.csv").decode()
        assert (b"anna-of-prolific" in everything) == expected
        assert not any(cell.startswith("=") for row in csv.reader(io.StringIO(answers)) for cell in row)
        assert "calc" in answers


def test_the_planner_knows_the_papers_number_and_refuses_nonsense(site):
    path = f"/{site.study.id}/api/planner"
    planned = site.client.get(f"{path}?margin=0.05&power=0.9&design_effect=1", headers=site.owner)
    assert planned.json()["ratings"] == 1082
    assert site.client.get(f"{path}?margin=0&power=0.9&design_effect=1", headers=site.owner).status_code == 422
    assert site.client.get(f"{path}?margin=nan&power=2&design_effect=0", headers=site.owner).status_code == 422
