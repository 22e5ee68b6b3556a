"""The runs and models of a county in one folder, and which model of a target serves.

    mlruns/mlflow.db              runs, parameters, metrics, versions and their aliases, promotions
    mlruns/artifacts/<target>/    plots and evidence of each run, and the models

Everything goes to that folder and to nowhere else; MLflow's process-wide settings are neither read nor changed.
"""

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from features.errors import WeibingError
from training.model import RiskModel
from training.promotion import Decision, HeldOut, decide, without_evidence
from training.tracking.evidence import LANGUAGES, REPORT, digest_of_evidence, held_out, read_held_out, write_evidence
from training.tracking.history import LONGEST_REASON, Kind, Promotion, before, history_of, tag_of
from training.tracking.model_files import MODEL, digest_of
from training.tracking.place import CHALLENGER, CHAMPION, Alias, Place
from training.tracking.recording import DIGEST, EVIDENCE_DIGEST, Recorder
from training.train import Trained

NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Registered:
    """Where a training run and its model went; `decision` says whether the first of a target may serve."""

    run_id: str
    target: str
    version: str
    alias: Alias
    decision: Decision | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the version, its alias and what refused it, as JSON holds them."""
        refused = [check.said for check in self.decision.refused] if self.decision else []
        return {"version": self.version, "alias": self.alias, "refused": refused}


class RefusedError(WeibingError):
    """A version may not serve; `decision` says why, check by check."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(
            f"Version {decision.version} of {decision.target} is not promoted. {decision.reasons}"
            " To promote it all the same, say why: --force --reason TEXT"
        )
        self.decision = decision


