"""A listening study from its making to its results, in real Chromium, on the embedded checkpoint."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.journeys.conftest import ARGUMENTS, CHROMIUM, ROOT, Server, free_port, open_tab, wait_until_it_answers

if not CHROMIUM.exists() and os.environ.get("CI", "").lower() != "true":
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, expect, sync_playwright

from app.study.definition import Study
from app.study.library import Library
from tests.app.conftest import write_tone
from tests.app.study.visitors import assembled

RUN_MS, STEP_MS = 600_000, 120_000
BABBLE = [ROOT / f"assets/prompts/speech_babble_{name}.flac" for name in "ab"]
CLIP_S, PROMPT_S, TARGET = 2.5, 1.0, 4
PLATFORM = "https://platform.example/back"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@dataclass
class Made:
    """A study with its links and its file, which knows what is behind every sound."""

    participants: str
    owner: str
    study: Study
    folder: Path

    def clip_of(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        return next(clip.id for clip in self.study.clips if clip.sha256 == sha256)


@pytest.fixture(scope="module")
def made(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made by hand in the Study tab, from two recordings and one for practice."""
    recordings = [*BABBLE, write_tone(tmp_path_factory.mktemp("tone") / "tone.wav", 5.0)]
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_default_timeout(STEP_MS)
    page.goto(server.url, wait_until="load")
    open_tab(page, "Study")
    page.set_input_files("#study-recordings input[type=file]", recordings)
    expect(page.locator("#study-recordings")).to_contain_text("tone", timeout=STEP_MS)
    for name, value in (("clip-s", CLIP_S), ("prompt-s", PROMPT_S), ("target-sessions", TARGET)):
        number = page.locator(f"#study-{name} input[type=number]")
        number.fill(str(value))
        number.press("Tab")
    page.get_by_text("Consent, contact and recruiting platform").click()
    for name, text in (
        ("title", "Recording <b>or</b> machine?"),
        ("redirect", f"{PLATFORM}?cc={{code}}"),
        ("code-complete", "C1ALLDONE"),
        ("code-screened_out", "C2NOPHONES"),
    ):
        page.locator(f"#study-{name} textarea, #study-{name} input").fill(text)
    page.locator("button#study").click()
    expect(page.locator("#study-status .notice.done")).to_be_visible(timeout=RUN_MS)
    links = {name: _address(page, name) for name in ("participant", "owner")}
    assert f"{CLIP_S:.3f} s" in page.locator(".preflight").inner_text()
    expect(page.locator("#study-kept a")).to_have_count(2)
    context.close()
    folder = server.folder / "studies" / links["participant"].rsplit("/", 1)[1]
    study = Study.from_json((folder / "study.json").read_bytes())
    return Made(links["participant"], links["owner"], study, folder)


def _address(page: Page, name: str) -> str:
    box = page.locator(f"#study-{name} textarea, #study-{name} input").first
    expect(box).to_have_value(re.compile("^http://"), timeout=STEP_MS)
    return box.input_value()


