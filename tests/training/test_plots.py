"""The pictures of a training run show its numbers."""

import io
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from features.cohort import Target
from training.fit import Rows
from training.plots import (
    beeswarm,
    calibration,
    clusters,
    decision,
    draw_all,
    label_of,
    observed_interval,
    roc,
    subgroups,
)
from training.train import Trained
from training.validate import calibration_curve, calibration_line

DRAWN = (roc, calibration, decision, beeswarm, subgroups)
PLOTS = pytest.mark.parametrize("draw", DRAWN, ids=[draw.__name__ for draw in DRAWN])


def with_card(trained: Trained, **changes: object) -> Trained:
    return replace(trained, model=replace(trained.model, card=replace(trained.model.card, **changes)))


def known(trained: Trained) -> tuple[Rows, np.ndarray]:
    """The rows with a known outcome, and their risks."""
    rows = trained.evidence.rows
    return rows.take(rows.known), trained.evidence.grown.risk[rows.known]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def picture(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=50)
    return file.getvalue()


def rows_of(table: str) -> tuple[Rows, np.ndarray]:
    """Read a drawn table of person, outcome, weight and risk."""
    person, outcome, weight, risk = np.array([line.split("|") for line in table.strip().splitlines()[1:]], float).T
    return Rows((), np.empty((len(risk), 0), np.float32), outcome, weight, person.astype(np.int64)), risk


def test_every_picture_is_written_at_six_by_five_inches(small_trained, tmp_path):
    draw_all(small_trained, tmp_path / "plots")
    shapes = {path.name: imread(path).shape[:2] for path in (tmp_path / "plots").iterdir()}
    # The small store has no townships, and so no clusters to leave out.
    assert shapes == dict.fromkeys((f"{draw.__name__}.png" for draw in DRAWN), (5 * 150, 6 * 150))


@PLOTS
def test_a_title_says_what_was_predicted_for_whom_and_how_well(small_trained, draw):
    validation = small_trained.evidence.validation
    said = f"n = {validation.n:,}, events = {validation.events:,}, AUROC {validation.metrics['auroc']}"
    assert draw(small_trained).get_suptitle() == f"Hypertension within 5 years\n{said}"


@pytest.mark.parametrize(
    ("horizon", "said"), [("1y", "1 year"), ("4 y", "4 years"), ("6mo", "6 months"), ("1.5y", "1.5 years")]
)
def test_a_title_says_the_horizon_in_words(small_trained, horizon, said):
    target: Target = replace(small_trained.model.card.target, horizon=horizon, label_en="", name="fall")
    assert roc(with_card(small_trained, target=target)).get_suptitle().startswith(f"Fall within {said}\n")


@PLOTS
def test_simulated_records_are_stamped_as_such_and_others_are_not(small_trained, draw):
    assert "SYNTHETIC DATA" in words(draw(with_card(small_trained, synthetic=True)))
    assert "SYNTHETIC DATA" not in words(draw(with_card(small_trained, synthetic=False)))


@PLOTS
def test_a_picture_is_the_same_twice_and_leaves_nothing_behind(small_trained, draw):
    np.random.seed(1)  # noqa: NPY002
    first = picture(draw(small_trained))
    assert np.random.random() == np.random.RandomState(1).random()  # noqa: NPY002
    assert picture(draw(small_trained)) == first
    assert plt.get_fignums() == []


def test_the_area_under_the_curve_drawn_is_the_auroc(small_trained):
    curve = roc(small_trained).axes[0].lines[1]
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert area == pytest.approx(small_trained.evidence.validation.metrics["auroc"].estimate)


def test_calibration_draws_ten_groups_and_says_slope_and_observed_to_expected(small_trained):
    rows, risk = known(small_trained)
    above, _ = calibration(small_trained).axes
    points = above.containers[0].lines[0]
    curve = calibration_curve(rows.outcome, risk, rows.weight, 10)
    assert len(curve.risk) == 10
    assert np.array_equal(points.get_xdata(), curve.risk)
    assert np.array_equal(points.get_ydata(), curve.observed)
    slope = calibration_line(rows.outcome, risk, rows.weight).slope
    assert above.texts[0].get_text().startswith(f"slope {slope:.3f} (")


