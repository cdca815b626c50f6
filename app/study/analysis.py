"""Records -> every figure of the owner's page, the export and the methods paragraph. Pure; every figure has its n.

Ratings are the scored answers of the sessions that are complete and passed their checks; "I heard beeps" in a scored
trial is a missing rating. The interval to quote is the clustered one: ratings of one rater, and of one clip, are alike.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.study import protocol, statistics
from app.study.definition import AB, ABX, BEEPS, MOS, MUSHRA, REAL_OR_SYNTHETIC, SCORED, TIE, TRUTH_KINDS, Study
from app.study.mixed import MAX_RATINGS, mixed_means, mixed_rate
from app.study.presentation import detector_is_right
from app.study.presets import HIDDEN_REFERENCE, MID_ANCHOR
from app.study.records import AnswerRecord, StudyRecords
from app.study.views import COMPLETE, LAPSED, RUNNING, SCREENED_OUT
from audiolm.intervals import NamedEstimate

PAPER_CORRECT, PAPER_RATINGS = 512, 1000  # AudioLM, arXiv 2209.03143
PAPER = "AudioLM (Borsos et al. 2022)"
WITHOUT_MIXED = "The mixed-effects model has not been fitted."
LEAST_MID_ANCHOR_HZ = 28_000
"""Sample rate below which clips end less than an octave above the mid anchor's 7 kHz: hardly to be told from it."""
WITHOUT_MID_ANCHOR = (
    "Nobody is left out for scores of the 7 kHz anchor over 90, which BS.1534 asks for: at this sample rate it hardly "
    "differs from the reference."
)


@dataclass(frozen=True)
class Figure(NamedEstimate):
    """`note` says how it was made, or why there is no value."""

    note: str = ""


@dataclass(frozen=True)
class Test:
    """A significance test over n ratings. `decision` is a sentence."""

    name: str
    p_value: float
    n: int
    decision: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One condition, clip or rater: a rate or mean score with its interval. `group` is a clip's condition."""

    name: str
    group: str
    value: float
    low: float | None
    high: float | None
    n: int
    excluded: str = ""


@dataclass(frozen=True)
class Counts:
    """Sessions by outcome. `by_cell` counts completed sessions; `spread` is its maximum less its minimum.

    `drop_out_by_step`: of the sessions that are not complete, how many answered 0, 1, 2, … steps. `missing` ratings are
    those answered with "I heard beeps".
    """

    consented: int
    running: int
    complete: int
    screened_out: int
    lapsed: int
    excluded: int
    declined: int
    withdrawn: int
    target: int
    ratings: int
    missing: int
    by_cell: tuple[int, ...]
    spread: int
    drop_out_by_step: tuple[int, ...]


@dataclass(frozen=True)
class Results:
    """`paper` is AudioLM's own figure, where the study asks the same question."""

    study_id: str
    kind: str
    title: str
    counts: Counts
    figures: tuple[Figure, ...]
    tests: tuple[Test, ...]
    conditions: tuple[Row, ...]
    clips: tuple[Row, ...]
    raters: tuple[Row, ...]
    planned: statistics.Planned
    paper: Figure | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)


@dataclass(frozen=True)
class Rating:
    """One score: `value` is 0 or 1 for a rate, else the score. `clip` is what ratings cluster by, beside the rater."""

    rater: str
    clip: str
    item: str
    condition: str
    value: float


def analyse(records: StudyRecords, seed: int = 0, with_mixed: bool = True) -> Results:
    """`seed` is that of the bootstrap. The mixed-effects model takes seconds: a page that is live does without."""
    study, excluded = records.study, exclusions(records)
    everything = ratings_of(records)
    ratings = [rating for rating in everything if not excluded[rating.rater]]
    figures, tests, notes = [], [], [] if with_mixed else [WITHOUT_MIXED]
    if study.kind == MUSHRA and not judges_mid_anchor(study):
        notes.append(WITHOUT_MID_ANCHOR)
    if ties := _num_ties(records, excluded):
        notes.append(f"Answers that are no ratings, since they found no difference: {ties}.")
    if ratings and study.kind in (MOS, MUSHRA):
        figures += _score_figures(study, ratings, seed)
    elif ratings:
        figures += _rate_figures(study, ratings, seed)
        tests += _rate_tests(study, ratings)
        figures += _side_figures(records, excluded) + _truth_figures(study, ratings)
    if ratings and with_mixed:
        mixed = (_mixed_scores if study.kind in (MOS, MUSHRA) else _mixed_rates)(ratings)
        figures += mixed
    return Results(
        study.id,
        study.kind,
        study.texts.title,
        _counts(records, excluded, len(ratings)),
        tuple(figures),
        tuple(tests),
        _rows(study, ratings, lambda one: (one.condition, "")),
        _rows(study, ratings, lambda one: (one.clip, one.condition)),
        _rows(study, everything, lambda one: (one.rater, ""), excluded),
        statistics.planner(study.plan.equivalence_margin),
        _paper(study),
        tuple(notes),
    )


