"""The key by which the database keeps who residents are: a stolen file or dump tells nobody without it.

What is encrypted (AES-256-GCM, a nonce of its own each time) says whose it is, so that it cannot be put into another
resident's row. An identity number is found by its keyed hash (HMAC-SHA256). Both keys are made from one secret, which
lies in the environment or in a file, never in the database; the table `keys` keeps what tells a wrong one.
"""

import hmac
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl
import sqlalchemy as sql
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from features.errors import WeibingError
from features.sources.table.residents import written_one_way
from serving.store.accounts import accounts
from serving.store.database import Database, insert
from serving.store.tables import cds_feedback, keys, residents, visits

VARIABLE, FILE_VARIABLE = "WEIBING_KEY", "WEIBING_KEY_FILE"
# As many characters as 24 random bytes have in base64: nobody tries them all.
SHORTEST = 32
HOW_TO_MAKE_ONE = "openssl rand -base64 32"

FORM = b"\x01"
NONCE_BYTES = 12
IDENTITY, NOTE, CODE, COMMENT = "identity", "note", "one-time code", "comment"
# Whose a text is that belongs to no resident.
NOBODYS = 0
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Identity:
    """Who a resident is."""

    name: str
    number: str | None = None
    telephone: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Key:
    """What identities are encrypted and found with. It is never shown."""

    encrypting: bytes = field(repr=False)
    hashing: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str, where: str = "The key") -> "Key":
        """Make the key of a secret.

        Raises
        ------
        WeibingError
            If it is short enough to be guessed.
        """
        if len(secret) < SHORTEST:
            fault = "is too short" if secret else "is empty"
            raise WeibingError(f"{where} {fault}: it needs {SHORTEST} characters. Make one with: {HOW_TO_MAKE_ONE}")
        made = HKDF(SHA256(), length=64, salt=None, info=b"weibing identities").derive(secret.encode())
        return cls(made[:32], made[32:])

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Key":
        """Read the key that WEIBING_KEY holds, or the file that WEIBING_KEY_FILE names.

        Raises
        ------
        WeibingError
            If there is none or both are set, or it cannot be read, or is short enough to be guessed.
        """
        secret, file = (environment.get(name, "") for name in (VARIABLE, FILE_VARIABLE))
        if bool(secret) == bool(file):
            fault = f"{VARIABLE} and {FILE_VARIABLE} are both set" if secret else "There is no key for identities"
            raise WeibingError(
                f"{fault}. Put one of {SHORTEST} characters or more into {VARIABLE}, or into a file that "
                f"{FILE_VARIABLE} names; make a new one with: {HOW_TO_MAKE_ONE}"
            )
        return cls.of(secret.strip(), VARIABLE) if secret else cls.in_file(Path(file))

    @classmethod
    def in_file(cls, file: Path) -> "Key":
        """Read the key that a file holds, without blanks and line breaks around it.

        Raises
        ------
        WeibingError
            If it cannot be read, or is short enough to be guessed.
        """
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise WeibingError(f"The file of the key, {file}, cannot be read: {reason}.") from error
        return cls.of(secret, f"The key in {file}")

    @property
    def proof(self) -> bytes:
        """What tells this key from another, and nothing of it."""
        return hmac.digest(self.hashing, b"weibing: which key is this", "sha256")

    def seal(self, text: str, purpose: str, subject_id: int) -> bytes:
        """Encrypt a text of a resident; each time it looks otherwise."""
        nonce = os.urandom(NONCE_BYTES)
        return FORM + nonce + AESGCM(self.encrypting).encrypt(nonce, text.encode(), _whose(purpose, subject_id))

    def unseal(self, sealed: bytes, purpose: str, subject_id: int) -> str:
        """Decrypt a text of a resident.

        Raises
        ------
        WeibingError
            If the key is another one, or the text is damaged or another resident's.
        """
        nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return AESGCM(self.encrypting).decrypt(nonce, rest, _whose(purpose, subject_id)).decode()
        except InvalidTag:
            raise WeibingError(
                f"What is encrypted of resident {subject_id} cannot be read: the key is another one, or the database "
                f"is damaged. Start with the key it was written with, in {VARIABLE} or {FILE_VARIABLE}."
            ) from None

    def hashed(self, number: str) -> bytes:
        """Return what an identity number is found by, however it is written."""
        return hmac.digest(self.hashing, written_one_way(pl.Series([number.strip()]))[0].encode(), "sha256")

    def seal_identity(self, identity: Identity, subject_id: int) -> bytes:
        """Encrypt who a resident is."""
        return self.seal(json.dumps(asdict(identity), ensure_ascii=False), IDENTITY, subject_id)

    def unseal_identity(self, sealed: bytes, subject_id: int) -> Identity:
        """Decrypt who a resident is.

        Raises
        ------
        WeibingError
            If the key is another one, or the text is damaged or another resident's.
        """
        return Identity(**json.loads(self.unseal(sealed, IDENTITY, subject_id)))


