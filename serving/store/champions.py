"""The champions as they were last read from the model registry: what serves while it is away.

Of each the whole folder is kept as one archive, a megabyte or two: the trees, those of the folds, and the tables that
explain them, so that a copy serves as soon as what is in the registry would.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import sqlalchemy as sql

from features.errors import WeibingError
from serving.store.database import Database, insert
from serving.store.tables import champions
from training.model import RiskModel

# Of every file in an archive, so that the same files make the same archive.
WRITTEN = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class KeptChampion:
    """A champion of a target: `artifact` holds the model's files, `digest` is the archive's SHA-256."""

    target: str
    version: str
    digest: str
    artifact: bytes
    kept_at: datetime

    @classmethod
    def of(cls, target: str, version: str, folder: Path, now: datetime) -> "KeptChampion":
        """Pack the files of a model."""
        artifact = packed(folder)
        return cls(target, version, sha256(artifact).hexdigest(), artifact, now)

    def model(self) -> RiskModel:
        """Return the model.

        Raises
        ------
        WeibingError
            If the copy is damaged, or the model does not say what it said when it was made.
        """
        if sha256(self.artifact).hexdigest() != self.digest:
            raise WeibingError(f"The database's copy of version {self.version} of {self.target} is damaged.")
        with TemporaryDirectory(prefix="weibing-") as scratch:
            _unpack(self.artifact, Path(scratch))
            return RiskModel.load(Path(scratch)).with_version(self.version)


@dataclass(frozen=True)
class ChampionsKept:
    """The champions that a database keeps."""

    database: Database

    def keep(self, champion: KeptChampion) -> None:
        """Keep a champion, in the place of that target's; nothing is written where it is kept already."""
        row = asdict(champion)
        if self._same(champion):
            return
        with self.database.writing() as connection:
            added = insert(connection, champions).values(row)
            connection.execute(added.on_conflict_do_update(index_elements=["target"], set_=row))

    def drop_all_but(self, targets: Iterable[str]) -> None:
        """Forget the champions of targets that have none any more."""
        gone = self.versions().keys() - set(targets)
        if gone:
            with self.database.writing() as connection:
                connection.execute(champions.delete().where(champions.c.target.in_(sorted(gone))))

    def versions(self) -> dict[str, str]:
        """Return their versions by target."""
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(champions.c.target, champions.c.version))
            return {row.target: row.version for row in rows}

    def find(self, target: str) -> KeptChampion | None:
        """Return that of a target, if there is one."""
        with self.database.reading() as connection:
            row = connection.execute(sql.select(champions).where(champions.c.target == target)).one_or_none()
            return None if row is None else KeptChampion(**row._mapping)

    def all(self) -> dict[str, KeptChampion]:
        """Return them by target."""
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(champions).order_by(champions.c.target))
            return {row.target: KeptChampion(**row._mapping) for row in rows}

    def _same(self, champion: KeptChampion) -> bool:
        told = (champion.target, champion.version, champion.digest)
        with self.database.reading() as connection:
            query = sql.select(champions.c.target, champions.c.version, champions.c.digest)
            found = connection.execute(query.where(champions.c.target == champion.target)).one_or_none()
            return found is not None and tuple(found) == told


def packed(folder: Path) -> bytes:
    """Return the files below a folder as an archive: the same bytes for the same files."""
    archived = BytesIO()
    with ZipFile(archived, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = ZipInfo(path.relative_to(folder).as_posix(), WRITTEN)
            archive.writestr(entry, path.read_bytes(), ZIP_DEFLATED)
    return archived.getvalue()


def _unpack(artifact: bytes, folder: Path) -> None:
    try:
        with ZipFile(BytesIO(artifact)) as archive:
            archive.extractall(folder)
    except BadZipFile as error:
        raise WeibingError(f"The database's copy of a champion is damaged: {error}.") from error
