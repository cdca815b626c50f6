from __future__ import annotations

import secrets
import sqlite3
import threading
from collections import Counter
from dataclasses import replace

import pytest

from app.study import protocol
from app.study.assembly import ATTENTION_TEXT
from app.study.definition import (
    AB,
    ABX,
    ATTENTION,
    HUMAN_AGAINST_DETECTOR,
    MOS,
    MUSHRA,
    REAL_OR_SYNTHETIC,
    Checks,
    Plan,
)
from app.study.errors import (
    AnswerError,
    ConflictError,
    IncompleteError,
    LapsedError,
    NoSessionError,
    StoreError,
    StudyFullError,
    UnknownStudyError,
)
from app.study.store import Store
from tests.app.study.studies import CODES, OWNER_TOKEN, make_study, payload, take_part

PERSON = {"PROLIFIC_PID": "person-1234567890"}


@pytest.fixture
def study(store):
    study, _ = make_study(items=4)
    store.create_study(study)
    return study


def answer_next(store, token, choose=None):
    view = store.next_trial(token)
    return store.answer(token, view.key, payload(view, choose), secrets.token_hex(8))


def rows(store, table):
    with sqlite3.connect(f"file:{store._database.path}?mode=ro", uri=True) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


# what is stored, and when


def test_the_database_survives_power_cuts_by_its_settings(store):
    with store._database.reading() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert db.execute("PRAGMA user_version").fetchone()[0] == 1


def test_nothing_is_stored_before_consent(store, study):
    before = [list(map(tuple, rows(store, table))) for table in ("sessions", "studies", "presentations")]
    session = store.enrol(study.id, PERSON)
    assert (session.state, session.id, session.token) == ("consent", "", "")
    assert [list(map(tuple, rows(store, table))) for table in ("sessions", "studies", "presentations")] == before


def test_without_consent_only_a_number_of_refusals_is_kept(store, study):
    session = store.consent(study.id, PERSON, agreed=False, idempotency_key="one refusal")
    assert (session.state, session.code) == ("declined", CODES.no_consent)
    assert session.redirect == f"https://example.org/done?cc={CODES.no_consent}"
    assert rows(store, "sessions") == []
    assert store.results(study.id).num_declined == 1
    assert PERSON["PROLIFIC_PID"].encode() not in store._database.path.read_bytes()


def test_a_refusal_that_is_sent_again_counts_once(store, study, clock, monkeypatch):
    monkeypatch.setattr("app.study.store.KEPT_REFUSALS", 2)
    for key in ("one refusal", "one refusal", "another one"):
        store.consent(study.id, {}, agreed=False, idempotency_key=key)
    store.close()
    again = Store(store._database.path, clock)
    for key in ("another one", "the third one", "the third one"):
        again.consent(study.id, {}, agreed=False, idempotency_key=key)
    assert again.results(study.id).num_declined == 3
    assert len(rows(again, "refusals")) == 2
    assert b"the third one" not in every_byte(again)
    with pytest.raises(AnswerError, match="idempotency key"):
        again.consent(study.id, {}, agreed=False)
    again.close()