class Participant:
    """A person at a browser, who knows from the study's file what is behind a sound.

    With `touch` a person with a telephone, else one with a keyboard and no mouse. `watch` looks at every new screen.
    """

    def __init__(self, browser: Browser, made: Made, name: str, touch: bool = False, watch: bool = False) -> None:
        self.browser, self.made, self.touch, self.watch = browser, made, touch, watch
        self.link = f"{made.participants}?PROLIFIC_PID={name}&STUDY_ID=s&SESSION_ID=x"
        self.clicked: list[tuple[str, str]] = []  # (clip id, answer) of the scored trials
        self.errors: list[str] = []
        self.seen: list[str] = []
        self.move()

    def move(self) -> None:
        """To another browser, which knows nothing."""
        options = {"viewport": PHONE, "has_touch": True, "is_mobile": True} if self.touch else {"viewport": DESKTOP}
        self.context: BrowserContext = self.browser.new_context(**options)
        self.context.route(f"{PLATFORM}**", lambda route: route.fulfill(body="the platform"))
        self.page = self.context.new_page()
        self.page.set_default_timeout(STEP_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("response", self._note)
        self.sounds: list[Response] = []
        self.page.goto(self.link, wait_until="load")
        self.loaded()

    def _note(self, response: Response) -> None:
        if "/api/sound/" in response.url:
            self.sounds.append(response)

    def loaded(self) -> None:
        expect(self.page.locator("#card h1")).to_be_visible(timeout=STEP_MS)
        expect(self.page.get_by_text("Loading the sounds")).to_have_count(0, timeout=STEP_MS)
        if self.watch and self.heading.split(":")[0] not in self.seen:
            self.seen.append(self.heading.split(":")[0])
            self._look()

    def _look(self) -> None:
        assert "[object" not in self.page.locator("body").text_content(), self.heading
        assert fits(self.page), self.heading
        for scheme in ("dark", "light"):
            self.page.emulate_media(color_scheme=scheme)
            assert serious(self.page) == [], (self.heading, scheme)

    def reload(self) -> None:
        self.sounds.clear()
        self.page.reload(wait_until="load")
        self.loaded()

    @property
    def heading(self) -> str:
        return self.page.locator("#card h1").inner_text()

    @property
    def where(self) -> str:
        return self.page.locator("#where").inner_text()

    def heard(self) -> list[str]:
        """Ids of the clips that the present step fetched, by what came over the line."""
        return [self.made.clip_of(response.body()) for response in self.sounds]

    def press(self, name: str, key: str = "Enter") -> None:
        self.use(self.page.get_by_role("button", name=name, exact=True), key)

    def use(self, control: Locator, key: str = "Enter") -> None:
        """Waits until it may be used, then taps it, or tabs to it and presses the key."""
        expect(control).to_be_enabled(timeout=STEP_MS)
        if self.touch:
            control.tap()
            return
        for _ in range(30):
            if control.evaluate("element => element === document.activeElement"):
                break
            self.page.keyboard.press("Tab")
        else:
            raise AssertionError(f"no way to {control} by keyboard")
        self.page.keyboard.press(key)

    def agree(self) -> None:
        self.use(self.page.get_by_label("I have read this"), "Space")
        self.press("Begin")
        expect(self.page.locator("#where")).not_to_be_empty(timeout=STEP_MS)
        self.loaded()

    def start(self) -> None:
        """Past what is said before a new part of the study."""
        start = self.page.get_by_role("button", name="Start", exact=True)
        if start.count():
            self.use(start)
            expect(start).to_have_count(0, timeout=STEP_MS)
            self.loaded()

    def go_on_to(self, place: int, value: str) -> None:
        """Answers until step `place` stands there; scored trials with `value`."""
        while int(self.where.split()[0]) < place:
            self.answer(value)
        self.start()

    def finish(self, value: str, comment: str) -> str:
        """To the end and back to the platform; its address."""
        while not self.heading.startswith("That was the last"):
            self.answer(value)
        self.page.locator("textarea").fill(comment)
        self.press("Finish")
        expect(self.page.get_by_role("heading", name="Thank you: you have finished")).to_be_visible(timeout=STEP_MS)
        self.loaded()
        return self.go_back()

    def go_back(self) -> str:
        self.use(self.page.get_by_role("link", name="Go back now"))
        self.page.wait_for_url(f"{PLATFORM}**")
        return self.page.url

    def answer(self, value: str) -> None:
        """One step, as an attentive listener does it."""
        before = self.where
        self.start()
        if self.heading == "Set the volume":
            self.press("Play the noise")
            self.press("It is comfortable")
        elif self.heading == "Headphone check":
            self.find_the_tone()
        else:
            self._judge(value)
        self.sounds.clear()
        expect(self.page.locator("#where")).not_to_have_text(before, timeout=STEP_MS)
        self.loaded()

    def find_the_tone(self, beside: int = 0) -> None:
        """Names the right burst, or one `beside` it."""
        (clip,) = self.heard()
        expected = next(int(trial.expected) for trial in self.made.study.trials if trial.clips == (clip,))
        self.press("Play the three bursts")
        self.press(f"Burst {(expected - 1 + beside) % 3 + 1}")

    def _judge(self, value: str) -> None:
        """By single keys, where there are keys."""
        (heard,) = self.heard()
        wanted = self._wanted(heard, value)
        radio = self.page.locator(f"input[value={wanted}]")
        expect(radio).to_be_disabled(timeout=STEP_MS)
        if self.touch:
            self.press("Play the clip")
            self.use(radio)
            self.use(self.page.locator("#card .row.end button"))
        else:
            self.page.keyboard.press("p")
            expect(radio).to_be_enabled(timeout=STEP_MS)
            self.page.keyboard.press({"original": "1", "generated": "2", "beeps": "0"}[wanted])
            expect(radio).to_be_checked(timeout=STEP_MS)
            self.page.keyboard.press("Enter")
        if any(heard in trial.clips for trial in self.made.study.of_role("scored")):
            self.clicked.append((heard, wanted))

    def _wanted(self, heard: str, value: str) -> str:
        notice = self.page.locator("#card .notice")
        if notice.count():
            label = notice.inner_text().rsplit(": ", 1)[1]
            return next(option for option, text in self.made.study.options() if text == label)
        return "beeps" if self.made.study.clip(heard).condition == "beeps" else value

    def withdraw(self) -> None:
        self.press("Withdraw and erase my answers")
        if self.watch:
            self._look()
        self.press("Withdraw and erase")
        expect(self.page.get_by_role("heading", name="You have withdrawn")).to_be_visible(timeout=STEP_MS)
        self.loaded()


def serious(page: Page) -> list[str]:
    """What axe finds that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def anna_reloads_twice(browser: Browser, made: Made) -> Participant:
    """By keyboard alone."""
    anna = Participant(browser, made, "anna")
    anna.agree()
    anna.go_on_to(9, "generated")
    for _ in range(2):
        place, heard = anna.where, anna.heard()
        anna.reload()
        assert (anna.where, anna.heard()) == (place, heard)
        anna.answer("generated")
        anna.start()
    assert anna.finish("generated", "=1+1") == f"{PLATFORM}?cc=C1ALLDONE"
    return anna


def ben_changes_his_browser(browser: Browser, made: Made) -> Participant:
    """With a telephone, looked at screen by screen."""
    ben = Participant(browser, made, "ben", touch=True, watch=True)
    ben.agree()
    ben.go_on_to(10, "original")
    place, heard, first = ben.where, ben.heard(), ben.context
    ben.move()
    assert (ben.where, ben.heard()) == (place, heard)
    first.close()
    assert ben.finish("original", "") == f"{PLATFORM}?cc=C1ALLDONE"
    assert len(ben.seen) >= 9
    return ben


def gus_hears_no_tone(browser: Browser, made: Made) -> Participant:
    gus = Participant(browser, made, "gus", touch=True)
    gus.agree()
    gus.answer("")
    gus.start()
    while gus.heading == "Headphone check":
        before = gus.where
        gus.find_the_tone(beside=1)
        gus.sounds.clear()
        expect(gus.page.locator("#where")).not_to_have_text(before, timeout=STEP_MS)
        gus.loaded()
    assert gus.heading == "Thank you, that was all"
    assert gus.go_back() == f"{PLATFORM}?cc=C2NOPHONES"
    return gus


def cleo_withdraws(browser: Browser, made: Made) -> Participant:
    cleo = Participant(browser, made, "cleo-who-withdraws", watch=True)
    cleo.agree()
    cleo.answer("generated")
    cleo.withdraw()
    kept = [path.read_bytes() for path in made.folder.parent.glob("studies.sqlite3*")]
    assert kept
    assert not any(b"cleo-who-withdraws" in content for content in kept)
    return cleo


def in_a_browser_of_ones_own(journey: Callable[[Browser, Made], Participant], made: Made) -> Participant:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            return journey(browser, made)
        finally:
            browser.close()


def test_one_reloads_one_moves_one_withdraws_and_results_are_what_was_clicked(browser, made):
    """And one is screened out. All take part at once, which also takes less time."""
    journeys = (anna_reloads_twice, ben_changes_his_browser, gus_hears_no_tone, cleo_withdraws)
    with ThreadPoolExecutor(len(journeys)) as pool:
        people = list(pool.map(in_a_browser_of_ones_own, journeys, [made] * len(journeys)))
    assert [error for person in people for error in person.errors] == []
    clicked = [one for person in people for one in person.clicked]
    assert len(clicked) == 4
    _owner_sees(browser, made, clicked)


def _owner_sees(browser: Browser, made: Made, clicked: list[tuple[str, str]]) -> None:
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(STEP_MS)
    page.goto(made.owner, wait_until="load")
    counts = page.locator(".counts")
    for name, number in (
        ("Complete", f"2 of {TARGET}"),
        ("Screened out", "1"),
        ("Withdrawn", "1"),
        ("Ratings", "4"),
        ("Failed the checks", "0"),
    ):
        tile = counts.locator("div", has=page.get_by_text(name, exact=True))
        expect(tile.locator("dd")).to_have_text(number, timeout=STEP_MS)
    right = sum(value == made.study.clip(clip).truth for clip, value in clicked)
    expect(page.locator(".headline b")).to_have_text(f"{100 * right / 4:.1f} %")
    expect(page.locator(".plot .paper")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("button", name="answers.csv").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    scored = [row for row in rows if row["role"] == "scored"]
    assert Counter((json.loads(row["clips"])[0], row["value"]) for row in scored) == Counter(clicked)
    assert all(float(row["listened_s"].strip("[]")) >= CLIP_S - 0.3 for row in scored)
    assert [row["value"] for row in rows if row["role"] == "comment"].count("'=1+1") == 1
    assert serious(page) == []
    page.set_viewport_size(PHONE)
    assert fits(page)
    page.get_by_role("button", name="Close it").click()
    expect(page.locator("#state")).to_have_text("closed")
    page.get_by_role("button", name="Open it again").click()
    expect(page.locator("#state")).to_have_text("open")
    context.close()


def test_who_declines_is_taken_back_with_a_code_of_their_own_and_may_think_again(browser, made):
    person = Participant(browser, made, "eve")
    person.page.clock.install()
    person.reload()
    person.press("I do not want to take part")
    expect(person.page.locator("#code")).to_have_text(made.study.codes.no_consent, timeout=STEP_MS)
    person.page.clock.run_for(16_000)
    person.page.wait_for_url(f"{PLATFORM}?cc={made.study.codes.no_consent}")
    person.page.goto(person.link)
    expect(person.page.get_by_role("button", name="Begin")).to_be_disabled(timeout=STEP_MS)
    person.context.close()


def test_a_task_that_is_not_accepted_yet_can_only_be_read(browser, made):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{made.participants}?assignmentId=ASSIGNMENT_ID_NOT_AVAILABLE&hitId=h", wait_until="load")
    page.get_by_label("I have read this").check(timeout=STEP_MS)
    expect(page.get_by_role("button", name="Begin")).to_be_disabled()
    expect(page.get_by_text("This is a preview")).to_be_visible()
    context.close()


def test_without_the_secret_the_results_page_shows_nothing(browser, made):
    context = browser.new_context()
    page = context.new_page()
    page.goto(made.owner.split("#")[0], wait_until="load")
    expect(page.get_by_text("no study with this secret")).to_be_visible(timeout=STEP_MS)
    context.close()


def test_the_studio_goes_on_beside_its_studies(server, made):
    for path, status in (("", 200), ("config", 200), ("study/assets/participant.js", 200)):
        with urllib.request.urlopen(f"{server.url}/{path}", timeout=60) as answer:
            assert answer.status == status


class Apart:
    """Studies served without the studio, by a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "app.study", "--studies", str(self.folder), "serve", "--port", str(self.port)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        wait_until_it_answers(f"http://127.0.0.1:{self.port}/study/assets/dom.js", self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Apart, Made]]:
    folder = tmp_path_factory.mktemp("studies")
    library = Library(folder)
    study, files, token = assembled()
    library.add(study, files, token)
    library.store.close()
    served = Apart(folder)
    address = f"http://127.0.0.1:{served.port}/study/{study.id}"
    yield served, Made(address, f"{address}/results#{token}", study, folder / study.id)
    served.kill()


