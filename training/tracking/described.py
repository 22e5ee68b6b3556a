"""A training run in MLflow's terms: parameters, metrics, tags, the data it read, and notes that one can read."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite

from mlflow.entities import Dataset, DatasetInput, InputTag

from features.cohort import Target
from training.tracking.code_version import git_commit, package_version
from training.train import Evidence, Trained
from training.validate import Estimate, Validation

# MLflow shows what stands under these names: a page of text, and where the code came from.
NOTE = "mlflow.note.content"
SOURCE = {"mlflow.source.name": "weibing train", "mlflow.source.type": "LOCAL"}
COMMIT = "mlflow.source.git.commit"
USER = "mlflow.user"
TABLES = "mlflow.loggedArtifacts"
# Without it MLflow opens an experiment as one with language models.
KIND = ("mlflow.experimentKind", "custom_model_development")
CONTEXT = "mlflow.data.context"

SYNTHETIC = "**SYNTHETIC DATA**: these figures describe simulated residents and say nothing of real ones."


def parameters_of(trained: Trained) -> dict[str, object]:
    """Return what went into a training run."""
    card, grown = trained.model.card, trained.evidence.grown
    return {
        **_declared(card.target),
        **asdict(grown.recipe.trees),
        "rounds": grown.recipe.rounds,
        "linear_partner": grown.recipe.partner,
        "ridge": grown.recipe.ridge,
        "seed": grown.seed,
        "folds": len(grown.folds),
        "features": len(card.features),
        "fingerprint": card.fingerprint,
        "profile_version": card.profile_version,
        "vocabulary_version": card.vocabulary_version,
        "weibing_version": package_version(),
        "git_commit": git_commit() or "no checkout",
    }


def metrics_of(evidence: Evidence) -> dict[str, float]:
    """Return what came out of a training run, intervals as `…_lower` and `…_upper`, and nothing that is not defined."""
    numbers = {
        "rows": float(evidence.validation.n),
        "residents": float(evidence.validation.residents),
        "events": float(evidence.validation.events),
        "censored": float(evidence.censoring.censored),
        "truncated": float(evidence.censoring.truncated),
    }
    for name, estimate in _estimates(evidence):
        numbers |= {name: estimate.estimate, f"{name}_lower": estimate.lower, f"{name}_upper": estimate.upper}
    return {name: number for name, number in numbers.items() if isfinite(number)}


def tags_of(trained: Trained, user: str) -> dict[str, str]:
    """Return what MLflow lists a run by, and the page that it shows of it."""
    card = trained.model.card
    said = {
        "target": card.target.name,
        "fingerprint": card.fingerprint,
        "synthetic": str(card.synthetic).lower(),
        USER: user,
        NOTE: note_of(trained),
        **SOURCE,
    }
    commit = git_commit()
    return said | {COMMIT: commit.removesuffix("+changes")} if commit else said


def note_of(trained: Trained) -> str:
    """Return the main figures of a run as a short page of Markdown."""
    # The report imports what draws, which a service that only loads models never needs.
    from training import report  # noqa: PLC0415

    card = trained.model.card
    table = [f"| {name.strip()} | {figure} |" for name, figure in report.lines(trained)]
    parts = [
        f"### {_title(card.target)}",
        *([SYNTHETIC] if card.synthetic else []),
        "\n".join(["| out of fold, by person | estimate (95 % interval) |", "|---|---|", *table]),
        f"Fitted by {card.recipe.said}, on {len(card.features)} features.",
        "\n".join(f"- outcome: {line}" for line in card.target.definition),
        "The report is among the artifacts, in English (`report/en.html`) and Chinese (`report/zh.html`).",
    ]
    return "\n\n".join(parts)


def note_of_target(target: Target) -> str:
    """Return what a target predicts, as a short page of Markdown."""
    rows = [f"| {name} | {said} |" for name, said in _declared(target).items()]
    definition = "\n".join(f"- outcome: {line}" for line in target.definition)
    table = "\n".join(["| declared | |", "|---|---|", *rows])
    meaning = "A run is one training; of the models, the champion serves."
    return "\n\n".join([f"### {_title(target)}", definition, table, meaning])


def dataset_of(trained: Trained, store: str) -> DatasetInput:
    """Return the training rows as MLflow lists them: their fingerprint, columns and number."""
    card, rows = trained.model.card, trained.evidence.rows
    columns = [{"type": "float", "name": name, "required": False} for name in card.features]
    counts = {
        "num_rows": int(rows.known.sum()),
        "num_elements": int(rows.known.sum()) * len(card.features),
        "residents": trained.evidence.validation.residents,
        "events": trained.evidence.validation.events,
        "synthetic": card.synthetic,
    }
    described = Dataset(
        name=store,
        digest=card.fingerprint,
        source_type="local",
        source=json.dumps({"uri": store}, ensure_ascii=False),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(counts),
    )
    return DatasetInput(described, [InputTag(CONTEXT, "training")])


def _estimates(evidence: Evidence) -> Iterator[tuple[str, Estimate]]:
    """Yield every figure that has an interval, by the name under which it is kept."""
    yield from _named("", evidence.validation)
    yield "gain", evidence.gain
    yield "auroc_over_time", evidence.over_time.mean
    if not isinstance(evidence.clusters, str):
        yield "clusters_auroc", evidence.clusters.auroc.mean
        yield "clusters_observed_to_expected", evidence.clusters.observed_to_expected.mean
    for rival in evidence.rivals:
        if rival.difference is not None:
            yield f"rivals/{rival.name}/auroc_of_the_model_minus_its", rival.difference
    yield from _named("logistic_", evidence.logistic)
    if isinstance(evidence.temporal, Validation):
        yield from _named("temporal_", evidence.temporal)


def _named(prefix: str, validation: Validation) -> Iterator[tuple[str, Estimate]]:
    for name, estimate in validation.metrics.items():
        yield f"{prefix}{name}", estimate


def _title(target: Target) -> str:
    label = target.label_en or target.name
    chinese = f" ({target.label_zh})" if target.label_zh else ""
    return f"{label[:1].upper()}{label[1:]}{chinese} within {target.horizon}"


def _declared(target: Target) -> Mapping[str, str]:
    """Say what a target declares in words, by the names of the targets file; what it leaves open is left out."""
    words = {
        "target": target.name,
        "outcome": _said(target.outcome),
        "horizon": target.horizon,
        "index": "; ".join(f"{name} {_said(value)}" for name, value in asdict(target.index).items() if value),
        "age": _range(*target.age),
        "present": _said(target.present),
        "absent": _said(target.absent),
        "latest": "; ".join(f"{limit.concept} {_range(limit.at_least, limit.below)}" for limit in target.limits),
        "recurrent": str(target.recurrent),
        "increasing": _said(target.increasing),
        "decreasing": _said(target.decreasing),
        "tiers": _said(target.tiers),
    }
    return {name: said for name, said in words.items() if said}


def _range(at_least: float, below: float) -> str:
    return f"[{at_least:g}, {below:g})"


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
