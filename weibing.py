"""The command line: thin, one function a command, no logic.

Results go to stdout, messages to stderr. Exit 0; or 1 with one clear sentence; or 2 for wrong usage.
"""

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from features.errors import WeibingError

if TYPE_CHECKING:
    import polars as pl

    from features.events import EventStore
    from features.sources.table.identities import Who
    from serving.audit import Audit, Entry
    from serving.scoring.nightly import Walk
    from serving.scoring.run import Ledger
    from serving.security.accounts import Accounts

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)
ingest = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(ingest, name="ingest", help="Take records into an event store.")

vocabulary = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(vocabulary, name="vocabulary", help="What codes mean here.")

users = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(users, name="users", help="Who may come in: accounts, roles, API tokens.")

audit = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(audit, name="audit", help="What was done, by whom, with whose record.")


resident = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(resident, name="resident", help="Who residents are, and what they may ask for.")

panel = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(panel, name="panel", help="Who is under contract with which doctor.")


Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of an event store.")]
TargetName = Annotated[str, typer.Argument(metavar="TARGET", help="Name of a target.")]
TargetsFile = Annotated[Path | None, typer.Option("--targets", metavar="FILE.toml", help="Targets from a file.")]
Mlruns = Annotated[Path, typer.Option(envvar="WEIBING_MLRUNS", help="Folder of the MLflow registry.")]
At = Annotated[str | None, typer.Option("--at", metavar="DATE", help="Index time, in the store's zone. Default: now.")]
Parquet = Annotated[Path, typer.Option("--out", metavar="FILE.parquet", help="Where to write.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write it as JSON; - for stdout.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is written down.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]
Key = Annotated[
    str | None,
    typer.Option(metavar="VARIABLE|@FILE", help="Hash ids with the secret in this environment variable, or file."),
]
Crosswalk = Annotated[
    Path | None, typer.Option(metavar="FILE.csv", help="Who ids are: columns source, source_id, resident.")
]
Source = Annotated[str | None, typer.Option(metavar="NAME", help="The system that the records come from.")]
Db = Annotated[str, typer.Option("--db", metavar="URL", envvar="WEIBING_DB", help="The operational database.")]
Records = Annotated[
    Path | None, typer.Option("--store", metavar="STORE", envvar="WEIBING_STORE", help="Folder of the event store.")
]
ResidentId = Annotated[int, typer.Argument(metavar="ID", help="The resident's number in the event store.")]
PanelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a panel.")]
AccountName = Annotated[str, typer.Argument(metavar="NAME", help="Name of an account.")]

DEMO = Path("out", "demo")


@app.command()
def demo(
    residents: Annotated[int, typer.Option(min=2_000, help="How many residents to simulate.")] = 20_000,
    port: Annotated[int | None, typer.Option(help="Port of the service.")] = None,
    serve: Annotated[bool, typer.Option(help="Serve the models at the end.")] = True,
) -> None:
    """Go the whole way on a synthetic county: simulate, train, score, serve.

    Example: `weibing demo --residents 20000`
    """
    import polars as pl

    from features.events import EventStore
    from features.sources.county import simulate as simulate_county
    from serving import terminal
    from serving.demo import closing_day, first_night, settings_of
    from serving.service import serve as start_service
    from training.targets import TARGETS
    from training.tracking import Registry
    from training.train import train as train_model

    shutil.rmtree(DEMO, ignore_errors=True)
    registry = Registry(DEMO / "mlruns")
    with terminal.Progress() as progress:
        county = simulate_county(DEMO / "county", residents=residents, end=closing_day(_now()), progress=progress)
        store = EventStore.open(DEMO / "county")
        trained = [train_model(store, target, progress=progress) for target in TARGETS.values()]
        kept = []
        for each in trained:
            progress(f"{each.model.card.target.name}: keeping the run in {registry.folder.name}")
            kept.append(registry.log(each))
    terminal.say(f"\nThe models, trained on {county.residents:,} simulated residents and {county.events:,} events")
    terminal.show_models(trained)
    for made in kept:
        terminal.say_whether_it_serves(made)
    models = registry.champions()
    if not models:
        raise WeibingError("None of these models may serve, so there is nothing to score. Simulate more residents.")
    with terminal.Progress() as progress:
        furnished, done = first_night(store, DEMO, models, _now(), progress)
    terminal.say("")
    terminal.show_night(done.scored, synthetic=True)
    terminal.say(done.text())
    terminal.say("\nThe ten highest risks")
    terminal.show_scores(pl.read_parquet(DEMO / "scores.parquet").top_k(10, by="probability").to_dicts())
    terminal.say("\nMade-up people who may log in (POST /v1/session), and the passwords of their first login")
    terminal.show_passwords(furnished.passwords)
    if serve:
        start_service(settings_of(DEMO, port), token=furnished.token)


@app.command()
def simulate(
    store: Store,
    residents: Annotated[int, typer.Option(min=1, help="How many residents.")] = 20_000,
    years: Annotated[int, typer.Option(min=1, help="How many years of records.")] = 8,
    seed: Seed = 0,
    as_json: Json = None,
) -> None:
    """Make a synthetic county, with what is true of it beside it, and print its rates beside the published ones.

    See docs/county.md. Example: `weibing simulate out/county --residents 20000 --years 8 --seed 0`
    """
    from features.sources.county import ZONE
    from features.sources.county import simulate as simulate_county
    from features.sources.county.comparison import compare, summary, table
    from features.times import local_day
    from serving import terminal

    with terminal.Progress() as progress:
        county = simulate_county(store, residents=residents, years=years, seed=seed, progress=progress)
        progress("comparing with published rates")
        found = compare(store)
    start, end = (local_day(when, ZONE) for when in (county.start, county.end))
    made = f"{county.residents:,} residents, {county.events:,} events, {start} to {end}"
    counts = {"residents": county.residents, "events": county.events, "start": str(start), "end": str(end)}
    _result(f"{made}\n\n{table(found)}", {**counts, **summary(found)}, as_json)


@ingest.command("table")
def ingest_table(
    paths: Annotated[list[Path], typer.Argument(metavar="SOURCE… STORE", help="Tables, and last the store.")],
    mapping: Annotated[Path, typer.Option(metavar="FILE.toml", help="How the tables become events.")],
    source: Source = None,
    crosswalk: Crosswalk = None,
    key: Key = None,
    as_json: Json = None,
) -> None:
    """Take in tables (CSV, Excel, Parquet) as a mapping file says; see docs/records.md.

    Example: `weibing ingest table exams_*.csv out/county --mapping county.toml`
    """
    from features.sources.table import ingest_tables
    from serving import terminal

    _require_source_and_store(paths)
    with terminal.Progress() as progress:
        who = _who(source, crosswalk, key)
        found = ingest_tables(paths[:-1], paths[-1], mapping, who=who, progress=progress)
    _result(found.text(), found.as_dict(), as_json)


@ingest.command("fhir")
def ingest_fhir_export(
    paths: Annotated[list[Path], typer.Argument(metavar="SOURCE… STORE", help="Files or folders, and last the store.")],
    timezone: Annotated[str, typer.Option(help="Zone of dates without one, and of the store.")] = "Asia/Shanghai",
    identifier: Annotated[
        str | None, typer.Option(metavar="SYSTEM", help="A Patient is who the identifier of this system says.")
    ] = None,
    source: Source = None,
    crosswalk: Crosswalk = None,
    key: Key = None,
    as_json: Json = None,
) -> None:
    """Take in a FHIR R4 export (Bulk Data NDJSON, Bundles); see docs/fhir.md.

    Example: `weibing ingest fhir export/ out/hospital --timezone Asia/Shanghai`
    """
    from features.sources.fhir import ingest_fhir
    from serving import terminal

    _require_source_and_store(paths)
    with terminal.Progress() as progress:
        who = _who(source, crosswalk, key, identifier)
        found = ingest_fhir(paths[:-1], paths[-1], timezone=timezone, who=who, progress=progress)
    _result(found.text(), found.as_dict(), as_json)


@ingest.command("omop")
def ingest_omop_data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, zip file, or URL of a database.")],
    store: Store,
    timezone: Annotated[str, typer.Option(help="Zone of dates without one, and of the store.")] = "UTC",
    schema: Annotated[str | None, typer.Option(help="Schema of the database.")] = None,
    source_name: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="The system that the records come from.")
    ] = None,
    crosswalk: Crosswalk = None,
    key: Key = None,
    as_json: Json = None,
) -> None:
    """Take in an OMOP CDM 5.3 or 5.4 data set; see docs/omop.md.

    Example: `weibing ingest omop cdm.zip out/research`
    """
    from features.sources.omop import ingest_omop
    from serving import terminal

    with terminal.Progress() as progress:
        place = source if "://" in source else Path(source)
        who = _who(source_name, crosswalk, key)
        found = ingest_omop(place, store, timezone=timezone, schema=schema, who=who, progress=progress)
    _result(found.text(), found.as_dict(), as_json)