def test_who_has_agreed_in_one_tab_cannot_decline_in_the_other(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    with pytest.raises(ConflictError, match="you may withdraw"):
        store.consent(study.id, {}, agreed=False, idempotency_key="another tab", token=token)
    assert (store.results(study.id).num_declined, len(rows(store, "sessions"))) == (0, 1)
    store.withdraw(token)
    assert store.consent(study.id, {}, False, "another tab", token).state == "declined"


def test_what_was_withdrawn_in_one_tab_takes_nothing_from_the_other(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    store.withdraw(token)
    for call in (
        lambda: store.answer(token, view.key, payload(view), "another tab"),
        lambda: store.next_trial(token),
        lambda: store.clip(token, view.clips[0].handle),
        lambda: store.finish(token),
    ):
        with pytest.raises(NoSessionError, match="If you have withdrawn, maybe in another tab"):
            call()
    assert [rows(store, table) for table in ("sessions", "answers", "presentations")] == [[], [], []]


def test_an_answer_is_on_disk_when_it_is_acknowledged(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    receipt = answer_next(store, token)
    assert (receipt.done, receipt.total) == (1, 5)
    assert len(rows(store, "answers")) == 1  # seen by another connection


def test_what_was_presented_is_stored_with_every_answer(store, study, clock):
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    clock.now_s += 3.25
    store.next_trial(token)  # a reload
    given = {"value": "original", "plays": [2], "listened_s": [1.5], "response_s": 2.5}
    store.answer(token, view.key, given, "a key of mine")
    records = store.results(study.id)
    answer, session = records.answers[0], records.sessions[0]
    planned = protocol.order(study, session.id, session.cell)[0]
    assert (answer.trial, answer.clips, answer.side) == (planned.trial, planned.clips, planned.side)
    assert answer.clip_sha256 == (study.clip(planned.clips[0]).sha256,)
    assert (answer.plays, answer.listened_s, answer.response_s) == ((2,), (1.5,), 2.5)
    assert (answer.elapsed_s, answer.presentations) == (3.25, 2)
    assert answer.presented_utc < answer.answered_utc
    assert session.code_version.startswith("0.")
    assert session.external_ids == PERSON


# resuming


def test_reload_and_another_browser_meet_the_same_trial_order_and_clips(store, study):
    first = store.consent(study.id, PERSON, agreed=True)
    answer_next(store, first.token)
    view = store.next_trial(first.token)
    heard = [store.clip(first.token, clip.handle) for clip in view.clips]
    for again in (
        store.enrol(study.id, {}, first.token),
        store.enrol(study.id, PERSON),
        store.consent(study.id, PERSON, agreed=True),
    ):
        assert again == store.session(first.token)
        seen = store.next_trial(again.token)
        assert seen == view
        assert [store.clip(again.token, clip.handle) for clip in seen.clips] == heard


def test_a_session_goes_on_after_the_server_was_started_anew(store, study, clock):
    token = store.consent(study.id, PERSON, agreed=True).token
    answer_next(store, token)
    view = store.next_trial(token)
    store.close()
    again = Store(store._database.path, clock)
    assert again.next_trial(token) == view
    again.close()


def test_people_without_an_id_are_told_apart_by_their_key_and_a_retry_is_the_same_session(store, study):
    one = store.consent(study.id, {}, agreed=True, idempotency_key="browser one")
    assert store.consent(study.id, {}, agreed=True, idempotency_key="browser one") == one
    assert store.consent(study.id, {}, agreed=True, idempotency_key="browser two").id != one.id
    with pytest.raises(AnswerError, match="idempotency key"):
        store.consent(study.id, {}, agreed=True)


def test_orders_can_be_made_again_from_seed_id_and_cell(store):
    study, _ = make_study(AB, items=5)
    store.create_study(study)
    for number in range(4):
        take_part(store, study, f"person {number}")
    records = store.results(study.id)
    for session in records.sessions:
        planned = protocol.order(study, session.id, session.cell)
        own = [answer for answer in records.answers if answer.session == session.id][:-1]
        assert [(one.trial, one.side, one.clips) for one in own] == [(p.trial, p.side, p.clips) for p in planned]


# answers once


def test_the_same_key_gives_the_same_receipt_and_no_second_answer(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    first = store.answer(token, view.key, payload(view), "a key of mine")
    again = store.answer(token, view.key, payload(view), "a key of mine")
    assert (first.repeated, again.repeated) == (False, True)
    assert again.done == 1
    assert len(rows(store, "answers")) == 1


def test_an_answer_cannot_be_changed_and_a_key_not_used_twice(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    store.answer(token, view.key, payload(view), "a key of mine")
    with pytest.raises(ConflictError):
        store.answer(token, view.key, {**payload(view), "value": "generated"}, "another key")
    following = store.next_trial(token)
    with pytest.raises(ConflictError):
        store.answer(token, following.key, payload(following), "a key of mine")
    assert len(rows(store, "answers")) == 1


def test_of_many_answers_at_once_one_is_kept(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    outcomes = Counter()

    def give(number: int) -> None:
        try:
            store.answer(token, view.key, payload(view), f"key number {number}")
            outcomes["kept"] += 1
        except ConflictError:
            outcomes["refused"] += 1

    threads = [threading.Thread(target=give, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"kept": 1, "refused": 7}
    assert len(rows(store, "answers")) == 1


def test_a_step_has_to_be_presented_before_it_is_answered(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    store.answer(token, view.key, payload(view), "a key of mine")
    following = store._mac(store._database._connection.execute("SELECT * FROM sessions").fetchone(), "step/1")
    with pytest.raises(AnswerError, match="not been presented"):
        store.answer(token, following, payload(view), "another key")


# the end


def test_the_code_comes_only_when_every_answer_is_in(store, study):
    token = take_part(store, study, "someone", steps=4)
    with pytest.raises(IncompleteError, match="4 of 5"):
        store.finish(token)
    answer_next(store, token)
    assert store.session(token).code == ""
    finish = store.finish(token)
    assert (finish.code, finish.num_answers) == (CODES.complete, 5)
    assert store.finish(token) == finish
    session = store.session(token)
    assert (session.state, session.code) == ("complete", CODES.complete)


def test_no_code_where_an_answer_cannot_be_read_back(store, study):
    token = take_part(store, study, "someone", steps=5)
    with store._database.writing() as db:
        db.execute("UPDATE answers SET answer = replace(answer, 'original', 'generated') WHERE step = 2")
    with pytest.raises(StoreError, match="could not be read back"):
        store.finish(token)
    assert store.session(token).state == "running"


def test_who_does_not_pass_the_headphone_test_is_screened_out_with_a_code_of_its_own(store):
    study, _ = make_study(with_checks=True, study_id="screened")
    store.create_study(study)
    token = take_part(store, study, "deaf", lambda view: {"value": view.options[0].value})
    session = store.session(token)
    assert (session.state, session.code) == ("screened_out", CODES.screened_out)
    assert store.next_trial(token) is None
    with pytest.raises(IncompleteError):
        store.finish(token)
    assert store.results(study.id).sessions[0].headphones_correct == 2


# withdrawal


def every_byte(store):
    folder = store._database.path.parent
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_withdrawal_leaves_no_trace_in_any_file(store, study):
    other = take_part(store, study, "someone-else")
    session = store.consent(study.id, PERSON, agreed=True)
    while (view := store.next_trial(session.token)) is not None:
        given = {**payload(view), "value": "original"} if view.phase != "comment" else {"text": "a secret remark"}
        store.answer(session.token, view.key, given, f"idempotency-{view.number}")
    store.finish(session.token)
    traces = (session.id, PERSON["PROLIFIC_PID"], "a secret remark", "idempotency-1", session.token)
    assert sum(trace.encode() in every_byte(store) for trace in traces) >= 4  # a token is not stored at all
    store.withdraw(session.token)
    assert [trace for trace in traces if trace.encode() in every_byte(store)] == []
    assert store.results(study.id).num_withdrawn == 1
    assert [one.state for one in store.results(study.id).sessions] == ["complete"]
    assert store.session(other).state == "complete"
    with pytest.raises(NoSessionError):
        store.next_trial(session.token)


def test_who_withdrew_may_begin_anew_and_old_tokens_are_dead(store, study):
    old = store.consent(study.id, PERSON, agreed=True).token
    store.withdraw(old)
    assert store.enrol(study.id, PERSON, old).state == "consent"
    assert store.consent(study.id, PERSON, agreed=True).token != old


def test_a_withdrawal_that_was_cut_short_is_made_up_for_at_the_next_start(store, study, clock, monkeypatch):
    token = store.consent(study.id, PERSON, agreed=True).token
    monkeypatch.setattr("app.study.database.Database.scrub", lambda database: None)
    store.withdraw(token)
    monkeypatch.undo()
    assert PERSON["PROLIFIC_PID"].encode() in every_byte(store)
    store.close()
    Store(store._database.path, clock).close()
    assert PERSON["PROLIFIC_PID"].encode() not in every_byte(store)


def test_a_restored_backup_does_not_bring_the_withdrawn_back(store, study, tmp_path):
    kept, gone = take_part(store, study, "kept"), take_part(store, study, PERSON["PROLIFIC_PID"])
    backup = tmp_path / "backup.sqlite3"
    store.backup(backup)
    store.withdraw(gone)
    later = take_part(store, study, "later")
    store.restore(backup)
    assert len(store.results(study.id).sessions) == 1
    assert store.session(kept).state == "complete"
    backup.unlink()
    assert PERSON["PROLIFIC_PID"].encode() not in every_byte(store)
    with pytest.raises(NoSessionError):
        store.session(later)


def test_a_restore_that_was_cut_short_does_not_bring_the_withdrawn_back(store, study, clock, tmp_path, monkeypatch):
    gone = take_part(store, study, PERSON["PROLIFIC_PID"])
    backup = tmp_path / "backup.sqlite3"
    store.backup(backup)
    store.withdraw(gone)

    def killed(database):
        raise KeyboardInterrupt

    monkeypatch.setattr("app.study.database.Database._read_secret", killed)  # the first thing after the content
    with pytest.raises(KeyboardInterrupt):
        store.restore(backup)
    monkeypatch.undo()
    backup.unlink()
    again = Store(store._database.path, clock)
    assert again.results(study.id).sessions == ()
    assert PERSON["PROLIFIC_PID"].encode() not in every_byte(again)
    again.close()


def test_databases_and_backups_of_earlier_programs_are_read(store, study, clock, tmp_path):
    token = take_part(store, study, "someone", steps=2)
    store.backup(tmp_path / "old.sqlite3")
    with sqlite3.connect(tmp_path / "old.sqlite3") as db:
        db.execute("DROP TABLE refusals")
    store.restore(tmp_path / "old.sqlite3")
    opened = Store(tmp_path / "old.sqlite3", clock)
    for one in (store, opened):
        one.consent(study.id, {}, agreed=False, idempotency_key="one refusal")
        assert one.results(study.id).num_declined == 1
        assert one.session(token).done == 2
    opened.close()


def test_a_backup_moves_to_another_machine_with_everything(store, study, tmp_path):
    token = take_part(store, study, "someone", steps=2)
    store.backup(tmp_path / "backup.sqlite3")
    other = Store(tmp_path / "elsewhere" / "studies.sqlite3", store._clock)
    other.restore(tmp_path / "backup.sqlite3")
    assert other.results(study.id) == store.results(study.id)
    assert other.next_trial(token) == store.next_trial(token)
    other.close()


def test_what_is_no_backup_is_refused_and_nothing_changes(store, study, tmp_path):
    take_part(store, study, "someone")
    before = store.results(study.id)
    (tmp_path / "text").write_text("no database, whatever its name says")
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE sessions (id TEXT)")
    foreign.commit()
    foreign.close()
    for name in ("missing", "text", "foreign"):
        with pytest.raises(StoreError):
            store.restore(tmp_path / name)
    assert store.results(study.id) == before


def test_a_database_of_another_version_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="version 2; this program knows 1"):
        Store(tmp_path / "newer")


# entitlement and blinding


def test_a_sound_is_served_to_its_session_while_its_step_is_at_hand(store, study):
    mine = store.consent(study.id, PERSON, agreed=True).token
    other = store.consent(study.id, {"PROLIFIC_PID": "other"}, agreed=True).token
    handle = store.next_trial(mine).clips[0].handle
    study_id, clip_id = store.clip(mine, handle)
    assert study_id == study.id
    assert clip_id in {clip.id for clip in study.clips}
    for token, wrong in ((other, handle), (mine, clip_id), (mine, ""), (mine, "é")):
        with pytest.raises(NoSessionError):
            store.clip(token, wrong)
    answer_next(store, mine)
    with pytest.raises(ConflictError, match="answered already"):
        store.clip(mine, handle)


@pytest.mark.parametrize("token", ["", "x", "a.b", "é.é", "0" * 24 + "." + "0" * 32])
def test_guessed_tokens_open_nothing(store, study, token):
    store.consent(study.id, PERSON, agreed=True)
    for call in (store.session, store.next_trial, store.finish, store.withdraw):
        with pytest.raises(NoSessionError):
            call(token)


@pytest.mark.parametrize("kind", [REAL_OR_SYNTHETIC, AB, ABX, MOS, MUSHRA, HUMAN_AGAINST_DETECTOR])
def test_what_the_page_is_told_names_no_clip_condition_item_or_role(store, kind):
    study, _ = make_study(kind, items=3, with_checks=True, study_id=f"{kind.replace('_', '-')}")
    store.create_study(study)
    told = []

    def choose(view):
        told.append(str(view.to_dict()))
        if view.scores:
            return {"scores": [100.0] * len(view.clips)}
        values = [option.value for option in view.options]
        if view.phase == "headphones":
            clip = store.clip(token, view.clips[0].handle)[1]
            right = next(trial.expected for trial in study.trials if clip in trial.clips)
            return {"value": right}
        return {"value": values[0]}

    token = store.consent(study.id, PERSON, agreed=True).token
    take_part(store, study, PERSON["PROLIFIC_PID"], choose)
    assert store.session(token).state == "complete"
    secret = {clip.id for clip in study.clips} | {clip.sha256 for clip in study.clips}
    secret |= {trial.id for trial in study.trials} | {clip.item for clip in study.clips if clip.item != "practice"}
    secret |= {"'attention'", "'trap'", "'scored'", "expected", "hidden", "anchor", "coded", "made", "plain"}
    everything = "\n".join(told)
    assert [word for word in secret if word in everything] == []


def test_handles_and_keys_of_two_sessions_share_nothing(store, study):
    seen = []
    for name in ("one", "two"):
        token = store.consent(study.id, {"PROLIFIC_PID": name}, agreed=True).token
        while (view := store.next_trial(token)) is not None:
            seen += [view.key, *(clip.handle for clip in view.clips)]
            store.answer(token, view.key, payload(view), secrets.token_hex(8))
    assert len(set(seen)) == len(seen)


def test_the_owner_is_known_by_a_token(store, study):
    assert store.is_owner(study.id, OWNER_TOKEN)
    assert not store.is_owner(study.id, OWNER_TOKEN + " ")
    assert not store.is_owner(study.id, "")


# human against detector


def test_after_a_guess_the_truth_the_detector_and_the_totals_are_told(store):
    study, _ = make_study(HUMAN_AGAINST_DETECTOR, items=4)
    store.create_study(study)
    token = store.consent(study.id, PERSON, agreed=True).token
    humans = detectors = 0
    for number in range(1, 5):
        view = store.next_trial(token)
        assert "0.9" not in str(view.to_dict())
        truth = study.clip(store.clip(token, view.clips[0].handle)[1]).truth
        feedback = answer_next(store, token, lambda view: {"value": "original"}).feedback
        humans, detectors = humans + (truth == "original"), detectors + (truth == "generated")
        assert (feedback.truth, feedback.correct) == (truth, truth == "original")
        assert (feedback.detector, feedback.probability) == ("generated", 0.9)
        assert (feedback.human_total, feedback.detector_total, feedback.answered) == (humans, detectors, number)


def test_an_attention_trial_asks_for_an_answer_in_the_words_of_the_study(store):
    study, _ = make_study(with_checks=True, checks=Checks(must_play=0.0, max_failed=0))
    trials = (replace(one, instruction=ATTENTION_TEXT) if one.role == ATTENTION else one for one in study.trials)
    study = replace(study, trials=tuple(trials), texts=replace(study.texts, labels=("Real", "Made")))
    store.create_study(study)
    asked = []

    def choose(view):
        if view.instruction:
            asked.append(view.instruction)
            return {"value": next(one.value for one in view.options if view.instruction.endswith(f": {one.label}"))}
        return {}

    take_part(store, study, "someone", lambda view: {**payload(view), **choose(view)})
    assert asked == [ATTENTION_TEXT.replace("{label}", "Real")]


def test_other_studies_tell_nothing_after_an_answer(store, study):
    token = store.consent(study.id, PERSON, agreed=True).token
    assert answer_next(store, token).feedback is None


# places


def test_a_full_or_closed_study_takes_nobody_but_those_who_are_in(store):
    study, _ = make_study(items=2, plan=Plan(target_sessions=2))
    store.create_study(study)
    take_part(store, study, "one")
    inside = store.consent(study.id, PERSON, agreed=True).token
    for call in (store.enrol, lambda *a: store.consent(*a, agreed=True)):
        with pytest.raises(StudyFullError) as caught:
            call(study.id, {"PROLIFIC_PID": "late"})
        assert caught.value.code == CODES.full
    assert store.enrol(study.id, PERSON).token == inside
    store.close_study(study.id)
    take_part(store, study, PERSON["PROLIFIC_PID"])
    assert store.session(inside).state == "complete"


def test_who_was_idle_keeps_the_place_until_someone_else_takes_it(store, clock):
    study, _ = make_study(items=2, plan=Plan(target_sessions=2, idle_minutes=10))
    store.create_study(study)
    first = take_part(store, study, "first", steps=1)
    second = take_part(store, study, "second", steps=1)
    clock.now_s += 601
    store.next_trial(first)  # back in time: nobody had come
    take_part(store, study, "third")
    with pytest.raises(LapsedError) as caught:
        store.next_trial(second)
    assert caught.value.code == CODES.full
    assert store.session(second).state == "lapsed"
    take_part(store, study, "first")
    states = Counter(session.state for session in store.results(study.id).sessions)
    assert states == {"complete": 2, "lapsed": 1}


def test_a_retry_of_an_answer_is_acknowledged_even_when_the_session_has_lapsed(store, clock):
    study, _ = make_study(items=2, plan=Plan(target_sessions=2, idle_minutes=10))
    store.create_study(study)
    token = store.consent(study.id, PERSON, agreed=True).token
    view = store.next_trial(token)
    store.answer(token, view.key, payload(view), "a key of mine")
    clock.now_s += 601
    take_part(store, study, "one")
    take_part(store, study, "two")
    assert store.answer(token, view.key, payload(view), "a key of mine").repeated


# definitions


def test_a_study_that_was_changed_since_is_refused(store, study):
    store.create_study(study)
    changed, _ = make_study(items=4, checks=Checks(must_play=0.5))
    with pytest.raises(ConflictError, match="another definition"):
        store.create_study(changed)
    with pytest.raises(UnknownStudyError):
        store.study("nothing")


@pytest.mark.parametrize("ids", [{"PROLIFIC_PID": "x" * 129}, {"workerId": "a\nb"}, {"participant": 5}])
def test_ids_that_are_none_are_refused(store, study, ids):
    for call in (store.enrol, lambda *a: store.consent(*a, agreed=True)):
        with pytest.raises(AnswerError):
            call(study.id, ids)


def test_only_known_parameters_of_the_link_are_kept(store, study):
    ids = {"workerId": "w1", "assignmentId": "a1", "utm_source": "somewhere", "name": "Ada"}
    store.consent(study.id, ids, agreed=True)
    assert store.results(study.id).sessions[0].external_ids == {"workerId": "w1", "assignmentId": "a1"}
