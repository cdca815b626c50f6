"""A paragraph of methods and results for a paper: every number of it comes from the study and its data."""

from __future__ import annotations

from collections import Counter

from app.study import statistics
from app.study.analysis import Figure, Results, analyse, judges_mid_anchor, rate_name
from app.study.definition import (
    AB,
    ABX,
    ATTENTION,
    HEADPHONES,
    HUMAN_AGAINST_DETECTOR,
    MOS,
    MUSHRA,
    PRACTICE,
    REAL_OR_SYNTHETIC,
    SCORED,
    TRAP,
    Study,
)
from app.study.records import StudyRecords

_TASKS = {
    REAL_OR_SYNTHETIC: "judged whether each clip was a recording or machine-generated",
    HUMAN_AGAINST_DETECTOR: "judged whether each clip was a recording or machine-generated, and were then told",
    AB: "chose the better of two clips",
    ABX: "decided which of two clips a third one was",
    MOS: "rated the quality of each clip on the five-point scale of ITU-T P.808",
    MUSHRA: "rated clips from 0 to 100 against a reference (ITU-R BS.1534), a hidden reference and anchors among them",
}


def methods(records: StudyRecords, results: Results | None = None) -> str:
    """Plain text. `results` are those of `records`, where they are known already."""
    results = results or analyse(records)
    parts = [_material(records.study), _procedure(records.study), _people(records, results), _outcome(records, results)]
    return "\n".join(part for part in parts if part)


def _material(study: Study) -> str:
    scored = {clip for trial in study.of_role(SCORED) for clip in trial.clips}
    clips = [study.clip(clip) for clip in scored]
    items, seconds = {clip.item for clip in clips}, clips[0].duration_s
    loudness = [clip.loudness_lufs for clip in clips]
    made_by = sorted({clip.origin["checkpoint"] for clip in clips if "checkpoint" in clip.origin})
    by = f" (checkpoint {', '.join(made_by)})" if made_by else ""
    prompts = sorted({clip.origin["prompt_s"] for clip in clips if "prompt_s" in clip.origin})
    prompt = f" Continuations followed a prompt of {', '.join(prompts)} s." if prompts else ""
    mark = f" Every clip carried the watermark {study.watermark}." if study.watermark else ""
    return (
        f"{_many(len(items), 'item')} were presented in {_many(len(study.conditions), 'condition')} "
        f"({', '.join(study.conditions)}){by}, as clips of {seconds:g} s at {clips[0].sample_rate_hz} Hz with a "
        f"loudness of {min(loudness):.1f} LUFS (range {max(loudness) - min(loudness):.2f} LU).{prompt}{mark}"
    )


def _procedure(study: Study) -> str:
    roles = Counter(trial.role for trial in study.trials)
    checks = []
    if study.checks.headphone_pass:
        passed = f"{study.checks.headphone_pass} of {roles[HEADPHONES]}"
        checks.append(f"a headphone test by Huggins pitch (Milne et al. 2021; {passed} had to be right)")
    for role, name in ((PRACTICE, "practice trial"), (ATTENTION, "attention trial"), (TRAP, "trap trial")):
        if roles[role]:
            checks.append(_many(roles[role], name))
    with_checks = f" Sessions included {_listed(checks)}." if checks else ""
    share = study.checks.must_play
    least = f"At least {100 * share:.0f} % of every clip" if share < 1 else "Every clip"
    play = f" {least} had to be heard{' to its end' if share == 1 else ''}." if share else ""
    return (
        f"Listeners {_TASKS[study.kind]}. Order and sides were drawn for each listener and balanced over lists "
        f"(seed {study.seed}).{with_checks}{play}{_post_screening(study)}"
    )


def _post_screening(study: Study) -> str:
    if study.kind != MUSHRA:
        return ""
    share, least = 100 * statistics.POST_SCREENING_SHARE, statistics.HIDDEN_REFERENCE_LEAST
    rules = (
        f" Listeners were left out who gave the hidden reference less than {least:g} in over {share:.0f} % of trials"
    )
    if judges_mid_anchor(study):
        return f"{rules}, or the mid anchor more than {statistics.MID_ANCHOR_MOST:g}."
    return f"{rules}; the rule on the mid anchor was not applied, since it hardly differs from the reference."


def _people(records: StudyRecords, results: Results) -> str:
    counts, study = results.counts, records.study
    left = [
        f"{number} {what}"
        for number, what in (
            (counts.screened_out, "did not pass the headphone test"),
            (counts.running + counts.lapsed, "did not finish"),
            (counts.excluded, "finished but failed checks or post-screening"),
        )
        if number
    ]
    others = f" ({'; '.join(left)})" if left else ""
    gone = f" {_many(counts.withdrawn, 'listener')} withdrew and left no data." if counts.withdrawn else ""
    versions = sorted({session.code_version for session in records.sessions})
    low, high = min(counts.by_cell), max(counts.by_cell)
    each = str(low) if low == high else f"{low} to {high}"
    lists = f"{_many(len(counts.by_cell), 'list')}, {each} completed sessions each"
    return (
        f"{_many(counts.consented, 'listener')} consented and {counts.complete} of {study.plan.target_sessions} wanted "
        f"completed the study{others}, on {lists}. {_many(counts.ratings, 'rating')} of "
        f"{_many(counts.complete - counts.excluded, 'listener')} were analysed.{gone}"
        + (f" Software: AudioLM Studio {', '.join(versions)}." if versions else "")
    )


def _outcome(records: StudyRecords, results: Results) -> str:
    if not results.figures:
        return "There are no ratings yet."
    if records.study.kind in (MOS, MUSHRA):
        means = "; ".join(_quoted(figure, 2) for figure in results.figures if figure.value is not None)
        return f"Means with 95 % intervals clustered by rater and clip, and differences: {means}."
    main = results.figure(rate_name(records.study))
    tests = "; ".join(f"{test.name}: p = {test.p_value:.3g}" for test in results.tests)
    sentence = (
        f"Share of ratings, with a 95 % interval clustered by rater and clip: {_quoted(main, 3)}. Tests: {tests}."
    )
    if results.paper:
        sentence += f" For comparison, {_quoted(results.paper, 3)}."
    return sentence


def _quoted(figure: Figure | None, digits: int) -> str:
    if figure is None or figure.value is None:
        return "not known"
    value = f"{figure.name} {figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return f"{value} (n = {figure.n})"
    return f"{value} ({figure.low:.{digits}f} to {figure.high:.{digits}f}, n = {figure.n})"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