def test_the_distribution_counts_every_row_by_its_outcome(small_trained):
    evidence = small_trained.evidence
    outcome, risk = known(small_trained)[0].outcome, evidence.grown.risk / 10
    risk[np.flatnonzero(evidence.rows.known)[0]] = 0.99  # beyond the end of the axis
    drawn = replace(small_trained, evidence=replace(evidence, grown=replace(evidence.grown, risk=risk)))
    _, below = calibration(drawn).axes
    with_outcome, without = ([bar.get_height() for bar in bars] for bars in below.containers)
    assert below.get_xlim()[1] < 0.99
    # Matplotlib stacks one on the other by moving the bars up, not by making them higher.
    assert (sum(with_outcome), sum(without)) == (outcome.sum(), (1 - outcome).sum())


def test_the_interval_of_independent_rows_is_wilson_s():
    """3 of 10: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n) = 0.1078 and 0.6032."""
    table = "person | outcome | weight | risk\n" + "\n".join(f"{i} | {int(i < 3)} | 1 | 0.3" for i in range(10))
    rows, risk = rows_of(table)
    lower, upper = observed_interval(calibration_curve(rows.outcome, risk, rows.weight), rows, risk)
    assert (lower[0], upper[0]) == pytest.approx((0.1078, 0.6032), abs=1e-4)


def test_rows_of_one_person_count_as_one_in_the_interval():
    once = [f"{i} | {int(i < 3)} | 1 | 0.{1 + i % 2}" for i in range(10)]
    head = "person | outcome | weight | risk"
    for lines in (once, once * 4):
        rows, risk = rows_of("\n".join([head, *lines]))
        interval = observed_interval(calibration_curve(rows.outcome, risk, rows.weight, 2), rows, risk)
        # 2 of 5 and 1 of 5, each as for five independent rows
        assert np.array(interval) == pytest.approx(np.array([[0.1176, 0.0362], [0.7693, 0.6245]]), abs=1e-4)


def test_a_group_without_outcomes_has_an_interval_all_the_same():
    """0 of 8: from 0 to z²/(n + z²) = 0.3244."""
    rows, risk = rows_of("person | outcome | weight | risk\n" + "\n".join(f"{i} | 0 | 1 | 0.1" for i in range(8)))
    lower, upper = observed_interval(calibration_curve(rows.outcome, risk, rows.weight), rows, risk)
    assert (lower[0], upper[0]) == pytest.approx((0.0, 0.3244), abs=1e-4)


def test_the_beeswarm_names_the_strongest_features_in_plain_english(small_trained):
    model, (rows, _) = small_trained.model, known(small_trained)
    strength = np.abs(model.contributions(rows.matrix.astype(float))).mean(axis=0)
    strongest = [label_of(model.card.features[place]) for place in np.argsort(-strength)[:5]]
    axes = beeswarm(small_trained).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()][::-1][:5] == strongest
    assert "systolic blood pressure, latest" in strongest
    assert f"({len(rows.outcome):,} rows)" in axes.get_xlabel()


@pytest.mark.parametrize(
    ("feature", "label"),
    [
        ("sbp_mean_1y", "systolic blood pressure, mean, 1y"),
        ("hba1c_latest", "HbA1c, latest"),
        ("county_clinic_distance", "county clinic distance"),
    ],
)
def test_a_feature_is_named_as_one_says_it(feature, label):
    assert label_of(feature) == label


def test_the_decision_curve_draws_the_model_its_rivals_treat_all_and_treat_none(small_trained):
    curve, axes = small_trained.evidence.decision, decision(small_trained).axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) >= {"model", "Logistic regression with splines", "treat all", "treat none"}
    assert np.array_equal(lines["model"].get_ydata(), curve.net_benefit["model"])
    assert np.array_equal(lines["treat all"].get_ydata(), curve.treat_all)


def test_a_subgroup_stands_where_its_auroc_is(small_trained):
    measured = [each.metrics["auroc"] for each in small_trained.evidence.subgroups if each.metrics]
    drawn = subgroups(small_trained).axes[0].containers[0].lines[0].get_xdata()
    assert list(drawn) == [each.estimate for each in measured if np.isfinite(each.estimate)]


def test_without_clusters_there_is_no_picture_of_them(small_trained):
    without = replace(small_trained, evidence=replace(small_trained.evidence, clusters="There is one township."))
    assert clusters(without) is None
