"""What is sent when a hook is called, and as feedback; what the standard does not name is not looked at."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.api.problems import Fault, ProblemError, unprocessable

STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
MOST_FAULTS = 20
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

FhirId = Annotated[str, Field(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
User = Annotated[str, Field(pattern=r"^(Practitioner|PractitionerRole|Patient|RelatedPerson)/[A-Za-z0-9\-.]{1,64}$")]
# As it goes into a header (RFC 6750).
# No database keeps the character without a shape.
PLAIN = r"^[^\x00]*$"
AccessToken = Annotated[str, Field(pattern=r"^[A-Za-z0-9\-._~+/]+=*$", max_length=8_192)]

B = TypeVar("B", bound=BaseModel)


class PatientView(BaseModel):
    """The context of `patient-view`."""

    model_config = STRICT

    userId: User  # noqa: N815 - the standard's own name
    patientId: FhirId  # noqa: N815
    encounterId: FhirId | None = None  # noqa: N815


class EncounterStart(PatientView):
    """The context of `encounter-start`."""

    encounterId: FhirId  # noqa: N815


CONTEXTS: Mapping[str, type[PatientView]] = {"patient-view": PatientView, "encounter-start": EncounterStart}


class FhirAuthorization(BaseModel):
    """A token with which to fetch from the caller's FHIR server."""

    model_config = STRICT

    access_token: AccessToken
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(ge=0)]
    scope: str
    subject: str


class HookCall(BaseModel):
    """The call of a hook."""

    model_config = STRICT

    hook: str
    hookInstance: UUID  # noqa: N815
    fhirServer: Annotated[str, Field(max_length=2_000)] | None = None  # noqa: N815
    fhirAuthorization: FhirAuthorization | None = None  # noqa: N815
    context: dict[str, object]
    prefetch: dict[str, dict[str, object] | None] = {}

    @model_validator(mode="after")
    def _names_its_server(self) -> "HookCall":
        if self.fhirAuthorization is not None and self.fhirServer is None:
            raise ValueError("fhirAuthorization needs a fhirServer")
        return self


class Accepted(BaseModel):
    """A suggestion that was accepted."""

    model_config = STRICT

    id: Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]


class Coding(BaseModel):
    """A code of some system."""

    model_config = STRICT

    code: Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
    system: Annotated[str, Field(max_length=500, pattern=PLAIN)] | None = None
    display: Annotated[str, Field(max_length=500, pattern=PLAIN)] | None = None


class OverrideReason(BaseModel):
    """Why a card was overridden."""

    model_config = STRICT

    reason: Coding | None = None
    userComment: Annotated[str, Field(max_length=4_000, pattern=PLAIN)] | None = None  # noqa: N815


class Feedback(BaseModel):
    """What became of a card."""

    model_config = STRICT

    card: Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
    outcome: Literal["accepted", "overridden"]
    acceptedSuggestions: list[Accepted] = []  # noqa: N815
    overrideReason: OverrideReason | None = None  # noqa: N815
    outcomeTimestamp: Annotated[AwareDatetime, Field(ge=EARLIEST, lt=LATEST)]  # noqa: N815

    @model_validator(mode="after")
    def _says_what_was_accepted(self) -> "Feedback":
        if self.outcome == "accepted" and not self.acceptedSuggestions:
            raise ValueError("an accepted card needs its acceptedSuggestions")
        return self


class FeedbackCall(BaseModel):
    """Feedback on cards."""

    model_config = STRICT

    feedback: Annotated[list[Feedback], Field(min_length=1, max_length=1_000)]


def read(kind: type[B], body: bytes, content_type: str) -> B:
    """Read what was sent.

    Raises
    ------
    ProblemError
        415 where it is not JSON by its own account, 422 where it says what cannot be.
    """
    if content_type.lower().partition(";")[0].strip() != "application/json":
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON, with Content-Type: application/json.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _said(error) from None


def read_context(call: HookCall) -> PatientView:
    """Read the context of a call of a hook that is known.

    Raises
    ------
    ProblemError
        422 where it says what cannot be.
    """
    try:
        return CONTEXTS[call.hook].model_validate(call.context)
    except ValidationError as error:
        raise _said(error, "context") from None


def _said(error: ValidationError, *place: str) -> ProblemError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_FAULTS]
    return unprocessable(
        *(Fault((*place, *fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in faults)
    )