@ingest.command("meds")
def ingest_meds_data(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of a MEDS data set.")],
    store: Store,
    timezone: Annotated[str | None, typer.Option(help="Zone of the store. Default: the source's, or UTC.")] = None,
    source_name: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="The system that the records come from.")
    ] = None,
    crosswalk: Crosswalk = None,
    key: Key = None,
    as_json: Json = None,
) -> None:
    """Take in a MEDS data set; see docs/meds.md.

    Example: `weibing ingest meds other_store out/store`
    """
    from features.sources.meds import ingest_meds
    from serving import terminal

    with terminal.Progress() as progress:
        who = _who(source_name, crosswalk, key)
        found = ingest_meds(source, store, timezone=timezone, who=who, progress=progress)
    _result(found.text(), found.as_dict(), as_json)


@vocabulary.command("check")
def vocabulary_check(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A table with a column of codes, or a store.")],
    column: Annotated[str, typer.Option(help="The column of codes.")] = "code",
    system: Annotated[str | None, typer.Option(help="Their system, such as ICD10.")] = None,
    system_column: Annotated[str | None, typer.Option(help="A column with the system of each code.")] = None,
    count: Annotated[str | None, typer.Option(help="A column that says how often each occurs.")] = None,
    separator: Annotated[str | None, typer.Option(help="What stands between several codes of a cell.")] = None,
    encoding: Annotated[str, typer.Option(help="utf-8 or gb18030.")] = "utf-8",
    as_json: Json = None,
) -> None:
    """Say which of a county's codes are known, by count; see docs/vocabulary.md.

    Example: `weibing vocabulary check diagnoses.csv --column icd --system ICD10`
    """
    from features.coverage import check_codes

    found = check_codes(
        source,
        column=column,
        system=system,
        system_column=system_column,
        count_column=count,
        separator=separator,
        encoding=encoding,
    )
    _result(found.text(), found.as_dict(), as_json)