def ratings_of(records: StudyRecords) -> list[Rating]:
    """Every scored answer of every session, as ratings; missing ones left out."""
    read = {MUSHRA: _mushra, MOS: _mos, AB: _preference}.get(records.study.kind, _correct)
    scored = (answer for answer in records.answers if answer.role == SCORED and answer.value != BEEPS)
    return [rating for answer in scored for rating in read(records.study, answer)]


# answers as ratings


def _correct(study: Study, answer: AnswerRecord) -> Iterable[Rating]:
    """1 for a right answer. ABX trials are known by their first clip."""
    clip = study.trial(answer.trial).clips[0]
    condition = study.clip(clip).condition if study.kind != ABX else " / ".join(_pair(study, answer))
    yield Rating(answer.session, clip, study.clip(clip).item, condition, float(bool(answer.correct)))


def _preference(study: Study, answer: AnswerRecord) -> Iterable[Rating]:
    """1 where the pair's first condition was preferred, whichever side it was on; ties are no ratings."""
    if answer.value != TIE:
        first_is_one = answer.side == "one"
        preferred_one = (answer.value == "first") == first_is_one
        clip = study.trial(answer.trial).clips[0]
        pair = " / ".join(_pair(study, answer))
        yield Rating(answer.session, clip, study.clip(clip).item, pair, float(preferred_one))


def _num_ties(records: StudyRecords, excluded: dict[str, str]) -> int:
    """Of the sessions that are analysed."""
    scored = (answer for answer in records.answers if answer.role == SCORED and not excluded[answer.session])
    return sum(answer.value == TIE for answer in scored)


def _mos(study: Study, answer: AnswerRecord) -> Iterable[Rating]:
    clip = study.clip(answer.clips[0])
    yield Rating(answer.session, clip.id, clip.item, clip.condition, float(answer.value))


def _mushra(study: Study, answer: AnswerRecord) -> Iterable[Rating]:
    for clip, score in zip(map(study.clip, answer.clips), answer.scores, strict=True):
        yield Rating(answer.session, clip.id, clip.item, clip.condition, score)


def _pair(study: Study, answer: AnswerRecord) -> list[str]:
    return [study.clip(clip).condition for clip in study.trial(answer.trial).clips[:2]]


# sessions


def exclusions(records: StudyRecords) -> dict[str, str]:
    """Session -> why it is left out, "" where it is not; MUSHRA's post-screening comes on top."""
    reasons = {session.id: session.excluded for session in records.sessions}
    if records.study.kind == MUSHRA:
        scores: dict[tuple[str, str], list[float]] = {}
        for rating in ratings_of(records):
            scores.setdefault((rating.rater, rating.condition), []).append(rating.value)
        for session, reason in reasons.items():
            hidden, mid = (scores.get((session, name), []) for name in (HIDDEN_REFERENCE, MID_ANCHOR))
            mid = mid if judges_mid_anchor(records.study) else []
            reasons[session] = reason or statistics.post_screened(hidden, mid)
    return reasons


def judges_mid_anchor(study: Study) -> bool:
    """Whether BS.1534's rule on the mid anchor says anything of a listener."""
    rates = {clip.sample_rate_hz for clip in study.clips if clip.condition == MID_ANCHOR}
    return bool(rates) and min(rates) >= LEAST_MID_ANCHOR_HZ


def _counts(records: StudyRecords, excluded: dict[str, str], num_ratings: int) -> Counts:
    study = records.study
    states = Counter(session.state for session in records.sessions)
    cells = Counter(session.cell for session in records.sessions if session.state == COMPLETE)
    by_cell = tuple(cells[cell] for cell in range(protocol.num_cells(study)))
    steps = Counter(session.num_answers for session in records.sessions if session.state in (RUNNING, LAPSED))
    complete = [session for session in records.sessions if session.state == COMPLETE]
    missing = sum(answer.role == SCORED and answer.value == BEEPS for answer in records.answers)
    return Counts(
        consented=len(records.sessions),
        running=states[RUNNING],
        complete=states[COMPLETE],
        screened_out=states[SCREENED_OUT],
        lapsed=states[LAPSED],
        excluded=sum(bool(excluded[session.id]) for session in complete),
        declined=records.num_declined,
        withdrawn=records.num_withdrawn,
        target=study.plan.target_sessions,
        ratings=num_ratings,
        missing=missing,
        by_cell=by_cell,
        spread=max(by_cell) - min(by_cell),
        drop_out_by_step=tuple(steps[step] for step in range(max(steps, default=-1) + 1)),
    )