class Registry:
    """The runs and models of a county, in one folder.

    The folder is made by the first run that is logged to it. It may be moved; several processes may use it at once.
    """

    def __init__(self, folder: Path = Path("mlruns")) -> None:
        self._place = Place(folder)
        self.folder, self.database, self.artifacts = self._place.folder, self._place.database, self._place.artifacts

    def log(self, trained: Trained, *, parameters: Mapping[str, object] = NOTHING) -> Registered:
        """Keep a training run: what went in, what came out, the report, and the model as a new version of its target.

        Where the target has no champion and the rule of promotion passes the version, it becomes the champion. Any
        other becomes the challenger: promotion is a person's act.

        Parameters
        ----------
        parameters : more of what went in
            Kept beside the target's and the trees' own; a parameter named like one of them replaces it.

        Raises
        ------
        WeibingError
            If the folder's database cannot be used.
        """
        with TemporaryDirectory(prefix="weibing-") as scratch:
            digest = write_evidence(trained, Path(scratch))
            with self._place.only_writer():
                self._place.prepare()
                version = Recorder(self._place, _account()).record(trained, parameters, Path(scratch), digest)
                return self._first_or_challenger(trained, version)

    def champion(self, target: str) -> RiskModel:
        """Load the model that serves a target.

        Raises
        ------
        WeibingError
            If the target has none, or its files are damaged.
        """
        return self.load(f"models:/{target}@{CHAMPION}")

    def champions(self) -> dict[str, RiskModel]:
        """Load the model of every target that has a champion, by name of the target.

        Raises
        ------
        WeibingError
            If the files of one are damaged.
        """
        return {target: self.load(f"models:/{target}/{version}") for target, version in self.versions().items()}

    def versions(self, alias: Alias = CHAMPION) -> dict[str, str]:
        """Return which version of every target bears an alias; targets without one are left out."""
        return self._place.bearers(alias)

    def without_champion(self) -> tuple[str, ...]:
        """Return the targets that have versions, of which none is the champion: nothing of them is served."""
        return tuple(
            sorted({each.name for each in self._place.search("") if DIGEST in each.tags} - self.versions().keys())
        )

    def load(self, uri: str) -> RiskModel:
        """Load a model by its address: ``models:/fall@champion``, ``models:/fall/3`` or ``runs:/…``.

        Raises
        ------
        WeibingError
            If the address names no model, or the model's files are damaged.
        """
        folder, version = self.files(uri)
        return RiskModel.load(folder).with_version(version)

    def files(self, uri: str) -> tuple[Path, str]:
        """Return the folder of a model's files, which are those that were registered, and its version.

        Raises
        ------
        WeibingError
            If the address names no model, or the files are others.
        """
        version = self._place.version(uri)
        folder = self._place.files_of(version) / "artifacts" / MODEL
        if version.tags.get(DIGEST) != digest_of(folder):
            raise WeibingError(
                f"The files of version {version.version} of {version.name} in {folder} are missing, or not those that"
                " were registered. Restore them from a backup, or train again and promote the new version."
            )
        return folder, str(version.version)

    def judge(self, target: str, version: str) -> Decision:
        """Ask the rule of promotion whether a version may serve in place of the champion.

        Raises
        ------
        WeibingError
            If there is no such version.
        """
        champion = self.versions().get(target)
        others = None if champion == version else champion
        try:
            shown = [
                self._held_out(self._place.version(f"models:/{target}/{each}")) for each in (version, others) if each
            ]
        except _NoEvidenceError as error:
            return without_evidence(target, version, others, str(error))
        return decide(shown[0], shown[1] if others else None)

    def promote(self, target: str, version: str, *, force: bool = False, reason: str = "") -> Decision:
        """Let a version of a target serve from now on, if the rule passes it, and write it down.

        Parameters
        ----------
        force : promote it although the rule refuses it; what refused it is written down
        reason : why, in words

        Returns
        -------
        The decision, without checks where the version is the champion already.

        Raises
        ------
        RefusedError
            If the rule refuses it and it is not forced.
        WeibingError
            If there is no such version, its files are damaged, or the reason is missing or too long.
        """
        _require_reason(reason, needed=force)
        self.load(f"models:/{target}/{version}")
        with self._place.only_writer():
            self._place.prepare()
            if self.versions().get(target) == version:
                return Decision(target, version, version, ())
            decision = self.judge(target, version)
            if decision.refused and not force:
                raise RefusedError(decision)
            against = tuple(check.name for check in decision.refused)
            self._change(target, version, "forced" if against else "promoted", reason, against)
        return decision

    def rollback(self, target: str, *, reason: str = "") -> Promotion:
        """Let the champion before the present one serve again, and write it down.

        Raises
        ------
        WeibingError
            If there was none before, or its files are damaged.
        """
        _require_reason(reason, needed=False)
        self._place.version(f"models:/{target}@{CHAMPION}")
        with self._place.only_writer():
            self._place.prepare()
            champion = self.versions()[target]
            earlier = before(self.history(target), champion)
            if earlier is None:
                raise WeibingError(
                    f"Version {champion} of {target} is the first champion that the registry knows of: there is none"
                    f" to go back to. Another version can be promoted with: weibing promote {target} VERSION"
                )
            self.load(f"models:/{target}/{earlier}")
            return self._change(target, earlier, "rolled back", reason)

    def history(self, target: str) -> tuple[Promotion, ...]:
        """Return every change of a target's champion, the oldest first.

        Raises
        ------
        WeibingError
            If the registry has no model of the target.
        """
        if not self._place.search(f"name = '{target}'"):
            raise WeibingError(self._place.unknown(f"of {target}", target, []))
        tags = self._place.client.get_registered_model(target).tags
        return history_of(tags, self.versions().get(target))

    def report(self, target: str, version: str | None = None, language: str = LANGUAGES[0]) -> tuple[str, str]:
        """Return the report that was kept with a version, and the version.

        Parameters
        ----------
        version : by default the champion, or where there is none the newest

        Raises
        ------
        WeibingError
            If there is no such version, or no report was kept with it.
        """
        version = version or self.versions().get(target) or self._newest(target)
        found = self._place.version(f"models:/{target}/{version}")
        path = self._place.evidence_of(found) / REPORT / f"{language}.html"
        try:
            return path.read_text(encoding="utf-8"), version
        except OSError as error:
            raise WeibingError(
                f"No report was kept with version {version} of {target} ({path}: {error.strerror})."
                " Restore it from a backup, or train again."
            ) from error

    def _first_or_challenger(self, trained: Trained, registered: ModelVersion) -> Registered:
        """Let a new version serve, if nothing does and the rule passes it, or else stand by."""
        target, version, run_id = str(registered.name), str(registered.version), str(registered.run_id)
        decision = None if target in self.versions() else decide(held_out(trained, version), None)
        if decision is None or decision.refused:
            self._place.client.set_registered_model_alias(target, CHALLENGER, version)
            return Registered(run_id, target, version, CHALLENGER, decision)
        self._change(target, version, "first")
        return Registered(run_id, target, version, CHAMPION, decision)

    def _change(
        self, target: str, version: str, kind: Kind, reason: str = "", against: tuple[str, ...] = ()
    ) -> Promotion:
        """Let a version serve from now on.

        What is killed in between leaves the champion before, or this one: the change is written down first, and the
        alias is moved in one transaction.
        """
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        change = Promotion(version, self.versions().get(target), kind, now, _account(), reason, against)
        number = len(self.history(target))
        self._place.client.set_registered_model_tag(target, tag_of(number), change.tag())
        self._place.client.set_registered_model_alias(target, CHAMPION, version)
        self._place.client.set_model_version_tag(target, version, tag_of(number), change.line())
        if self.versions(CHALLENGER).get(target) == version:
            self._place.client.delete_registered_model_alias(target, CHALLENGER)
        return change

    def _held_out(self, version: ModelVersion) -> HeldOut:
        folder = self._place.evidence_of(version)
        who = f"version {version.version} of {version.name}"
        if EVIDENCE_DIGEST not in version.tags:
            raise _NoEvidenceError(f"No evidence was kept with {who}: train it again.")
        if version.tags[EVIDENCE_DIGEST] != digest_of_evidence(folder):
            raise _NoEvidenceError(f"The evidence of {who} in {folder} is missing, or not what the run kept.")
        return read_held_out(folder, str(version.version))

    def _newest(self, target: str) -> str:
        return max((str(each.version) for each in self._place.search(f"name = '{target}'")), key=int, default="1")


class _NoEvidenceError(Exception):
    """There is nothing to judge a version by; says why."""


def _require_reason(reason: str, *, needed: bool) -> None:
    if needed and not reason.strip():
        raise WeibingError("Whoever promotes a version against the rule says why: give a reason.")
    if len(reason) > LONGEST_REASON:
        raise WeibingError(f"The reason has {len(reason):,} characters; it may have {LONGEST_REASON:,}.")


def _account() -> str:
    """Return whose account of the machine this is: the name, or its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