@app.command()
def quality(
    store: Store,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as a page with charts.")] = None,
    as_json: Json = None,
    targets: TargetsFile = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="DATE", help="Look at records before this day. Default: at all.")
    ] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Language of the report.")] = "en",
) -> None:
    """Say what is wrong with the records, the worst first; see docs/quality.md.

    Example: `weibing quality out/county --html quality.html --language zh`
    """
    from features.events import EventStore
    from features.quality import check
    from serving import terminal
    from training.targets import read_targets

    with terminal.Progress() as progress:
        declared = tuple(read_targets(targets).values())
        found = check(EventStore.open(store), declared, at=at, progress=progress)
        if html is not None:
            from features.quality.page import page

            _write_text(page(found, language), html)
    _result(found.text(language), found.as_dict(language), as_json)


@app.command()
def profile(store: Store, at: Annotated[str, typer.Option("--at", metavar="DATE")], out: Parquet) -> None:
    """Fill the profile of every resident at an index time.

    Example: `weibing profile out/county --at 2024-01-01 --out profiles.parquet`
    """
    import polars as pl

    from features.engine import Engine, fingerprint, profile_store
    from features.events import EventStore
    from features.times import instant
    from serving import terminal

    opened = EventStore.open(store)
    index = pl.DataFrame({"subject_id": opened.residents(), "index_time": instant(at, opened.timezone)})
    filled = profile_store(opened, index, Engine.of_store(opened))
    _write_parquet(filled, out)
    terminal.say(f"{len(filled):,} profiles, hash {fingerprint(filled)}")


@app.command()
def cohort(store: Store, target: TargetName, out: Parquet, targets: TargetsFile = None) -> None:
    """Find who is at risk for a target, when, and what then happened.

    Example: `weibing cohort out/county fall --out fall.parquet`
    """
    from features.cohort import cohort as find_cohort
    from features.events import EventStore
    from serving import terminal
    from training.targets import target_named

    found = find_cohort(EventStore.open(store), target_named(target, targets))
    _write_parquet(found.rows, out)
    terminal.say_outcome(found.target, found.found_by)
    terminal.say("\n".join(f"{number:>12,}  {reason}" for reason, number in found.flow.items()))


@app.command()
def train(
    store: Store,
    target: Annotated[list[str] | None, typer.Argument(metavar="[TARGET…]", help="Default: every target.")] = None,
    targets: TargetsFile = None,
    tune: Annotated[
        int, typer.Option(min=0, metavar="TRIALS", help="Let Optuna search for better settings; resumable.")
    ] = 0,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Grow the trees on a Dask cluster, such as tcp://host:8786.")
    ] = None,
    seed: Seed = 0,
    mlruns: Mlruns = Path("mlruns"),
    as_json: Json = None,
) -> None:
    """Train a model of each target, measure it on people it has not seen, and keep the run in MLflow.

    See docs/training.md. Example: `weibing train out/county hypertension fall --json figures.json`
    """
    from features.events import EventStore
    from serving import terminal
    from training import report
    from training.targets import read_targets, target_named
    from training.tracking import Registry
    from training.train import Options
    from training.train import train as train_model

    opened = EventStore.open(store)
    chosen = [target_named(name, targets) for name in target or read_targets(targets)]
    registry = Registry(mlruns)
    options = Options(seed=seed, tune=tune, studies=mlruns / "studies", cluster=cluster)
    figures: dict[str, Any] = {}
    for each in chosen:
        with terminal.Progress() as progress:
            trained = train_model(opened, each, options=options, progress=progress)
            progress(f"{each.name}: keeping the run in {mlruns}")
            kept = registry.log(trained, parameters={"seed": seed, "store": opened.name})
        if as_json != Path("-"):
            terminal.show_trained(trained, f"version {kept.version}, {kept.alias}")
            terminal.say_whether_it_serves(kept)
        figures[each.name] = report.summary(trained) | kept.as_dict()
    _write_json(figures, as_json)


