"""What a participant's page is told, and nothing else: no clip id, condition, role, file name or expected answer.

Clips go by handles, made anew for every session, trial and place in it, so that nothing learnt in one session helps in
another. Every value has `to_dict()`, which is the JSON of the HTTP answer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

CONSENT, DECLINED, RUNNING, COMPLETE = "consent", "declined", "running", "complete"
SCREENED_OUT, LAPSED = "screened_out", "lapsed"


class View:
    """Mixin: JSON-ready."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Session(View):
    """Where a participant stands. States "consent" and "declined": nothing is stored, and id and token are empty.

    `token` is the browser's secret for all further calls (keep it in a cookie: HttpOnly, SameSite=Strict, or in the
    page; never in a URL). `code` and `redirect` are set once the state is declined, complete,
    screened_out or lapsed.
    """

    study_id: str
    state: str
    id: str = ""
    token: str = dataclasses.field(default="", repr=False)
    done: int = 0
    total: int = 0
    code: str = ""
    redirect: str = ""


@dataclass(frozen=True)
class Option(View):
    value: str
    label: str


@dataclass(frozen=True)
class ClipView(View):
    """`handle` goes into the clip's address; `label` is what the page calls it ("", "A", "X", "Reference", "1", …)."""

    handle: str
    label: str


@dataclass(frozen=True)
class TrialView(View):
    """One step. `key` names it in `Store.answer`. `number` of `total` counts every step, also screening and comment.

    phase headphones: options 1, 2, 3 (which of three noises holds a tone). level: the only option is "ok". comment: no
    clips, free text. kind mushra: `scores` is True, and the answer holds a score 0 to 100 for every clip, in the order
    of `clips`; everything else has exactly one of `options`. `beeps`: show the button "I heard beeps", answer value
    "beeps". `must_play`: the share of every clip (and of the reference) that has to be heard first.
    """

    key: str
    number: int
    total: int
    phase: str
    kind: str
    question: str
    instruction: str = ""
    clips: tuple[ClipView, ...] = ()
    reference: ClipView | None = None
    options: tuple[Option, ...] = ()
    scores: bool = False
    beeps: bool = False
    must_play: float = 0.0
    duration_s: float = 0.0


@dataclass(frozen=True)
class Feedback(View):
    """After a trial of human_against_detector, and after practice where the study says so.

    `detector` is generated, original, uncertain, withheld or "" (not judged); totals count scored trials so far, and
    the detector's only where it decides (at its threshold).
    """

    truth: str
    correct: bool
    detector: str = ""
    probability: float | None = None
    detector_correct: bool | None = None
    human_total: int = 0
    detector_total: int = 0
    detector_judged: int = 0
    answered: int = 0


@dataclass(frozen=True)
class Receipt(View):
    """The answer to `key` is on disk. `repeated`: it was already, by the same idempotency key."""

    key: str
    done: int
    total: int
    state: str
    repeated: bool = False
    feedback: Feedback | None = None


@dataclass(frozen=True)
class Finish(View):
    """Every answer has been read back. `code` and `redirect` may be "" where the study has none."""

    code: str
    redirect: str
    debrief: str
    num_answers: int


@dataclass(frozen=True)
class StudyPage(View):
    """What the page shows before consent: texts alone."""

    id: str
    title: str
    introduction: str
    consent: str
    instructions: str
    contact: str
    kind: str
    minutes: int
    headphones: bool