def _whose(purpose: str, subject_id: int) -> bytes:
    return f"{purpose}:{subject_id}".encode()


def need_right_key(connection: sql.Connection, key: Key, *, hold: bool = False) -> None:
    """Refuse a key that is not the one by which the database is encrypted.

    Parameters
    ----------
    hold : whether nobody may change the key until the transaction ends, as something is written with it

    Raises
    ------
    WeibingError
        If it is another one.
    """
    query = sql.select(keys.c.proof)
    proof = connection.execute(query.with_for_update(read=True) if hold else query).scalar()
    if proof is not None and not hmac.compare_digest(proof, key.proof):
        raise WeibingError(
            "The key is not the one that this database's identities are encrypted with. Start with that one, in "
            f"{VARIABLE} or {FILE_VARIABLE}."
        )


def adopt(connection: sql.Connection, key: Key, now: datetime) -> None:
    """Make a key the database's, if it has none yet.

    Raises
    ------
    WeibingError
        If it has another one.
    """
    first = insert(connection, keys).values(id=1, proof=key.proof, since=now)
    connection.execute(first.on_conflict_do_nothing(index_elements=["id"]))
    need_right_key(connection, key, hold=True)


def rotate(database: Database, old: Key, new: Key, now: datetime) -> int:
    """Encrypt everything with another key, all of it or nothing; return how many residents have an identity.

    Services that still hold the old key are refused from then on: start them anew.

    Raises
    ------
    WeibingError
        If the old key is not the database's.
    """
    with database.writing() as connection:
        connection.execute(sql.select(keys.c.id).with_for_update())
        adopt(connection, old, now)
        residents_done = sum(_reseal_identities(connection, old, new))
        for _ in _reseal_notes(connection, old, new):
            pass
        _reseal_codes(connection, old, new)
        _reseal_comments(connection, old, new)
        connection.execute(keys.update().values(proof=new.proof, since=now))
    return residents_done


def _reseal_identities(connection: sql.Connection, old: Key, new: Key) -> Iterator[int]:
    query = sql.select(residents.c.id, residents.c.subject_id, residents.c.identity)
    # The new hash of one may be there when another's is written: both are of 32 bytes that nobody meets by chance.
    change = residents.update().where(residents.c.id == sql.bindparam("row"))
    for rows in _parts(connection, query.where(residents.c.identity.is_not(None)), residents.c.id):
        told = [(row.id, row.subject_id, old.unseal_identity(row.identity, row.subject_id)) for row in rows]
        values = [
            {"row": row, "identity": new.seal_identity(who, subject), "number_hash": hash_of(new, who)}
            for row, subject, who in told
        ]
        connection.execute(change, values)
        yield len(values)


def _reseal_notes(connection: sql.Connection, old: Key, new: Key) -> Iterator[int]:
    query = sql.select(visits.c.id, residents.c.subject_id, visits.c.note).join(residents)
    change = visits.update().where(visits.c.id == sql.bindparam("row"))
    for rows in _parts(connection, query.where(visits.c.note.is_not(None)), visits.c.id):
        notes = [(row.id, row.subject_id, old.unseal(row.note, NOTE, row.subject_id)) for row in rows]
        connection.execute(change, [{"row": row, "note": new.seal(note, NOTE, who)} for row, who, note in notes])
        yield len(notes)


def _reseal_codes(connection: sql.Connection, old: Key, new: Key) -> None:
    query = sql.select(accounts.c.id, accounts.c.code_secret).where(accounts.c.code_secret.is_not(None))
    for number, sealed in connection.execute(query.with_for_update()).all():
        again = new.seal(old.unseal(sealed, CODE, number), CODE, number)
        connection.execute(accounts.update().where(accounts.c.id == number).values(code_secret=again))


def _reseal_comments(connection: sql.Connection, old: Key, new: Key) -> None:
    written = cds_feedback.c.comment
    query = sql.select(cds_feedback.c.id, written).where(written.is_not(None))
    for number, sealed in connection.execute(query.with_for_update()).all():
        again = new.seal(old.unseal(sealed, COMMENT, NOBODYS), COMMENT, NOBODYS)
        connection.execute(cds_feedback.update().where(cds_feedback.c.id == number).values(comment=again))


def _parts(
    connection: sql.Connection, query: sql.Select[int, int, bytes | None], key: sql.Column[int]
) -> Iterator[list[sql.Row[int, int, bytes | None]]]:
    last = -1
    while rows := list(connection.execute(query.where(key > last).order_by(key).limit(ROWS_AT_ONCE))):
        yield rows
        last = rows[-1].id


def hash_of(key: Key, identity: Identity | None) -> bytes | None:
    """Return what a resident is found by, if an identity number is known."""
    return key.hashed(identity.number) if identity and identity.number else None