@app.command()
def evaluate(
    store: Store,
    target: TargetName,
    model: Annotated[str | None, typer.Option(metavar="URI", help="Default: the target's champion.")] = None,
    targets: TargetsFile = None,
    mlruns: Mlruns = Path("mlruns"),
    as_json: Json = None,
) -> None:
    """Measure a model on a store that it was not trained on, as it is and recalibrated to the place.

    Example: `weibing evaluate out/other_county fall --json figures.json`
    """
    from features.engine import Engine
    from features.events import EventStore
    from training.evaluate import evaluate as evaluate_model
    from training.targets import target_named
    from training.tracking import Registry

    risk_model = Registry(mlruns).load(model or f"models:/{target}@champion")
    chosen = target_named(target, targets) if targets else None
    opened = EventStore.open(store)
    found = evaluate_model(opened, risk_model, Engine.of_store(opened), chosen)
    _result(found.text(), found.as_dict(), as_json)


@app.command()
def explain(
    store: Store,
    target: TargetName,
    resident: Annotated[int, typer.Option(metavar="ID", help="The resident.")],
    at: At = None,
    mlruns: Mlruns = Path("mlruns"),
) -> None:
    """Say what drives the risk of one resident.

    Example: `weibing explain out/county fall --resident 17 --at 2024-01-01`
    """
    from features.engine import Engine
    from features.events import EventStore
    from serving import terminal
    from serving.scoring import score_one
    from training.tracking import Registry

    opened = EventStore.open(store)
    events = opened.resident(resident)
    if not len(events):
        raise WeibingError(f"There is no resident {resident} in {store}.")
    models = {target: Registry(mlruns).champion(target)}
    for score in score_one(events, _index_time(at, opened), models, Engine.of_store(opened), _now()):
        terminal.show_explanation(score, opened.timezone)


@app.command()
def promote(
    target: TargetName,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of the version that is to serve.")],
    force: Annotated[bool, typer.Option("--force", help="Promote it although the rule refuses it.")] = False,
    reason: Reason = "",
    mlruns: Mlruns = Path("mlruns"),
    as_json: Json = None,
) -> None:
    """Let a version of a target's model serve, if it is not worse than the champion; see docs/promotion.md.

    Example: `weibing promote fall 3`
    """
    from training.tracking import RefusedError, Registry

    if force and not reason.strip():
        raise typer.BadParameter("Whoever promotes a version against the rule says why: --reason TEXT")
    try:
        decision = Registry(mlruns).promote(target, version, force=force, reason=reason)
    except RefusedError as error:
        _result(error.decision.text(), error.decision.as_dict() | {"promoted": False}, as_json)
        raise
    said = [decision.text(), f"Version {version} of {target} is the champion."]
    _result("\n".join(filter(None, said)), decision.as_dict() | {"promoted": True}, as_json)


@app.command()
def rollback(target: TargetName, reason: Reason = "", mlruns: Mlruns = Path("mlruns")) -> None:
    """Let the champion before the present one serve again.

    Example: `weibing rollback fall --reason "alerts doubled in Shixi"`
    """
    from serving import terminal
    from training.tracking import Registry

    made = Registry(mlruns).rollback(target, reason=reason)
    terminal.say(f"Version {made.version} of {target} is the champion again, instead of version {made.before}.")


@app.command()
def history(target: TargetName, mlruns: Mlruns = Path("mlruns"), as_json: Json = None) -> None:
    """Say which version of a target's model served when, by whose decision, and why.

    Example: `weibing history fall`
    """
    from training.tracking import Registry

    changes = Registry(mlruns).history(target)
    said = "\n".join(change.line() for change in changes) or f"No version of {target} was ever promoted."
    _result(said, {"target": target, "promotions": [change.as_dict() for change in changes]}, as_json)


@app.command()
def report(
    target: TargetName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="Where to write.")],
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Default: the champion, or else the newest.")
    ] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Language of the report.")] = "en",
    mlruns: Mlruns = Path("mlruns"),
) -> None:
    """Write the report that was kept with a version of a target's model.

    Example: `weibing report fall --out fall.html --language zh`
    """
    from serving import terminal
    from training.tracking import Registry

    text, found = Registry(mlruns).report(target, version, language)
    _write_text(text, out)
    terminal.say(f"The report of version {found} of {target} is in {out}")


