"""Evidence as tables that MLflow shows and any program reads: `{"columns": [...], "data": [[...], ...]}`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import isnan
from pathlib import Path

import numpy as np

from training.rivals import Rival
from training.subgroups import Subgroup
from training.train import Evidence
from training.validate import DecisionCurve, Estimate, Validation

Cell = str | float | None
FOLDER = "tables"


def write_tables(evidence: Evidence, folder: Path) -> None:
    """Write the tables of a run's evidence into a folder; what the run could not have has none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in _tables(evidence):
        cells = [dict(_cells("", row)) for row in rows]
        columns = list(dict.fromkeys(name for row in cells for name in row))
        table = {"columns": columns, "data": [[row.get(name) for name in columns] for row in cells]}
        (folder / f"{name}.json").write_text(json.dumps(table, ensure_ascii=False) + "\n", encoding="utf-8")


def _tables(evidence: Evidence) -> Iterator[tuple[str, Sequence[object]]]:
    yield "subgroups", [_without_few(each) for each in evidence.subgroups]
    yield "rivals", evidence.rivals
    yield "decision_of_rivals", [row for rival in evidence.rivals for row in _decision_of(rival)]
    yield "alarms", evidence.alarms
    yield "auroc_over_time", _side_by_side(evidence.over_time, ("days", "auc"))
    yield "calibration_curve", _side_by_side(evidence.calibration, ("risk", "observed", "lower", "upper"))
    yield "decision_curve", _decision_curve(evidence.decision)
    if not isinstance(evidence.clusters, str):
        pooled = {name: getattr(evidence.clusters, name) for name in ("auroc", "observed_to_expected", "slope")}
        yield "clusters", evidence.clusters.each
        yield "clusters_pooled", [{"figure": name, "pooled": each} for name, each in pooled.items()]
    if evidence.tuned is not None:
        yield "trials", evidence.tuned.trials.to_dicts()
    if evidence.learning is not None:
        yield "learning_curve", _side_by_side(evidence.learning, ("persons", "auroc", "log_loss"))


def _side_by_side(curve: object, names: Sequence[str]) -> list[dict[str, object]]:
    """Return the points of a curve, of which each column is kept apart."""
    columns = [getattr(curve, name) for name in names]
    return [dict(zip(names, point, strict=True)) for point in zip(*columns, strict=True)]


def _decision_curve(curve: DecisionCurve) -> list[dict[str, object]]:
    """Return a row a threshold: the net benefit of each, with its interval, and of calling everyone."""
    each = {
        **{name: (curve.net_benefit[name], curve.lower[name], curve.upper[name]) for name in curve.net_benefit},
        "everyone": (curve.treat_all, curve.treat_all_lower, curve.treat_all_upper),
    }
    return [
        {"threshold": threshold} | {name: Estimate(*(column[place] for column in of)) for name, of in each.items()}
        for place, threshold in enumerate(curve.thresholds.tolist())
    ]


def _decision_of(rival: Rival) -> list[dict[str, object]]:
    """Return a row a threshold: the net benefit of the model and of a rival on the rows where that can be computed."""
    if rival.decision is None:
        return []
    rows = _decision_curve(rival.decision)
    return [
        {"rival": rival.name} | {"rivals" if name == rival.name else name: of for name, of in row.items()}
        for row in rows
    ]


def _without_few(subgroup: Subgroup) -> Subgroup | dict[str, str]:
    """Keep of a group that could tell who is in it no more than that it is too small."""
    if subgroup.metrics is not None:
        return subgroup
    return {"grouping": subgroup.grouping, "value": subgroup.value, "reason": subgroup.reason}


def _cells(name: str, value: object) -> Iterator[tuple[str, Cell]]:
    """Yield the cells of a row: an estimate is three, what has parts has theirs, and arrays are none."""
    if isinstance(value, Estimate):
        for end, number in value.as_dict().items():
            yield (name if end == "estimate" else f"{name}_{end}"), number
    elif isinstance(value, Validation):
        yield from _cells(name, {"n": value.n, "events": value.events} | value.metrics)
    elif isinstance(value, Mapping):
        for part, inner in value.items():
            yield from _cells(f"{name}_{part}" if name and name not in SPREAD else part, inner)
    elif is_dataclass(value):
        yield from _cells(name, {field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, np.number):
        yield from _cells(name, value.item())
    elif isinstance(value, float):
        yield name, None if isnan(value) else value
    elif isinstance(value, str | int):
        yield name, value


# Whose parts are columns under their own names.
SPREAD = ("metrics",)
