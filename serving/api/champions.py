"""The models that serve: loaded, proved, warm, and exchanged while the service runs.

Each is proved when it is loaded: its files are those that were registered, reasons add up, and it says of its example
what it said when it was made (:meth:`training.model.RiskModel.load`). One that is refused does not serve; what served
before goes on.

What is loaded keeps serving when the registry cannot be read, or is all at once empty. A service that starts then, or
finds a champion damaged, serves the copy that the database keeps of the last that was good. A target whose champion was
withdrawn while others have theirs is no longer served.
"""

import gc
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

from features.engine import Engine
from features.errors import WeibingError
from serving.api.metrics import CHAMPION, REFUSED, REGISTRY_READABLE
from serving.scoring import Scorer
from serving.settings import Settings
from serving.store.champions import ChampionsKept, KeptChampion
from serving.store.database import Database
from training.model import RiskModel
from training.tracking import Registry

log = logging.getLogger(__name__)

LOADING = "The models are being loaded."
NOTHING = "No model in the registry is a champion: train one, or promote one."
UNREADABLE = "The registry cannot be read; the log says why."
# Until everything is there, the registry is asked more often; ever less so where that does not help.
IMPATIENT_SECONDS = 1.0
# As the number of a registry: the database's copies.
COPY = -1


@dataclass(frozen=True)
class Loaded:
    """A model, and which version of which registry it is; that of a copy is ``COPY``."""

    model: RiskModel
    registry: int
    version: str

    @property
    def source(self) -> str:
        """Where it was read from."""
        return "copy" if self.registry == COPY else "registry"