@app.command()
def score(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Folder of an event store, or its URL.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE.parquet", help="Keep the scores in a file.")] = None,
    db: Annotated[
        str | None, typer.Option(metavar="URL", envvar="WEIBING_DB", help="Keep the scores in a database.")
    ] = None,
    at: At = None,
    everyone: Annotated[bool, typer.Option("--all", help="Also those of whom nothing has changed.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="So many processes on this machine.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="On a Dask cluster, such as tcp://host:8786.")
    ] = None,
    memory: Annotated[float, typer.Option(min=0.1, metavar="GB", help="Memory that it may take.")] = 4.0,
    duty_targets: Annotated[
        Literal["2017", "2024", "2025"],
        typer.Option(envvar="WEIBING_DUTY_TARGETS", help="Version of the service rules."),
    ] = "2017",
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="A line of JSON a shard; - for stderr.")] = None,
    mlruns: Mlruns = Path("mlruns"),
    as_json: Json = None,
) -> None:
    """Score every resident at risk, for every target that has a champion; see docs/nightly.md.

    Broken off, it goes on where it ended. Residents of whom nothing has changed keep the score that they have. With
    a database, what came by day is taken into the store first, and duties are worked out last.

    Example: `weibing score out/county --db sqlite:///out/weibing.db`
    """
    from features.remote import open_store
    from features.times import instant
    from serving import terminal
    from serving.duties import DutyRules, rulebook
    from serving.night import WholeNight, whole_night
    from serving.scoring.nightly import IncompleteError, Options
    from training.tracking import Registry

    opened, registry = open_store(store), Registry(mlruns)
    models = registry.champions()
    if not models:
        raise WeibingError(f"There is no champion in {mlruns}. Promote a model, or train one: weibing train {store}")
    for target in registry.without_champion():
        terminal.note(f"{target} has models but no champion: it is not scored. See: weibing promote --help")
    options = Options(
        index_time=instant(at, opened.timezone) if at else None,
        everyone=everyone,
        memory_bytes=int(memory * 1e9),
        workers=workers,
        walk=_walk(workers, cluster),
    )
    ledgers = _ledgers(out, db, cluster)

    def tell(found: WholeNight) -> None:
        if as_json != Path("-"):
            terminal.show_night(found.scored, any(model.card.synthetic for model in models.values()))
        if as_json != Path("-") and found.due is not None:
            terminal.say(found.text())
        _write_json(found.as_dict(), as_json)

    try:
        with terminal.Progress() as progress, terminal.log_lines(log) as write:
            rules = DutyRules(rulebook(duty_targets), timezone=opened.timezone)
            found = whole_night(opened, ledgers, models, rules, _now(), options, progress=progress, log=write)
    except IncompleteError as error:
        tell(WholeNight(error.night))
        raise
    tell(found)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 3000.")] = None,
    mlruns: Annotated[Path | None, typer.Option(help="Folder of the MLflow registry.")] = None,
    db: Annotated[str | None, typer.Option(metavar="URL", help="The operational database.")] = None,
    store: Annotated[Path | None, typer.Option(metavar="STORE", help="Folder of the event store.")] = None,
) -> None:
    """Serve a clinic over HTTP: residents, lists, scores, health interfaces; see docs/operate.md.

    It needs a key: WEIBING_KEY, or a file that WEIBING_KEY_FILE names. Make one with: openssl rand -base64 32

    Example: `weibing serve --store out/county --db sqlite:///out/weibing.db`
    """
    from serving.service import serve as start_service
    from serving.settings import Settings

    start_service(Settings.from_environment(host=host, port=port, mlruns=mlruns, db=db, store=store))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; it must not be there yet.")], db: Db
) -> None:
    """Write the operational database of this moment into a file, while the service goes on; see docs/database.md.

    Example: `weibing backup backups/2026-03-01.backup --db sqlite:///out/weibing.db`
    """
    from serving import terminal
    from serving.store.backup import backup as write_backup
    from serving.store.database import Database

    kept = write_backup(Database.at(db), file)
    terminal.say(f"{file} holds {sum(kept.rows.values()):,} rows of {len(kept.rows)} tables (form {kept.revision}).")
    terminal.note("Identities in it are encrypted. The key is not in it: keep WEIBING_KEY in another place.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What weibing backup has written.")], db: Db
) -> None:
    """Put a backup into an empty database, and bring it to the present form; see docs/database.md.

    Example: `weibing restore backups/2026-03-01.backup --db sqlite:///out/weibing.db`
    """
    from serving import terminal
    from serving.store.backup import restore as read_backup
    from serving.store.database import Database

    found = read_backup(file, Database.at(db))
    terminal.say(f"{sum(found.rows.values()):,} rows of {len(found.rows)} tables are back (form {found.revision}).")
    terminal.note("Identities can be read with the key that they were written with: WEIBING_KEY or WEIBING_KEY_FILE.")


