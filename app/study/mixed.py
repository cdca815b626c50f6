"""Mixed-effects models with raters and clips as crossed random effects (statsmodels)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats
from scipy.special import expit

from audiolm.intervals import Z_95

_START_SD = np.exp(-0.5)  # statsmodels' own start varies at random around it, and so would the last digits
MAX_RATINGS = 2000  # a linear model of crossed effects takes minutes beyond
"""Of a linear model; the logistic one has no limit."""


@dataclass(frozen=True)
class MixedRate:
    """Logistic model of a rate: the rate of an average rater with an average clip, and how raters and clips differ.

    `rater_sd` and `clip_sd` are on the scale of log odds. `p_value` is that of a rate of one half (Wald).
    """

    rate: float
    low: float
    high: float
    p_value: float
    rater_sd: float
    clip_sd: float


@dataclass(frozen=True)
class MixedMeans:
    """Linear model of scores: each condition's mean with its interval, and the standard deviations of the effects."""

    means: tuple[tuple[str, float, float, float], ...]
    rater_sd: float
    clip_sd: float
    residual_sd: float


def mixed_rate(correct: Sequence[bool], raters: Sequence[str], clips: Sequence[str]) -> MixedRate | None:
    """Bayesian mixed logistic regression, fitted variationally; None where it cannot be.

    A variational fit gives the variance of the intercept with the random effects held where they are; that of the mean
    of the effects drawn, sd^2 / number of clusters, is added for raters and for clips.
    """
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM  # takes a second: for owners only

    if len(set(correct)) < 2 or min(len(set(raters)), len(set(clips))) < 2:
        return None
    design = sparse.hstack([_dummies(raters), _dummies(clips)]).tocsr()
    ident = np.repeat([0, 1], [len(set(raters)), len(set(clips))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = BinomialBayesMixedGLM(np.asarray(correct, dtype=float), np.ones((len(correct), 1)), design, ident)
        fitted = model.fit_vb(sd=np.full(model.k_fep + model.k_vcp + model.k_vc, _START_SD))
    rater_sd, clip_sd = (float(value) for value in np.exp(fitted.vcp_mean))
    mean = float(fitted.fe_mean[0])
    variance = float(fitted.fe_sd[0]) ** 2 + rater_sd**2 / len(set(raters)) + clip_sd**2 / len(set(clips))
    if not np.isfinite([mean, variance]).all():
        return None
    low, middle, high = (float(expit(mean + z * variance**0.5)) for z in (-Z_95, 0.0, Z_95))
    return MixedRate(middle, low, high, 2.0 * float(stats.norm.sf(abs(mean) / variance**0.5)), rater_sd, clip_sd)


def mixed_means(
    scores: Sequence[float], conditions: Sequence[str], raters: Sequence[str], clips: Sequence[str]
) -> MixedMeans | None:
    """Restricted maximum likelihood; None where it does not converge, or beyond MAX_RATINGS."""
    import pandas
    from statsmodels.regression.mixed_linear_model import MixedLM

    if len(scores) > MAX_RATINGS or min(len(set(raters)), len(set(clips))) < 2 or len(set(scores)) < 2:
        return None
    table = pandas.DataFrame({"score": scores, "condition": conditions, "rater": raters, "clip": clips})
    effects = {"rater": "0 + C(rater)", "clip": "0 + C(clip)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = MixedLM.from_formula(
                "score ~ 0 + C(condition)", table, groups=np.ones(len(table)), vc_formula=effects
            )
            fitted = model.fit(reml=True)
        except (np.linalg.LinAlgError, ValueError):
            return None
    if not fitted.converged or not np.isfinite(fitted.bse_fe).all():
        return None
    names = sorted(set(conditions))
    rows = zip(names, fitted.fe_params, fitted.bse_fe, strict=True)
    means = tuple((name, float(mean), float(mean - Z_95 * se), float(mean + Z_95 * se)) for name, mean, se in rows)
    by_name = dict(zip(model.exog_vc.names, fitted.vcomp, strict=True))
    rater_sd, clip_sd = (float(by_name[name]) ** 0.5 for name in ("rater", "clip"))
    return MixedMeans(means, rater_sd, clip_sd, float(fitted.scale) ** 0.5)


def _dummies(names: Sequence[str]) -> sparse.csr_matrix:
    """[n, G] with a one in the column of each rating's cluster."""
    groups = np.unique(np.asarray(names), return_inverse=True)[1]
    return sparse.csr_matrix((np.ones(len(groups)), (np.arange(len(groups)), groups)))
