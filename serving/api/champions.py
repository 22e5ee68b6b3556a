"""The models that serve: loaded, warm, and exchanged while the service runs.

What is loaded keeps serving when the registry cannot be read, or is all at once empty. A target whose champion was
withdrawn while others have theirs is no longer served.
"""

import gc
import logging
import os
from dataclasses import dataclass
from threading import Event

from features.engine import Engine
from features.errors import WeibingError
from serving.scoring import Scorer
from serving.settings import Settings
from training.model import RiskModel
from training.tracking import Registry

log = logging.getLogger(__name__)

LOADING = "The models are being loaded."
NOTHING = "No model in the registry is a champion: train one, or promote one."
UNREADABLE = "The registry cannot be read; the log says why."
# Until everything is there, the registry is asked more often.
IMPATIENT_SECONDS = 1.0


@dataclass(frozen=True)
class Loaded:
    """A model, and which version of which registry it is."""

    model: RiskModel
    registry: int
    version: str


class Champions:
    """The champions of a registry, ready to score.

    Attributes
    ----------
    scorer : None until a champion is loaded and warm
    missing : what stands between the service and being ready, one sentence each
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        # MLflow otherwise goes on reading a registry that was replaced by another.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        self.scorer: Scorer | None = None
        self.missing: tuple[str, ...] = (LOADING,)
        self._loaded: dict[str, Loaded] = {}
        self._declared = (engine.profile.version, engine.vocabulary.version)
        self._told: set[str] = set()

    @property
    def ready(self) -> bool:
        """Whether everything that is to be served is loaded and warm."""
        return self.scorer is not None and not self.missing

    def watch(self, stop: Event) -> None:
        """Load the champions, and look for others every so often, until told to stop."""
        while not stop.is_set():
            try:
                self.refresh()
            # Whatever happens, what is loaded keeps serving, and the next look may find the registry mended.
            except Exception as error:
                self._tell(f"The registry cannot be used: {error!r}")
                self.missing = () if self.scorer else (UNREADABLE,)
            often = self.settings.refresh_seconds
            stop.wait(often if self.ready else min(often, IMPATIENT_SECONDS))

    def refresh(self) -> None:
        """Bring what serves up to what the registry says.

        Raises
        ------
        Exception
            Whatever the registry's database throws; then nothing has changed.
        """
        registry = Registry(self.settings.mlruns)
        versions = registry.versions()
        for target in registry.without_champion():
            self._tell(f"{target} has models but no champion: it is not served. See: weibing promote --help")
        if not versions and self.scorer:
            self._tell("No model in the registry is a champion; what is loaded keeps serving.")
            return
        wanted = self.settings.targets or tuple(versions)
        found = {target: self._load(registry, target, versions[target]) for target in wanted if target in versions}
        self._serve({target: loaded for target, loaded in found.items() if loaded is not None})
        lacking = [f"No model of {target} is loaded." for target in wanted if target not in self._loaded]
        self.missing = tuple(lacking) if wanted else (NOTHING,)

    def _load(self, registry: Registry, target: str, version: str) -> Loaded | None:
        """Return a champion, what served before where it cannot be loaded, or None."""
        identity, before = registry.database.stat().st_ino, self._loaded.get(target)
        if before and (before.registry, before.version) == (identity, version):
            return before
        try:
            model = registry.load(f"models:/{target}/{version}")
            Scorer({target: model}, self.engine)
        except WeibingError as error:
            self._tell(f"Version {version} of {target} cannot serve: {error}")
            return before
        if (model.card.profile_version, model.card.vocabulary_version) != self._declared:
            self._tell(f"Version {version} of {target} was trained on other features or codes; train it again.")
        return Loaded(model, identity, version)

    def _serve(self, loaded: dict[str, Loaded]) -> None:
        if not loaded or loaded == self._loaded:
            return
        scorer = Scorer({target: each.model for target, each in loaded.items()}, self.engine)
        scorer.warm()
        self._loaded, self.scorer = loaded, scorer
        _set_apart()
        log.info("Serving %s.", ", ".join(f"{target} {each.version}" for target, each in loaded.items()))

    def _tell(self, sentence: str) -> None:
        """Log what is wrong, once."""
        if sentence not in self._told:
            log.error(sentence)
        self._told.add(sentence)


def _set_apart() -> None:
    """Spare the garbage collector what stays, or it looks at all of it in the middle of a large call."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
