"""What a run keeps beside its model: the evidence, for people, for programs, and for the rule that promotes.

held_out.json         what the rule of promotion looks at, and out_of_fold.parquet the rows of it
out_of_fold.parquet   subject_id, index_time, outcome, weight, risk of the held-out residents, and their groups
validation.json, cohort.json, features.json
tables/               subgroups, clusters, rivals, alarms
plots/, report/       pictures; the report in English and Chinese
"""

import json
from dataclasses import asdict
from pathlib import Path

import polars as pl
from pydantic import TypeAdapter

from training.promotion import KEYS, HeldOut, Shown
from training.tracking.model_files import digest_of_files
from training.tracking.tables import FOLDER, write_tables
from training.train import Evidence, Trained

LANGUAGES = ("en", "zh")
OUT_OF_FOLD = "out_of_fold.parquet"
HELD_OUT = "held_out.json"
REPORT = "report"


def held_out(trained: Trained, version: str) -> HeldOut:
    """Return what a trained model shows of itself on people that it had not seen."""
    return HeldOut(**vars(shown_by(trained)), version=version, rows=_out_of_fold(trained))


def read_held_out(folder: Path, version: str) -> HeldOut:
    """Read what a run kept for the rule of promotion.

    Raises
    ------
    OSError, ValueError
        If a file is missing or damaged.
    """
    shown = TypeAdapter(Shown).validate_json((folder / HELD_OUT).read_text(encoding="utf-8"))
    try:
        rows = pl.read_parquet(folder / OUT_OF_FOLD)
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from error
    return HeldOut(**vars(shown), version=version, rows=rows)


def digest_of_evidence(folder: Path) -> str:
    """Return a fingerprint of what the rule of promotion looks at."""
    return digest_of_files(folder, [folder / HELD_OUT, folder / OUT_OF_FOLD])


def write_evidence(trained: Trained, folder: Path) -> str:
    """Write a run's evidence into a folder.

    Returns
    -------
    the digest of what the rule of promotion looks at
    """
    # Drawing needs seconds to import what a service that only loads models never uses.
    from training.plots import draw_all  # noqa: PLC0415
    from training.report.page import page  # noqa: PLC0415

    evidence = trained.evidence
    _out_of_fold(trained).write_parquet(folder / OUT_OF_FOLD)
    _write(folder / HELD_OUT, asdict(shown_by(trained)))
    _write(folder / "features.json", _features(trained))
    _write(folder / "cohort.json", _cohort(evidence))
    _write(folder / "validation.json", _validation(evidence))
    write_tables(evidence, folder / FOLDER)
    draw_all(trained, folder / "plots")
    (folder / REPORT).mkdir()
    for language in LANGUAGES:
        (folder / REPORT / f"{language}.html").write_text(page(trained, language), encoding="utf-8")
    return digest_of_evidence(folder)


def shown_by(trained: Trained) -> Shown:
    """Return what a trained model shows of itself."""
    card, evidence = trained.model.card, trained.evidence
    return Shown(
        card.target,
        tuple(card.target.definition),
        card.synthetic,
        evidence.validation.metrics,
        evidence.subgroups,
        tuple(alarm.message for alarm in evidence.alarms),
    )


def _out_of_fold(trained: Trained) -> pl.DataFrame:
    sample, weight = trained.evidence.sample, pl.Series("weight", trained.evidence.sample.weight)
    rows = sample.cohort.rows.select(KEYS).with_columns(
        pl.when(weight > 0).then(pl.Series("outcome", sample.outcome)).alias("outcome"),
        weight,
        pl.Series("risk", trained.evidence.grown.risk),
    )
    return rows.hstack(sample.groups)


def _features(trained: Trained) -> dict[str, object]:
    card = trained.model.card
    used = [{"feature": name, "concept": of} for name, of in zip(card.features, card.concepts, strict=True)]
    return {"used": used, "dropped": trained.evidence.dropped}


def _cohort(evidence: Evidence) -> dict[str, object]:
    censoring = evidence.censoring
    counts = {name: getattr(censoring, name) for name in ("known", "censored", "truncated", "smallest_probability")}
    found_by = evidence.cohort.found_by
    return {"flow": evidence.cohort.flow, "outcomes_found_by": found_by, "censoring": counts}


def _validation(evidence: Evidence) -> dict[str, object]:
    temporal, clusters = evidence.temporal, evidence.clusters
    return {
        "out_of_fold": evidence.validation.as_dict(),
        "logistic": evidence.logistic.as_dict(),
        "gain": evidence.gain.as_dict(),
        "temporal": temporal if isinstance(temporal, str) else temporal.as_dict(),
        "clusters": clusters if isinstance(clusters, str) else "tables/clusters.json",
        "learning": evidence.learning.said if evidence.learning else "",
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
