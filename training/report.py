"""What a training run says in a few figures: for a terminal and for a program."""

from typing import Any

from training.train import Trained
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
        "cohort": evidence.cohort.flow,
        "censored": evidence.censoring.censored,
        "weights_truncated": evidence.censoring.truncated,
        "outcome": list(card.target.outcome),
        "outcome_definition": card.target.definition,
        "outcomes_found_by": evidence.cohort.found_by,
        "horizon": card.target.horizon,
        "features": list(card.features),
        "dropped": evidence.dropped,
        "trees": evidence.grown.rounds,
        "leaves": evidence.grown.trees.num_leaves,
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
    ]


def _figure(validation: Validation, name: str) -> str:
    return str(validation.metrics[name])


def _signed(estimate: Estimate) -> str:
    return f"{estimate.estimate:+.3f} ({estimate.lower:+.3f} to {estimate.upper:+.3f})"


def _temporal(temporal: Validation | str) -> str:
    return temporal if isinstance(temporal, str) else _figure(temporal, "auroc")