def test_an_answer_given_while_the_server_is_dead_is_stored_once_when_it_is_back(browser, apart):
    served, made = apart
    person = Participant(browser, made, "fred")
    person.agree()
    person.press("Play the noise")
    served.kill()
    person.press("It is comfortable")
    expect(person.page.locator("#sending")).to_contain_text("kept here and sent again", timeout=STEP_MS)
    served.start()
    expect(person.page.get_by_role("heading", name="Put on your headphones")).to_be_visible(timeout=STEP_MS)
    expect(person.page.locator("#sending")).to_be_empty()
    person.context.close()
    library = Library(served.folder)
    assert [answer.role for answer in library.store.results(made.study.id).answers] == ["level"]
    library.store.close()


def test_an_answer_that_was_not_acknowledged_before_a_reload_is_sent_by_the_next_page(browser, apart):
    _, made = apart
    person = Participant(browser, made, "gina")
    person.agree()
    person.press("Play the noise")
    person.page.route("**/api/answer", lambda route: route.abort())
    person.press("It is comfortable")
    expect(person.page.locator("#sending")).to_contain_text("kept here and sent again", timeout=STEP_MS)
    person.page.unroute("**/api/answer")
    with person.page.expect_request("**/api/answer"):
        person.page.reload()
    expect(person.page.get_by_role("heading", name="Headphone check")).to_be_visible(timeout=STEP_MS)
    person.context.close()