class Champions:
    """The champions of a registry, ready to score.

    Parameters
    ----------
    database : keeps a copy of each champion; without one there are no copies

    Attributes
    ----------
    scorer : None until a champion is loaded and warm
    missing : what stands between the service and being ready, one sentence each
    """

    def __init__(self, settings: Settings, engine: Engine, database: Database | None = None) -> None:
        self.settings = settings
        self.engine = engine
        # MLflow otherwise goes on reading a registry that was replaced by another.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        self.scorer: Scorer | None = None
        self.missing: tuple[str, ...] = (LOADING,)
        self._copies = None if database is None else ChampionsKept(database)
        self._loaded: dict[str, Loaded] = {}
        self._kept: dict[str, Loaded] = {}
        self._declared = (engine.profile.version, engine.vocabulary.version)
        self._told, self._telling = set[str](), set[str]()

    @property
    def ready(self) -> bool:
        """Whether everything that is to be served is loaded and warm."""
        return self.scorer is not None and not self.missing

    def watch(self, stop: Event) -> None:
        """Load the champions, and look for others every so often, until told to stop."""
        often, wait = self.settings.refresh_seconds, IMPATIENT_SECONDS
        while not stop.is_set():
            self.look()
            wait = IMPATIENT_SECONDS if self.ready else 2 * wait
            stop.wait(often if self.ready else min(often, wait / 2))

    def look(self) -> None:
        """Bring what serves up to what can be read. Whatever happens, what is loaded keeps serving."""
        try:
            self.refresh()
        # The next look may find the registry mended.
        except Exception as error:
            self._tell(f"The registry cannot be used: {error!r}")
            REGISTRY_READABLE.set(0)
            self._go_on_without(UNREADABLE)
        self._told, self._telling = self._telling, set()

    def refresh(self) -> None:
        """Bring what serves up to what the registry says.

        Raises
        ------
        Exception
            Whatever the registry's database throws; then nothing has changed.
        """
        registry = Registry(self.settings.mlruns)
        versions = registry.versions()
        REGISTRY_READABLE.set(registry.database.exists())
        for target in registry.without_champion():
            self._tell(f"{target} has models but no champion: it is not served. See: weibing promote --help")
        if not versions:
            self._tell(f"No model in the registry {registry.folder} is a champion; what is loaded keeps serving.")
            self._go_on_without(NOTHING)
            return
        wanted = self.settings.targets or tuple(versions)
        self._serve({target: self._load(registry, target, versions[target]) for target in wanted if target in versions})
        self.missing = self._lacking(wanted)
        self._keep(registry, versions)

    def _go_on_without(self, registry_says: str) -> None:
        """Serve what is loaded or, where nothing is, the copies."""
        if self.scorer is None:
            wanted = self.settings.targets or tuple(self._versions_kept())
            self._serve({target: self._copy(target) for target in wanted})
            self.missing = self._lacking(wanted) if wanted and self.scorer else (registry_says,)

    def _lacking(self, wanted: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"No model of {target} is loaded." for target in wanted if target not in self._loaded)

    def _load(self, registry: Registry, target: str, version: str) -> Loaded | None:
        """Return a champion; where it may not serve what served before, or the copy; or None."""
        identity, before = registry.database.stat().st_ino, self._loaded.get(target)
        if before and (before.registry, before.version) == (identity, version):
            return before
        try:
            return self._fit(Loaded(registry.load(f"models:/{target}/{version}"), identity, version), target)
        except WeibingError as error:
            if self._tell(f"Version {version} of {target} cannot serve: {error}"):
                REFUSED.labels(target).inc()
        return before or self._copy(target)

    def _copy(self, target: str) -> Loaded | None:
        """Return the champion of a target that the database keeps, if it does."""
        try:
            kept = self._copies and self._copies.find(target)
            if kept:
                self._tell(f"Version {kept.version} of {target} is served from the database's copy.")
                return self._fit(Loaded(kept.model(), COPY, kept.version), target)
        # Nothing that is wrong with a copy may keep another target from serving.
        except Exception as error:
            self._tell(f"The copy of {target} cannot serve: {error}")
        return None

    def _fit(self, loaded: Loaded, target: str) -> Loaded:
        """Return a model that can answer for a target with our features.

        Raises
        ------
        WeibingError
            If it cannot.
        """
        card = loaded.model.card
        if card.target.name != target:
            raise WeibingError(f"It is a model of {card.target.name}.")
        Scorer({target: loaded.model}, self.engine)
        if (card.profile_version, card.vocabulary_version) != self._declared:
            self._tell(f"Version {loaded.version} of {target} was trained on other features or codes; train it again.")
        return loaded

    def _serve(self, found: Mapping[str, Loaded | None]) -> None:
        loaded = {target: each for target, each in found.items() if each is not None}
        if not loaded or loaded == self._loaded:
            return
        scorer = Scorer({target: each.model for target, each in loaded.items()}, self.engine)
        scorer.warm()
        before, self._loaded, self.scorer = self._loaded, loaded, scorer
        _set_apart()
        _count(before, loaded)
        said = (f"{target} {each.version} ({each.source})" for target, each in loaded.items())
        log.info("Serving %s.", ", ".join(said))

    def _keep(self, registry: Registry, versions: Mapping[str, str]) -> None:
        """Keep copies of what serves from the registry, and none of what has no champion any more."""
        ours = {target: each for target, each in self._loaded.items() if each.registry != COPY}
        if self._copies is None or ours == self._kept:
            return
        try:
            now = datetime.now(UTC).replace(tzinfo=None)
            for target, each in ours.items():
                if versions[target] == each.version and each != self._kept.get(target):
                    folder, version = registry.files(f"models:/{target}/{each.version}")
                    self._copies.keep(KeptChampion.of(target, version, folder, now))
            self._copies.drop_all_but(versions)
            self._kept = ours
        # A database that is away or full does not keep the registry's models from serving.
        except Exception as error:
            self._tell(f"The database keeps no copy of the champions: {error}")

    def _versions_kept(self) -> dict[str, str]:
        try:
            return self._copies.versions() if self._copies else {}
        # As above: there may be a registry soon.
        except Exception as error:
            self._tell(f"The database's copies of the champions cannot be read: {error}")
            return {}

    def _tell(self, sentence: str) -> bool:
        """Log what is wrong, once until it was mended; say whether it is new."""
        new = sentence not in self._told | self._telling
        if new:
            log.error(sentence)
        self._telling.add(sentence)
        return new


def _count(before: Mapping[str, Loaded], now: Mapping[str, Loaded]) -> None:
    """Tell what serves, and from where."""
    for loaded, serves in ((before, 0), (now, 1)):
        for target, each in loaded.items():
            CHAMPION.labels(target, each.version, each.source).set(serves)


def _set_apart() -> None:
    """Spare the garbage collector what stays, or it looks at all of it in the middle of a large call."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