@users.command("add")
def users_add(
    name: AccountName,
    role: Annotated[str, typer.Option(help="doctor, manager, scientist, administrator or system.")],
    db: Db,
    label: Annotated[str, typer.Option(help="What to call the person or system on pages.")] = "",
) -> None:
    """Add an account, and print the password for its first login; see docs/security.md.

    Example: `weibing users add li.wei --role doctor`
    """
    from serving.terminal import say

    accounts, book = _security(db)
    account, initial = accounts.add(name, role, _now(), label)
    book.write(_by_command("add user", f"{account.name} as {account.role}"))
    say(_initial(account.name, initial) if initial else f"{account.name} can be given tokens: weibing users token")


@users.command("list")
def users_list(db: Db, as_json: Json = None) -> None:
    """List accounts and tokens.

    Example: `weibing users list`
    """
    from serving.security.listing import listing, text
    from serving.security.tokens import Tokens

    accounts, _ = _security(db)
    found = listing(accounts.all(), Tokens(accounts.database).all(), _now())
    _result(text(found), found, as_json)


@users.command("disable")
def users_disable(name: AccountName, db: Db, reason: Reason = "") -> None:
    """Let nobody come in by an account any more; its sessions and tokens end at once.

    Example: `weibing users disable li.wei --reason "has left the clinic"`
    """
    from serving.terminal import say

    accounts, book = _security(db)
    account = accounts.disable(name, _now())
    book.write(_by_command("disable user", f"{account.name}: {reason}".removesuffix(": ")))
    say(f"{account.name} cannot come in any more.")


@users.command("reset")
def users_reset(name: AccountName, db: Db, reason: Reason = "") -> None:
    """Let somebody begin anew who has lost the password, or the telephone with the one-time codes.

    Example: `weibing users reset li.wei --reason "new telephone"`
    """
    from serving.terminal import say

    accounts, book = _security(db)
    initial = accounts.reset(name, _now())
    account = accounts.named(name)
    book.write(_by_command("reset user", f"{account.name}: {reason}".removesuffix(": ")))
    say(_initial(account.name, initial) if initial else f"{account.name} logs in at the county's login server.")


@users.command("token")
def users_token(
    name: AccountName,
    scope: Annotated[list[str], typer.Option(help="What it is for; give it again for more.")],
    db: Db,
    days: Annotated[int, typer.Option(help="How long it lasts.")] = 90,
) -> None:
    """Make an API token for a system, and print it: it is shown this once.

    Example: `weibing users token lab --scope record-observation --days 90`
    """
    from serving.security.tokens import Tokens
    from serving.terminal import note, say

    accounts, book = _security(db)
    token, secret = Tokens(accounts.database).make(accounts.named(name), scope, days, _now())
    told = f"token {token.id} of {token.account} for {' '.join(sorted(token.scopes))}"
    book.write(_by_command("make token", told))
    note(f"{told}, until {token.ends_at:%Y-%m-%d}; it is not shown again. To end it: weibing users revoke {token.id}")
    say(secret)


@users.command("revoke")
def users_revoke(
    token: Annotated[int, typer.Argument(metavar="TOKEN", help="Number of the token, as users list shows it.")],
    db: Db,
    reason: Reason = "",
) -> None:
    """End an API token at once.

    Example: `weibing users revoke 3 --reason "was in a screenshot"`
    """
    from serving.security.tokens import Tokens
    from serving.terminal import say

    accounts, book = _security(db)
    Tokens(accounts.database).revoke(token, _now())
    book.write(_by_command("revoke token", f"token {token}: {reason}".removesuffix(": ")))
    say(f"Token {token} is of no use any more.")


@audit.command("verify")
def audit_verify(
    db: Db,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier export, kept elsewhere: shows a missing end too.")
    ] = None,
) -> None:
    """Say whether the audit is as it was written; exit 1 if not.

    Example: `weibing audit verify --against /mnt/elsewhere/audit.jsonl`
    """
    from serving.audit import head_of_export
    from serving.terminal import say

    _, book = _security(db)
    say(book.verify(head_of_export(against) if against else None).text())


@audit.command("export")
def audit_export(
    db: Db,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write, a row of JSON a line.")],
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Leave out what is older (UTC).")] = None,
    resident: Annotated[int | None, typer.Option(metavar="ID", help="Only what was done with this record.")] = None,
) -> None:
    """Write the audit as lines of JSON, each with its digest.

    Example: `weibing audit export --out audit.jsonl`
    """
    from features.times import instant
    from serving.terminal import say

    _, book = _security(db)
    book.write(_by_command("export audit", str(out), resident))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as to:
        rows = book.export(to, since=instant(since) if since else None, whose=resident)
    say(f"{rows:,} rows are in {out}")


@audit.command("forget")
def audit_forget(
    db: Db,
    days: Annotated[int, typer.Option(help="Keep what is younger. Default: three years.")] = 1098,
    reason: Reason = "kept by rule",
) -> None:
    """Cut off what is older than the rule asks to keep; the rest stays verifiable.

    Example: `weibing audit forget --days 1098`
    """
    from serving.terminal import say

    _, book = _security(db)
    gone = book.forget(_now() - timedelta(days=days), _now(), reason)
    say(f"{gone:,} rows were older than {days:,} days, and are gone.")