# rates


def rate_name(study: Study) -> str:
    """What the rate of a study is a rate of."""
    if study.kind != AB:
        return "correct"
    return f"{study.conditions[0]} preferred" if len(study.conditions) == 2 else "earlier condition preferred"


def _rate_figures(study: Study, ratings: Sequence[Rating], seed: int) -> list[Figure]:
    successes, n = _successes(ratings), len(ratings)
    name = rate_name(study)
    columns = _columns(ratings)
    rate = successes / n
    wilson = statistics.wilson(successes, n)
    clustered = statistics.clustered(*columns).interval()
    drawn = statistics.cluster_bootstrap(*columns, seed=seed)
    few = "too few raters or clips"
    return [
        Figure(
            name, rate, clustered.low, clustered.high, n, few if clustered.low is None else "clustered (quote this)"
        ),
        Figure(f"{name}, bootstrap", rate, drawn.low, drawn.high, n, few if drawn.low is None else "by rater and clip"),
        Figure(f"{name}, exact", rate, *statistics.clopper_pearson(successes, n), n, "Clopper-Pearson, unclustered"),
        Figure(f"{name}, Wilson", rate, wilson.low, wilson.high, n, "unclustered"),
    ]


def _rate_tests(study: Study, ratings: Sequence[Rating]) -> list[Test]:
    """Exact ones, which take ratings as independent, and those that know raters and clips."""
    successes, n, margin = _successes(ratings), len(ratings), study.plan.equivalence_margin
    points = f"within {100 * margin:g} points of chance"
    equal = statistics.equivalence(successes, n, margin)
    interval = f"90 % interval {equal.low:.3f} to {equal.high:.3f}"
    independent = "takes ratings as independent"
    above = statistics.binomial_p(successes, n, alternative="greater")
    tests = [
        _test(
            "exact binomial, two-sided", statistics.binomial_p(successes, n), n, "different from chance", independent
        ),
        _test("exact binomial, one-sided", above, n, "above chance", independent),
        _test(f"equivalence, margin {100 * margin:g} points", equal.p_value, n, points, f"{independent}; {interval}"),
    ]
    known = statistics.clustered(*_columns(ratings))
    above, over, under = (known.above_p(level) for level in (0.5, 0.5 - margin, 0.5 + margin))
    if above is not None and over is not None and under is not None:
        found = known.interval(1 - 2 * statistics.ALPHA)
        note, interval = "by rater and clip", f"90 % interval {found.low:.3f} to {found.high:.3f}"
        two_sided, equivalent = 2.0 * min(above, 1.0 - above), max(over, 1.0 - under)
        tests += [
            _test("clustered, two-sided", two_sided, n, "different from chance", note),
            _test(
                f"clustered equivalence, margin {100 * margin:g} points", equivalent, n, points, f"{note}; {interval}"
            ),
        ]
    return tests


def _test(name: str, p_value: float, n: int, what: str, note: str) -> Test:
    shown = p_value < statistics.ALPHA
    return Test(name, p_value, n, f"The rate is {what}." if shown else f"Not shown: the rate is {what}.", note)


def _side_figures(records: StudyRecords, excluded: dict[str, str]) -> list[Figure]:
    """How often the first of two was chosen: a habit of side, whatever was there."""
    chosen = [
        answer.value
        for answer in records.answers
        if answer.role == SCORED and not excluded[answer.session] and answer.value in ("first", "second", "a", "b")
    ]
    if not chosen:
        return []
    wilson = statistics.wilson(sum(value in ("first", "a") for value in chosen), len(chosen))
    return [
        Figure("first of the two chosen", wilson.value, wilson.low, wilson.high, wilson.n, "a habit of side; Wilson")
    ]


def _truth_figures(study: Study, ratings: Sequence[Rating]) -> list[Figure]:
    """Recordings and generated clips apart, sensitivity, and the detector on the same clips."""
    if study.kind not in TRUTH_KINDS:
        return []
    figures = []
    apart = {flag: [one for one in ratings if study.clip(one.clip).generated == flag] for flag in (False, True)}
    for flag, name in ((False, "recordings called recordings"), (True, "generated called generated")):
        if apart[flag]:
            found = statistics.clustered(*_columns(apart[flag])).interval()
            figures.append(Figure(name, found.value, found.low, found.high, found.n, "clustered"))
    if apart[False] and apart[True]:
        alarms = len(apart[False]) - _successes(apart[False])
        sensitivity = statistics.d_prime(_successes(apart[True]), len(apart[True]), alarms, len(apart[False]))
        figures.append(Figure("d'", sensitivity, n=len(ratings), note="0: cannot tell; log-linear correction"))
    return figures + _detector_figures(study, ratings)


