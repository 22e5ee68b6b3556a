"""The command line as its users meet it."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from serving import terminal
from training.promotion import decide
from training.tracking import Registered, Registry
from training.tracking.evidence import held_out
from training.train import Trained
from training.validate import Estimate
from weibing import app, main

TARGETS = """
[fall]
index = { every = "1y" }
age = [60, inf]
"""

MAPPING = """
timezone = "Asia/Shanghai"

[[table]]
file = "*.csv"
resident = "id"
time = { column = "day" }
value = [{ column = "sbp", code = "sbp", unit = "mmHg" }]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a simulated county and a registry with a champion for falls."""
    home = tmp_path_factory.mktemp("home")
    (home / "targets.toml").write_text(TARGETS, encoding="utf-8")
    run("simulate", home / "county", "--residents", 2500, "--years", 4, "--seed", 2)
    figures = ["--json", home / "figures.json", "--mlruns", home / "mlruns", "--targets", home / "targets.toml"]
    (home / "said.txt").write_text(run("train", home / "county", "fall", *figures), encoding="utf-8")
    return home


def run(*arguments: object) -> str:
    """Run a command in this process; return what it wrote to stdout."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def weibing(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a process of its own, which takes seconds to start."""
    command = [sys.executable, "-c", "import weibing; weibing.main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False)


def weibing_here(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, but in this process."""
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["weibing", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


def test_simulate_says_what_it_made(tmp_path):
    said = run("simulate", tmp_path / "county", "--residents", 300, "--years", 2)
    assert said.startswith("300 residents, ")
    assert "2023-01-01 to 2025-01-01" in said


def test_ingest_prints_a_report_and_writes_it_as_json(tmp_path):
    (tmp_path / "exams.csv").write_text("id,day,sbp\n7,2024-03-05,152\n7,2024-03-06,9999\n", encoding="utf-8")
    (tmp_path / "county.toml").write_text(MAPPING, encoding="utf-8")
    report = tmp_path / "report.json"
    paths = [tmp_path / "exams.csv", tmp_path / "store", "--mapping", tmp_path / "county.toml"]
    said = run("ingest", "table", *paths, "--json", report)
    assert "values outside the plausible range" in said
    assert json.loads(report.read_text(encoding="utf-8"))["events"]["written"] == 2


def test_ingest_needs_a_source_and_a_store(tmp_path):
    (tmp_path / "county.toml").write_text(MAPPING, encoding="utf-8")
    done = weibing_here("ingest", "table", "only_one", "--mapping", "county.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "Name one source or more, and last the store" in done.stderr


def test_profile_writes_a_row_a_resident_and_the_same_hash_twice(home):
    said = [run("profile", home / "county", "--at", "2023-01-01", "--out", home / "profiles.parquet") for _ in range(2)]
    assert said[0] == said[1]
    profiles = pl.read_parquet(home / "profiles.parquet")
    assert len(profiles) == 2500
    assert profiles["index_time"].unique().dt.strftime("%Y-%m-%dT%H:%M").to_list() == ["2022-12-31T16:00"]


def test_cohort_says_who_is_left_out_and_why(home):
    said = run("cohort", home / "county", "fall", "--out", home / "fall.parquet")
    rows = pl.read_parquet(home / "fall.parquet")
    assert f"{len(rows):,}  at risk" in said
    assert "age not at least 65" in said


def test_train_writes_its_figures_by_target(home):
    figures = json.loads((home / "figures.json").read_text(encoding="utf-8"))
    assert list(figures) == ["fall"]
    assert figures["fall"]["events"] > 50
    assert 0.5 < figures["fall"]["auroc"]["lower"] < figures["fall"]["auroc"]["estimate"] < 0.9
    assert figures["fall"]["synthetic"] is True


def test_train_shows_a_table_that_says_it_is_synthetic(home):
    said = (home / "said.txt").read_text(encoding="utf-8")
    assert "SYNTHETIC DATA" in said
    assert "logistic regression" in said
    assert "version 1, champion" in said
    assert "outcome: fall_found: fall_coded or fall_reported (" in said
    assert "found by: fall_" in said


def test_evaluate_measures_the_champion_on_a_store(home, tmp_path):
    out = tmp_path / "figures.json"
    said = run("evaluate", home / "county", "fall", "--mlruns", home / "mlruns", "--json", out)
    assert said.startswith("outcome: fall_found: fall_coded or fall_reported (")
    assert re.search("^ +as it is +recalibrated here$", said, re.MULTILINE)
    assert re.search(r"^auroc +0[.]\d+ \(.*\) +0[.]\d+ \(", said, re.MULTILINE)
    assert "These are the records that the model was trained on: the figures flatter it." in said
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["raw"]["auroc"]["estimate"] > 0.5
    assert figures["recalibrated"]["observed_to_expected"]["estimate"] == pytest.approx(1, abs=0.1)


def test_score_explain_and_promote_use_the_registry(home):
    at = ["--at", "2024-06-01", "--mlruns", home / "mlruns"]
    said = run("score", home / "county", "--out", home / "scores.parquet", *at)
    scores = pl.read_parquet(home / "scores.parquet")
    assert said.startswith(f"{len(scores):,} scores")
    top = scores.top_k(1, by="probability").row(0, named=True)
    explained = run("explain", home / "county", "fall", "--resident", top["subject_id"], *at)
    assert f"risk {top['probability']:.1%}" in explained
    assert "before anything is known" in explained
    assert run("promote", "fall", 1, "--mlruns", home / "mlruns") == "Version 1 of fall is the champion.\n"


def test_score_keeps_a_database_logs_every_shard_and_tells_what_it_did(home, tmp_path):
    places = ["--db", f"sqlite:///{tmp_path}/scores.db", "--out", tmp_path / "scores.parquet"]
    more = ["--at", "2024-06-01", "--mlruns", home / "mlruns", "--log", tmp_path / "log.jsonl", "--json", "-"]
    first, again = (json.loads(run("score", home / "county", *places, *more)) for _ in range(2))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["event"] for line in lines} == {"shard", "run", "duties"}
    assert first["scored"] == sum(first["tiers"]["fall"].values()) > 0
    assert again["scored"] + again["kept"] == first["scored"]
    assert (first["run"], again["run"]) == (1, 2)
    with sqlite3.connect(tmp_path / "scores.db") as database:
        [(known,)] = database.execute("SELECT count(*) FROM current_scores").fetchall()
    assert known == len(pl.read_parquet(tmp_path / "scores.parquet")) == first["scored"]


def test_score_sums_up_what_it_did_where_a_shard_could_not_be_read(home, tmp_path):
    shutil.copytree(home / "county", tmp_path / "county")
    [shard] = (tmp_path / "county" / "data").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:1000])
    places = ["--out", tmp_path / "scores.parquet", "--mlruns", home / "mlruns", "--at", "2024-06-01"]
    done = weibing("score", tmp_path / "county", *places, cwd=home)
    assert done.returncode == 1
    assert f"not scored, 1 of 1 pieces: The shard data/{shard.name} cannot be read" in done.stdout
    assert "weibing: 1 of 1 pieces could not be scored" in done.stderr
    assert "Traceback" not in done.stderr


def test_score_says_in_a_table_how_many_are_in_each_tier(home, tmp_path):
    at = ["--at", "2024-06-01", "--mlruns", home / "mlruns"]
    said = run("score", home / "county", "--out", tmp_path / "scores.parquet", *at)
    assert re.search(r"^[\d,]+ scores of [\d,]+ residents: [\d,]+ anew, 0 unchanged \(fall 1\)$", said, re.MULTILINE)
    assert re.search(r"fall +│ [\d,]+ +│ [\d,]+ +│ [\d,]+ +│ [\d,]+ +│", said)
    assert "moved up a tier 0, down 0; no longer scored 0" in said
    assert re.search(r"^not at risk of fall: .*age not at least 60 [\d,]+", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Say where the scores are to be kept"),
        (["--out", "x.parquet", "--workers", "2", "--cluster", "tcp://127.0.0.1:1"], "Choose one of --workers N and"),
        (["--db", "sqlite:///x.db", "--cluster", "tcp://127.0.0.1:1"], "SQLite is for one machine"),
    ],
)
def test_score_that_is_asked_for_wrongly_is_a_wrong_usage(home, options, sentence):
    done = weibing_here("score", "county", "--mlruns", "mlruns", *options, cwd=home)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())


def with_backward_slope(trained: Trained) -> Trained:
    """The same run, had its risks been the wrong way round."""
    validation = trained.evidence.validation
    metrics = validation.metrics | {"calibration_slope": Estimate(-0.04, -0.3, 0.2)}
    return replace(trained, evidence=replace(trained.evidence, validation=replace(validation, metrics=metrics)))


@pytest.fixture(scope="module")
def kept(small_trained, tmp_path_factory):
    """A registry with three versions: the champion, its like, and one that the rule refuses."""
    registry = Registry(tmp_path_factory.mktemp("kept") / "mlruns")
    for trained in (small_trained, small_trained, with_backward_slope(small_trained)):
        registry.log(trained)
    return registry.folder


@pytest.fixture
def mlruns(kept, tmp_path):
    """A copy of that registry."""
    shutil.copytree(kept, tmp_path / "mlruns")
    return ["--mlruns", tmp_path / "mlruns"]


def refused(*arguments: object, code: int = 1) -> tuple[str, str]:
    """Run a command that ends with a code other than 0; return what it wrote to stdout and stderr."""
    done = weibing_here(*arguments, cwd=Path.cwd())
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_promote_shows_every_check_and_rollback_goes_back(mlruns):
    said = run("promote", "hypertension", 2, "--reason", "newer", *mlruns).splitlines()
    assert said[0] == "Version 2 of hypertension, against the champion, version 1:"
    assert all(line.startswith("passed ") for line in said[1:-1])
    assert said[-1] == "Version 2 of hypertension is the champion."
    back = run("rollback", "hypertension", "--reason", "alerts doubled", *mlruns)
    assert back == "Version 1 of hypertension is the champion again, instead of version 2.\n"
    told = run("history", "hypertension", *mlruns).splitlines()
    assert [line.split("  ")[1].split(" by ")[0] for line in told] == [
        "version 1, first",
        "version 2 instead of 1, promoted",
        "version 1 instead of 2, rolled back",
    ]
    assert told[-1].endswith(": alerts doubled")
    assert "there is none to go back to" in refused("rollback", "hypertension", *mlruns)[1]


def test_promote_refuses_with_the_reasons_and_force_says_why(mlruns, tmp_path):
    out, err = refused("promote", "hypertension", 3, *mlruns, "--json", tmp_path / "decision.json")
    assert "REFUSED  calibration_slope" in out
    assert "Version 3 of hypertension is not promoted. On the held-out rows the calibration slope is -0.040" in err
    decision = json.loads((tmp_path / "decision.json").read_text(encoding="utf-8"))
    assert (decision["promoted"], decision["refused"]) == (False, ["calibration_slope"])
    assert "--reason TEXT" in refused("promote", "hypertension", 3, "--force", *mlruns, code=2)[1]
    forced = json.loads(run("promote", "hypertension", 3, "--force", "--reason", "pilot", *mlruns, "--json", "-"))
    assert (forced["promoted"], forced["refused"]) == (True, ["calibration_slope"])
    last = json.loads(run("history", "hypertension", *mlruns, "--json", "-"))["promotions"][-1]
    assert (last["version"], last["kind"], last["reason"]) == ("3", "forced", "pilot")
    assert last["against"] == ["calibration_slope"]


@pytest.mark.parametrize(("language", "tag"), [("en", '<html lang="en'), ("zh", '<html lang="zh')])
def test_report_writes_the_page_that_was_kept(mlruns, tmp_path, language, tag):
    out = tmp_path / "reports" / "page.html"
    said = run("report", "hypertension", 2, "--out", out, "--language", language, *mlruns)
    assert said == f"The report of version 2 of hypertension is in {out}\n"
    assert tag in out.read_text(encoding="utf-8")


def test_a_version_that_may_not_serve_is_said_aloud(small_trained, capsys):
    decision = decide(held_out(with_backward_slope(small_trained), "1"), None, replicates=20)
    terminal.say_whether_it_serves(Registered("run", "hypertension", "1", "challenger", decision))
    said = capsys.readouterr().out
    assert "REFUSED  calibration_slope" in said
    assert "nothing of hypertension is served" in said
    terminal.say_whether_it_serves(Registered("run", "hypertension", "2", "challenger"))
    assert "weibing promote hypertension 2" in capsys.readouterr().out
    terminal.say_whether_it_serves(Registered("run", "hypertension", "1", "champion", decision))
    assert capsys.readouterr().out == ""


def test_a_resident_who_is_not_at_risk_gets_the_reason(home):
    profiles = pl.read_parquet(home / "profiles.parquet") if (home / "profiles.parquet").exists() else None
    if profiles is None:
        run("profile", home / "county", "--at", "2023-01-01", "--out", home / "profiles.parquet")
        profiles = pl.read_parquet(home / "profiles.parquet")
    young = profiles.filter(pl.col("age").is_between(20, 30))["subject_id"][0]
    said = run(
        "explain", home / "county", "fall", "--resident", young, "--at", "2023-01-01", "--mlruns", home / "mlruns"
    )
    assert "age not at least 60" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cohort", "nowhere", "fall", "--out", "x.parquet"], "There is no event store at nowhere."),
        (["cohort", "county", "falls", "--out", "x.parquet"], 'There is no target "falls"'),
        (["profile", "county", "--at", "yesterday", "--out", "x.parquet"], '"yesterday" is not a date.'),
        (["score", "county", "--out", "x.parquet", "--mlruns", "empty"], "There is no champion in empty."),
        (["explain", "county", "fall", "--resident", "999999", "--mlruns", "mlruns"], "There is no resident 999999"),
    ],
)
def test_a_mistake_is_one_sentence_without_a_traceback_and_exit_code_1(home, arguments, sentence):
    done = weibing_here(*arguments, cwd=home)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_mistake_is_told_by_the_process_as_well(tmp_path):
    done = weibing("cohort", "nowhere", "fall", "--out", "x.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("weibing: There is no event store at nowhere.")
    assert "Traceback" not in done.stderr


def test_every_command_has_an_example_in_its_help():
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"Example: weibing {name}" in " ".join(run(name, "--help").split()), name
    for kind in ("table", "fhir", "omop", "meds"):
        assert f"Example: weibing ingest {kind}" in " ".join(run("ingest", kind, "--help").split())
    assert "Example: weibing vocabulary check" in " ".join(run("vocabulary", "check", "--help").split())


def test_help_answers_without_loading_the_models(tmp_path):
    code = "import sys, weibing; print(sorted({'lightgbm', 'mlflow', 'bentoml', 'polars'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