@resident.command("register")
def resident_register(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Table of residents: CSV, Excel or Parquet.")], db: Db
) -> None:
    """Keep who residents are, encrypted, in the database; see docs/database.md. It needs the key.

    Columns: resident, name, number, telephone, address, township, sex, birth_year. All of a file is kept, or nothing.

    Example: `weibing resident register people.csv --db sqlite:///out/weibing.db`
    """
    from serving.store.identity import Key as SecretKey
    from serving.store.people import People
    from serving.store.registers import read_people
    from serving.terminal import say

    _, book = _security(db)
    people = People(book.database, SecretKey.from_environment())
    book.write(_by_command("register residents", file.name))
    say(f"{people.register(read_people(file), _now()):,} residents are known by name.")


@resident.command("export")
def resident_export(
    number: ResidentId,
    db: Db,
    store: Records = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write; - for stdout.")] = Path("-"),
    reason: Reason = "",
) -> None:
    """Write all that is held of a resident as JSON: what the resident may ask for; see docs/database.md.

    Example: `weibing resident export 17 --store out/county --out resident17.json --reason "asked for by letter"`
    """
    from serving.rights import held_of
    from serving.store.identity import Key as SecretKey

    _, book = _security(db)
    key = SecretKey.from_environment()
    book.write(_by_command("export resident", reason, number))
    _write_json(held_of(book.database, key, _records(store), number), out)


@resident.command("erase")
def resident_erase(
    number: ResidentId,
    reason: Reason,
    db: Db,
    store: Records = None,
    mlruns: Mlruns = Path("mlruns"),
) -> None:
    """Erase a resident from event store and database for good, and say what remains; see docs/database.md.

    Example: `weibing resident erase 17 --store out/county --reason "asked for by letter"`
    """
    from serving.rights import erase, training_files_of, what_remains
    from serving.terminal import note, say

    _, book = _security(db)
    records = _records(store)
    book.write(_by_command("erase resident", reason, number))
    gone = erase(book.database, records, number)
    say(f"Resident {number} is erased: {gone.text()}.")
    for sentence in what_remains(number, training_files_of(mlruns, number), records):
        note(sentence)


@resident.command("readmit")
def resident_readmit(number: ResidentId, reason: Reason, db: Db, store: Store) -> None:
    """Take in records of a resident again who was erased, as one who comes back.

    Example: `weibing resident readmit 17 --store out/county --reason "has signed again"`
    """
    from features.events import EventStore
    from serving.terminal import say

    _, book = _security(db)
    records = EventStore.open(store)
    book.write(_by_command("readmit resident", reason, number))
    if not records.readmit(number):
        raise WeibingError(f"Resident {number} was not erased from {records.place}.")
    say(f"Records of resident {number} are taken in again, from the next ingest on.")


@resident.command("opt-out")
def resident_opt_out(number: ResidentId, db: Db, reason: Reason = "") -> None:
    """Let a resident not be scored without a person; the score that there is ends with the next night.

    Example: `weibing resident opt-out 17 --reason "asked for by letter"`
    """
    from serving.store.people import opt_out
    from serving.terminal import say

    _, book = _security(db)
    book.write(_by_command("opt out", reason, number))
    opt_out(book.database, number, _now())
    say(f"Resident {number} is not scored any more. What the service rules say is due is still worked out.")


@resident.command("opt-in")
def resident_opt_in(number: ResidentId, db: Db, reason: Reason = "") -> None:
    """Let a resident be scored again, from the next night on.

    Example: `weibing resident opt-in 17`
    """
    from serving.store.people import opt_in
    from serving.terminal import say

    _, book = _security(db)
    book.write(_by_command("opt in", reason, number))
    opt_in(book.database, number)
    say(f"Resident {number} is scored again from the next night on.")


@panel.command("make")
def panel_make(
    name: PanelName, db: Db, doctor: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Whose it is.")] = None
) -> None:
    """Make a panel.

    Example: `weibing panel make "Shixi 1" --doctor li.wei`
    """
    from serving.store.panels import Panels
    from serving.terminal import say

    accounts, book = _security(db)
    of = accounts.doctor(doctor).id if doctor else None
    book.write(_by_command("make panel", f"{name} of {doctor or 'nobody yet'}"))
    made = Panels(book.database).make(name, of)
    say(f'Panel {made.id} "{made.name}" is {doctor or "nobody"}\'s.')


@panel.command("give")
def panel_give(name: PanelName, doctor: Annotated[str, typer.Argument(metavar="ACCOUNT")], db: Db) -> None:
    """Give a panel to another doctor, who sees its residents from then on; the one before does not any more.

    Example: `weibing panel give "Shixi 1" zhang.min`
    """
    from serving.store.panels import Panels
    from serving.terminal import say

    accounts, book = _security(db)
    given, panels = accounts.doctor(doctor), Panels(book.database)
    found = panels.named(name)
    book.write(_by_command("give panel", f"{name} to {given.name}"))
    panels.give(found.id, given.id)
    say(f'Panel {found.id} "{found.name}" is {given.name}\'s.')


