"""Whom a resource is about: Patients, as residents of the store."""

import hashlib
import re
from dataclasses import dataclass, field

import polars as pl

from features.errors import WeibingError
from features.sources.fhir.elements import Element, element, elements, text
from features.sources.fhir.reading import Resource
from features.sources.fhir.resources import LeftOutError, patient_of
from features.sources.report import Reason
from features.sources.table.identities import Identities
from features.sources.table.residents import are_identity_numbers, written_one_way

# An integer as it is written; FHIR takes 12 and 0012 for two ids.
_INTEGER = re.compile(r"0|[1-9]\d{0,17}")


@dataclass(frozen=True)
class Patients:
    """Who Patients are: by the ids that their server gave them, or by an identifier of some system."""

    identities: Identities
    system: str | None = None
    _identifiers: dict[str, str] = field(default_factory=dict)

    def add(self, patient: Resource) -> None:
        """Remember the identifier of a Patient, where that is what counts."""
        value = self._value(elements(patient.content, "identifier")) if self.system else None
        if value and patient.id:
            self._identifiers[patient.id] = value

    def id_of(self, resource: Resource) -> str:
        """Return the id of the Patient whom a resource is about.

        Raises
        ------
        LeftOutError
            If that cannot be told, or is nobody whom a crosswalk lists.
        """
        found = self._identifier_of(resource) if self.system else patient_of(resource)
        listed = self.identities.listed
        if listed is not None and self.identities.key is None:
            (one,) = written_one_way(pl.Series([found]))
            if one not in listed:
                raise LeftOutError(Reason.NOT_LISTED, resource.kind, resource.place)
        return found

    def residents(self, ids: pl.Series) -> pl.Series:
        """Return the residents of ids of Patients.

        With a secret, all ids are hashed with it, as those of tables are: an id that is an identity number becomes the
        same resident in both. Without one, an integer is used as it is, and any other id is hashed without a secret
        (the first 63 bits of SHA-256): a server made it up, and it tells nothing of a person.

        Raises
        ------
        WeibingError
            If the ids are identity numbers and there is no secret.
        """
        if self.identities.given:
            return self.identities.residents(ids)
        distinct = ids.unique().drop_nulls()
        if are_identity_numbers(distinct):
            raise WeibingError(
                "The ids of the Patients are identity numbers, which never enter the store. Hash them: put a secret in "
                "an environment variable and give its name as the key, such as WEIBING_RESIDENT_KEY."
            )
        numbers = pl.Series([_unkeyed(one) for one in distinct], dtype=pl.Int64)
        return ids.replace_strict(distinct, numbers, default=None, return_dtype=pl.Int64)

    def _identifier_of(self, resource: Resource) -> str:
        subject = element(resource.content, "subject")
        logical = self._value([element(subject, "identifier")])
        found = logical or self._identifiers.get(patient_of(resource))
        if found is None:
            thing = f"{resource.kind}, no identifier of {self.system}"
            raise LeftOutError(Reason.NO_SUBJECT, thing, resource.place)
        return found

    def _value(self, identifiers: list[Element]) -> str | None:
        return next((text(it, "value") for it in identifiers if text(it, "system") == self.system), None)


def _unkeyed(one: str) -> int:
    if _INTEGER.fullmatch(one):
        return int(one)
    return int.from_bytes(hashlib.sha256(one.encode()).digest()[:8], "big") >> 1