def _detector_figures(study: Study, ratings: Sequence[Rating]) -> list[Figure]:
    """The detector, forced to decide as listeners are, on the clips that were rated; once a clip, and a rating."""
    right = {clip: detector_is_right(study.clip(clip)) for clip in {one.clip for one in ratings}}
    judged = [one for one in ratings if right[one.clip] is not None]
    if not judged:
        return []
    clips = {one.clip for one in judged}
    wilson = statistics.wilson(sum(bool(right[clip]) for clip in clips), len(clips))
    figures = [Figure("detector correct", wilson.value, wilson.low, wilson.high, wilson.n, "once a clip; Wilson")]
    ahead = [dataclasses.replace(one, value=one.value - float(bool(right[one.clip]))) for one in judged]
    found = statistics.clustered(*_columns(ahead)).interval()
    figures.append(Figure("listeners minus detector", found.value, found.low, found.high, found.n, "clustered"))
    return figures


def _mixed_rates(ratings: Sequence[Rating]) -> list[Figure]:
    values, raters, clips = _columns(ratings)
    mixed = mixed_rate([value > 0.5 for value in values], raters, clips)
    if mixed is None:
        return [Figure("mixed effects", None, n=len(ratings), note="too few raters or clips, or all answers are alike")]
    note = f"an average rater and clip; sd in log odds: raters {mixed.rater_sd:.2f}, clips {mixed.clip_sd:.2f}"
    return [Figure("mixed effects", mixed.rate, mixed.low, mixed.high, len(ratings), f"{note}; p {mixed.p_value:.3f}")]


# scores


def _score_figures(study: Study, ratings: Sequence[Rating], seed: int) -> list[Figure]:
    """Mean of every condition, and how far the others are from the first."""
    of = {name: [one for one in ratings if one.condition == name] for name in study.conditions}
    figures = []
    for name, own in of.items():
        if own:
            found = statistics.clustered(*_columns(own)).interval()
            figures.append(Figure(name, found.value, found.low, found.high, found.n, "mean; clustered"))
    first, *others = (name for name, own in of.items() if own)
    for name in others:
        both = [*of[name], *of[first]]
        values, raters, _ = _columns(both)
        items = [one.item for one in both]
        found = statistics.bootstrap_difference(values, [one.condition == name for one in both], raters, items, seed)
        note = "difference of means; bootstrap by rater and item"
        figures.append(Figure(f"{name} minus {first}", found.value, found.low, found.high, found.n, note))
    return figures


def _mixed_scores(ratings: Sequence[Rating]) -> list[Figure]:
    values, raters, clips = _columns(ratings)
    mixed = mixed_means(values, [one.condition for one in ratings], raters, clips)
    if mixed is None:
        reason = f"too few raters or clips, more than {MAX_RATINGS} ratings, or no convergence"
        return [Figure("mixed effects", None, n=len(ratings), note=reason)]
    note = f"sd: raters {mixed.rater_sd:.2f}, clips {mixed.clip_sd:.2f}, rest {mixed.residual_sd:.2f}"
    n = Counter(one.condition for one in ratings)
    return [Figure(f"{name}, mixed effects", mean, low, high, n[name], note) for name, mean, low, high in mixed.means]


# rows


def _rows(
    study: Study,
    ratings: Sequence[Rating],
    key: Callable[[Rating], tuple[str, str]],
    excluded: dict[str, str] | None = None,
) -> tuple[Row, ...]:
    """Ratings by key: rates with Wilson's interval, scores with that of their mean over raters or clips (t)."""
    groups: dict[tuple[str, str], list[float]] = {}
    for one in ratings:
        groups.setdefault(key(one), []).append(one.value)
    rows = []
    for (name, group), values in groups.items():
        if study.kind in (MOS, MUSHRA):
            found = statistics.mean_interval(values)
        else:
            found = statistics.wilson(round(sum(values)), len(values))
        reason = excluded[name] if excluded else ""
        rows.append(Row(name, group, found.value, found.low, found.high, found.n, reason))
    return tuple(sorted(rows, key=lambda row: (row.group, row.name)))


def _columns(ratings: Sequence[Rating]) -> tuple[list[float], list[str], list[str]]:
    """Values, raters and clips."""
    return [one.value for one in ratings], [one.rater for one in ratings], [one.clip for one in ratings]


def _successes(ratings: Sequence[Rating]) -> int:
    return round(sum(one.value for one in ratings))


def _paper(study: Study) -> Figure | None:
    if study.kind != REAL_OR_SYNTHETIC:
        return None
    interval = statistics.clopper_pearson(PAPER_CORRECT, PAPER_RATINGS)
    note = "correct; exact interval, unclustered"
    return Figure(PAPER, PAPER_CORRECT / PAPER_RATINGS, *interval, PAPER_RATINGS, note)