@panel.command("sign")
def panel_sign(
    name: PanelName,
    db: Db,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Table with a column resident.")] = None,
    residents: Annotated[
        list[int] | None, typer.Option("--resident", metavar="ID", help="One resident; give it again for more.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="From when (UTC). Default: now.")] = None,
) -> None:
    """Put residents under contract with a panel; a contract with another one ends.

    Example: `weibing panel sign "Shixi 1" shixi.csv`
    """
    from features.times import instant
    from serving.store.panels import Panels
    from serving.store.registers import read_residents
    from serving.terminal import say

    if (file is None) == (not residents):
        raise typer.BadParameter("Name a file of residents, or residents with --resident")
    _, book = _security(db)
    panels, whom = Panels(book.database), read_residents(file) if file else residents or []
    found = panels.named(name)
    book.write(_by_command("sign panel", f"{name}: {len(whom):,} residents of {file.name if file else 'the command'}"))
    panels.sign(found.id, whom, instant(since) if since else _now())
    say(f'{len(set(whom)):,} residents are under contract with panel {found.id} "{found.name}".')


@panel.command("list")
def panel_list(db: Db, as_json: Json = None) -> None:
    """List panels, their doctors, and how many are under contract.

    Example: `weibing panel list`
    """
    from serving.store.panels import Panels, listing, text

    accounts, book = _security(db)
    found = listing(Panels(book.database), {account.id: account.name for account in accounts.all()}, _now())
    _result(text(found), {"panels": found}, as_json)


def _records(store: Path | None) -> "EventStore | None":
    from features.events import EventStore

    return EventStore.open(store) if store else None


def _security(db: str) -> "tuple[Accounts, Audit]":
    from serving.audit import Audit
    from serving.security.accounts import Accounts
    from serving.store.database import Database

    opened = Database.open(db)
    return Accounts(opened), Audit(opened)


def _by_command(action: str, why: str, whose: int | None = None) -> "Entry":
    """Return the entry of what was done on the machine itself, by which of its accounts."""
    from getpass import getuser

    from serving.audit import Entry

    return Entry(_now(), action, name=getuser(), via="command", whose=whose, why=why)


def _initial(name: str, password: str) -> str:
    return f"The password for the first login of {name} is {password}. It lasts a week, and is not shown again."


def _ledgers(out: Path | None, db: str | None, cluster: str | None) -> "list[Ledger]":
    from serving.scoring.parquet import FileLedger
    from serving.store.ledger import DatabaseLedger

    ledgers: list[Ledger] = []
    if db is not None:
        kept = DatabaseLedger.open(db)
        if cluster is not None and kept.database.file is not None:
            raise typer.BadParameter("SQLite is for one machine: with --cluster, keep the scores in PostgreSQL")
        ledgers.append(kept)
    if out is not None:
        ledgers.append(FileLedger(out.absolute()))
    if not ledgers:
        raise typer.BadParameter("Say where the scores are to be kept: --db URL, --out FILE.parquet, or both")
    return ledgers


def _walk(workers: int, cluster: str | None) -> "Walk | None":
    from serving.scoring.machines import on_cluster, on_workers

    if cluster is not None and workers > 1:
        raise typer.BadParameter("Choose one of --workers N and --cluster ADDRESS")
    if cluster is not None:
        return on_cluster(cluster)
    return on_workers(workers) if workers > 1 else None


def _require_source_and_store(paths: list[Path]) -> None:
    if len(paths) < 2:
        raise typer.BadParameter("Name one source or more, and last the store.")


def _who(source: str | None, crosswalk: Path | None, key: str | None, identifier: str | None = None) -> "Who":
    from features.sources.table.identities import Who

    return Who(source, key, crosswalk, identifier)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _index_time(at: str | None, store: "EventStore") -> datetime:
    from features.times import instant

    return instant(at, store.timezone) if at else _now()


def _result(text: str, content: dict[str, Any], as_json: Path | None) -> None:
    from serving import terminal

    if as_json != Path("-"):
        terminal.say(text)
    _write_json(content, as_json)


def _write_json(content: dict[str, Any], path: Path | None) -> None:
    from serving import terminal

    text = json.dumps(content, ensure_ascii=False, indent=2)
    if path == Path("-"):
        terminal.say(text)
    elif path is not None:
        _write_text(text + "\n", path)


def _write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_parquet(frame: "pl.DataFrame", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


def main() -> None:
    """Run the command line; a mistake that the user can mend is one sentence, without a traceback."""
    try:
        app()
    except WeibingError as error:
        typer.echo(f"weibing: {error}", err=True)
        sys.exit(1)
