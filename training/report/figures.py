"""What a training run says in a few figures: for a terminal and for a program."""

from typing import Any

from training.clusters import Clusters
from training.rivals import Rival
from training.train import Evidence, Trained
from training.validate import Estimate, Validation


def summary(trained: Trained) -> dict[str, Any]:
    """Return the figures of a training run, as JSON would hold them.

    Each figure has `estimate`, `lower` and `upper`. All are out of fold by person, but for those under `temporal`.
    """
    evidence, card = trained.evidence, trained.model.card
    return {
        **evidence.validation.as_dict(),
        "logistic": evidence.logistic.as_dict(),
        "auroc_gain_over_logistic": evidence.gain.as_dict(),
        "temporal": evidence.temporal if isinstance(evidence.temporal, str) else evidence.temporal.as_dict(),
        "time_dependent_auc": _over_time(evidence),
        "rivals": {rival.name: _rival(rival) for rival in evidence.rivals},
        "clusters": _clusters(evidence.clusters),
        "leak_alarms": [alarm.message for alarm in evidence.alarms],
        "learning_curve": evidence.learning.said if evidence.learning else None,
        "cohort": evidence.cohort.flow,
        "censored": evidence.censoring.censored,
        "weights_truncated": evidence.censoring.truncated,
        "outcome": list(card.target.outcome),
        "outcome_definition": card.target.definition,
        "outcomes_found_by": evidence.cohort.found_by,
        "horizon": card.target.horizon,
        "features": list(card.features),
        "dropped": evidence.dropped,
        "trees": evidence.grown.recipe.rounds,
        "leaves": evidence.grown.recipe.trees.num_leaves,
        "linear_partner": evidence.grown.recipe.partner,
        "fingerprint": card.fingerprint,
        "synthetic": card.synthetic,
    }


def lines(trained: Trained) -> list[tuple[str, str]]:
    """Return the figures that a reader looks for first, each with what it is called."""
    evidence = trained.evidence
    validation = evidence.validation
    return [
        ("rows, residents, outcomes", f"{validation.n:,}, {validation.residents:,}, {validation.events:,}"),
        ("AUROC", _figure(validation, "auroc")),
        ("  logistic regression", _figure(evidence.logistic, "auroc")),
        ("  difference", _signed(evidence.gain)),
        ("average precision", _figure(validation, "average_precision")),
        ("scaled Brier", _figure(validation, "scaled_brier")),
        ("calibration slope", _figure(validation, "calibration_slope")),
        ("observed / expected", _figure(validation, "observed_to_expected")),
        ("AUROC, temporal hold-out", _temporal(evidence.temporal)),
        ("leak alarms", str(len(evidence.alarms) or "none")),
    ]


def _figure(validation: Validation, name: str) -> str:
    return str(validation.metrics[name])


def _signed(estimate: Estimate) -> str:
    return f"{estimate.estimate:+.3f} ({estimate.lower:+.3f} to {estimate.upper:+.3f})"


def _temporal(temporal: Validation | str) -> str:
    return temporal if isinstance(temporal, str) else _figure(temporal, "auroc")


def _over_time(evidence: Evidence) -> dict[str, dict[str, float | None]]:
    found = evidence.over_time
    by_day = {f"{days:g} days": auc.as_dict() for days, auc in zip(found.days, found.auc, strict=True)}
    return {**by_day, "mean": found.mean.as_dict()}


def _rival(rival: Rival) -> dict[str, Any]:
    shown = rival.raw or rival.recalibrated
    return {
        "computable": rival.computable,
        "auroc": shown.metrics["auroc"].as_dict() if shown else None,
        "difference": rival.difference.as_dict() if rival.difference else None,
        "verified": rival.verified,
    }


def _clusters(clusters: Clusters | str) -> str | dict[str, Any]:
    if isinstance(clusters, str):
        return clusters
    pooled = clusters.auroc
    prediction = {"lower": pooled.lower, "upper": pooled.upper}
    return {"auroc": pooled.mean.as_dict(), "prediction_interval": prediction, "i2": pooled.i2}