def test_a_withdrawal_that_was_not_acknowledged_before_a_reload_is_sent_by_the_next_page(browser, apart):
    """Also where an answer that was sent before it gets through first; and nothing stays in the browser."""
    served, made = apart
    person = Participant(browser, made, "hugo")
    person.agree()
    person.press("Play the noise")
    for path in ("answer", "withdraw"):
        person.page.route(f"**/api/{path}", lambda route: route.abort())
    person.press("It is comfortable")
    person.press("Withdraw and erase my answers")
    person.press("Withdraw and erase")
    with person.page.expect_response("**/api/answer"):
        person.page.unroute("**/api/answer")
    person.page.wait_for_timeout(500)
    person.page.unroute("**/api/withdraw")
    person.page.reload()
    expect(person.page.get_by_role("heading", name="You have withdrawn")).to_be_visible(timeout=STEP_MS)
    assert person.page.evaluate("Object.keys(localStorage)") == []
    person.context.close()
    library = Library(served.folder)
    assert "hugo" not in str([session.external_ids for session in library.store.results(made.study.id).sessions])
    library.store.close()


def test_two_tabs_without_an_id_are_one_participant_and_withdrawal_in_one_ends_the_other(browser, apart):
    served, made = apart
    context, errors = browser.new_context(viewport=DESKTOP), []
    first, second = tabs = [context.new_page(), context.new_page()]
    for page in tabs:
        page.set_default_timeout(STEP_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(made.participants, wait_until="load")
        page.get_by_label("I have read this").check()
    for page in tabs:
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("heading", name="Set the volume")).to_be_visible(timeout=STEP_MS)
    for page in tabs:  # the second one's answer is refused, and it goes on where the first one is
        page.get_by_role("button", name="Play the noise").click()
        page.get_by_role("button", name="It is comfortable").click()
        expect(page.get_by_role("heading", name="Put on your headphones")).to_be_visible(timeout=STEP_MS)
    library = Library(served.folder)
    mine = [one for one in library.store.results(made.study.id).sessions if not one.external_ids]
    assert [one.num_answers for one in mine] == [1]
    first.get_by_role("button", name="Withdraw and erase my answers").click()
    first.get_by_role("button", name="Withdraw and erase", exact=True).click()
    expect(first.get_by_role("heading", name="You have withdrawn")).to_be_visible(timeout=STEP_MS)
    second.get_by_role("button", name="Start").click()
    expect(second.get_by_text("If you have withdrawn, maybe in another tab")).to_be_visible(timeout=STEP_MS)
    expect(second.get_by_role("button", name="Withdraw and erase my answers")).to_be_hidden()
    assert second.evaluate("Object.keys(localStorage)") == []
    assert [one for one in library.store.results(made.study.id).sessions if not one.external_ids] == []
    assert errors == []
    library.store.close()
    context.close()


def test_the_tick_for_participants_ids_stays_when_the_results_are_drawn_anew(browser, apart):
    _, made = apart
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_default_timeout(STEP_MS)
    page.goto(made.owner, wait_until="load")
    page.get_by_label("With the platform's participant ids").check()
    for button, state in (("Close it", "closed"), ("Open it again", "open")):
        page.get_by_role("button", name=button).click()
        expect(page.locator("#state")).to_have_text(state, timeout=STEP_MS)
        expect(page.get_by_label("With the platform's participant ids")).to_be_checked()
    context.close()
