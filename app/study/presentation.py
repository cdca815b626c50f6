"""What the page is told of a step: the one place where a plan becomes a view, and so the one to read about blinding."""

from __future__ import annotations

from collections.abc import Mapping

from app.study import protocol
from app.study.answers import COMMENT, Answer, choices, right_answer, sounds
from app.study.definition import (
    AB,
    ABX,
    HEADPHONES,
    HUMAN_AGAINST_DETECTOR,
    LEVEL,
    MUSHRA,
    PRACTICE,
    SCORED,
    TRAP,
    Clip,
    Study,
    Trial,
)
from app.study.protocol import PlannedTrial
from app.study.views import ClipView, Feedback, Option, StudyPage, TrialView

QUESTIONS = {
    HEADPHONES: "One of the three noises holds a faint tone. Which one?",
    LEVEL: "Play the noise and set your volume so that it is comfortable. Then leave the volume as it is.",
    COMMENT: "Is there anything that you would like to tell us? You may leave this empty.",
}
_PHASES = {HEADPHONES: "headphones", LEVEL: "level", PRACTICE: "practice", COMMENT: "comment"}
_LABELS = {AB: ("First", "Second"), ABX: ("A", "B", "X")}
REFERENCE = "Reference"


def study_page(study: Study) -> StudyPage:
    texts = study.texts
    return StudyPage(
        study.id,
        texts.title,
        texts.introduction,
        texts.consent,
        texts.instructions,
        texts.contact,
        study.kind,
        protocol.minutes(study),
        bool(study.of_role(HEADPHONES)),
    )


def trial_view(study: Study, planned: PlannedTrial, total: int, key: str, handles: tuple[str, ...]) -> TrialView:
    """`handles` are those of `answers.sounds`, in its order."""
    own = planned.role in (HEADPHONES, LEVEL, COMMENT)
    scores = study.kind == MUSHRA and not own
    clips = tuple(
        ClipView(handle, label) for handle, label in zip(handles, _labels(study, planned), strict=False)
    )  # the reference's handle is left over
    labels = dict(study.options())
    heard = sounds(study, planned)
    return TrialView(
        key=key,
        number=planned.index + 1,
        total=total,
        phase=_PHASES.get(planned.role, "main"),
        kind=planned.role if own else study.kind,
        question=QUESTIONS[planned.role] if own else study.texts.question,
        instruction="" if planned.role == COMMENT else _instruction(study.trial(planned.trial), labels),
        clips=clips,
        reference=ClipView(handles[-1], REFERENCE) if len(heard) > len(planned.clips) else None,
        options=tuple(Option(value, labels.get(value, value)) for value in choices(study, planned)),
        scores=scores,
        beeps=not own and bool(study.of_role(TRAP)),
        must_play=0.0 if planned.role in (LEVEL, COMMENT) else study.checks.must_play,
        duration_s=study.clip(planned.clips[0]).duration_s if planned.clips else 0.0,
    )


def _instruction(trial: Trial, labels: Mapping[str, str]) -> str:
    return trial.instruction.replace("{label}", labels.get(trial.expected, ""))


def _labels(study: Study, planned: PlannedTrial) -> tuple[str, ...]:
    if planned.role in (HEADPHONES, LEVEL) or len(planned.clips) == 1:
        return ("",) * len(planned.clips)
    return _LABELS.get(study.kind) or tuple(str(number) for number in range(1, len(planned.clips) + 1))


def feedback(study: Study, planned: PlannedTrial, answer: Answer, scored: Mapping[str, Answer]) -> Feedback | None:
    """What a participant learns after an answer, None where nothing. `scored`: clip id -> scored answer so far."""
    duel = study.kind == HUMAN_AGAINST_DETECTOR and planned.role in (PRACTICE, SCORED)
    practice = study.checks.practice_feedback and planned.role == PRACTICE
    if answer.correct is None or not (duel or practice):
        return None
    if not duel:
        return Feedback(right_answer(study, planned), answer.correct)
    clip = study.clip(planned.clips[0])
    judged = [right for right in map(detector_is_right, map(study.clip, scored)) if right is not None]
    return Feedback(
        truth=clip.truth,
        correct=answer.correct,
        detector=clip.detector.label if clip.detector else "",
        probability=clip.detector.probability if clip.detector else None,
        detector_correct=detector_is_right(clip),
        human_total=sum(bool(one.correct) for one in scored.values()),
        detector_total=sum(judged),
        detector_judged=len(judged),
        answered=len(scored),
    )


def detector_is_right(clip: Clip) -> bool | None:
    """Whether the detector's decision at its threshold is the truth; None where it gave none."""
    if clip.detector is None or not clip.detector.forced:
        return None
    return clip.detector.forced == clip.truth
