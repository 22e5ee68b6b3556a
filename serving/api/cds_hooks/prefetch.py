"""The resources that a service asks for: sent along with the call, or fetched with the caller's token.

What cannot be had in full is not made do with: a risk of half a record would look like the risk of the whole.
"""

import asyncio
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from features.sources.fhir.elements import Element, element, elements, text
from serving.api.cds_hooks.calls import HookCall, PatientView
from serving.api.cds_hooks.clients import Client
from serving.api.cds_hooks.outward import Outward, OutwardError, outward
from serving.api.problems import ProblemError
from serving.settings import Settings

PATIENT = "{{context.patientId}}"
TEMPLATES: Mapping[str, str] = {
    "patient": f"Patient/{PATIENT}",
    "conditions": f"Condition?patient={PATIENT}",
    "observations": f"Observation?patient={PATIENT}",
    "medications": f"MedicationRequest?patient={PATIENT}",
    "encounters": f"Encounter?patient={PATIENT}",
}
FHIR_JSON = "application/fhir+json"
MOST_PAGES = 20


async def gathered(call: HookCall, context: PatientView, client: Client, settings: Settings) -> list[Element]:
    """Return all resources that the templates ask for.

    Raises
    ------
    ProblemError
        412 where some cannot be had.
    """
    sent = {name: found for name in TEMPLATES if (found := _sent(call, name, context)) is not None}
    missing = [name for name in TEMPLATES if name not in sent]
    if missing:
        sent |= await _fetched(missing, call, context, client, settings)
    return [resource for found in sent.values() for resource in found]


def _sent(call: HookCall, name: str, context: PatientView) -> list[Element] | None:
    """Return the resources that were sent along under a name; None where they are not there in full."""
    if name not in call.prefetch:
        return None
    resource = call.prefetch[name]
    # By the standard: there is nothing to be found.
    if resource is None:
        return None if _is_read(name) else []
    if not _is_answer(resource, name, context.patientId) or _next_page(resource):
        return None
    return list(_resources(resource))


async def _fetched(
    missing: list[str], call: HookCall, context: PatientView, client: Client, settings: Settings
) -> dict[str, list[Element]]:
    """Fetch what is missing, all at once."""
    server, authorization = client.server(call.fhirServer), call.fhirAuthorization
    if server is None or authorization is None:
        why = "there is no fhirAuthorization" if authorization is None else "the fhirServer is not one that is listed"
        raise _not_had(missing, f"not all was sent along, and {why}")
    try:
        async with (
            asyncio.timeout(settings.cds_fetch_seconds),
            outward(settings.cds_fetch_seconds, settings.cds_fetch_bytes) as way,
        ):
            token, patient = authorization.access_token, context.patientId
            found = await asyncio.gather(*(_one(way, server, name, patient, token) for name in missing))
    except (OutwardError, TimeoutError) as error:
        raise _not_had(missing, f"of the FHIR server: {str(error) or 'it did not answer in time'}") from None
    return dict(zip(missing, found, strict=True))


async def _one(way: Outward, server: str, name: str, patient: str, token: str) -> list[Element]:
    """Fetch what one template asks for, page by page."""
    url: str | None = f"{server}/{TEMPLATES[name].replace(PATIENT, patient)}"
    found: list[Element] = []
    for _ in range(MOST_PAGES):
        if url is None:
            return found
        answer = await way.get(url, token=token, accept=FHIR_JSON)
        if not _is_answer(answer, name, patient):
            raise OutwardError("it answered with something else than was asked for")
        found += _resources(answer)
        url = _within(server, _next_page(answer))
    if url is None:
        return found
    raise OutwardError(f"it answered with more than {MOST_PAGES} pages")


def _within(server: str, url: str | None) -> str | None:
    """Return the address of a next page; it must be of the same server, and the token goes nowhere else."""
    if url is None:
        return None
    rest = url.removeprefix(server)
    if (
        rest == url
        or not rest.startswith(("/", "?"))
        or ".." in rest
        or "\\" in rest
        or "#" in rest
        or "%2e" in rest.lower()
    ):
        raise OutwardError("its next page is on another server")
    return url


def _is_read(name: str) -> bool:
    return "?" not in TEMPLATES[name]


def _is_answer(resource: Element, name: str, patient: str) -> bool:
    """Whether a resource is what a template asks for: the Patient with this id, or a Bundle."""
    if _is_read(name):
        return text(resource, "resourceType") == "Patient" and text(resource, "id") == patient
    return text(resource, "resourceType") == "Bundle"


def _resources(answer: Element) -> Iterator[Element]:
    if text(answer, "resourceType") != "Bundle":
        yield answer
        return
    for entry in elements(answer, "entry"):
        resource = element(entry, "resource")
        if text(resource, "resourceType") not in (None, "OperationOutcome"):
            yield resource


def _next_page(answer: Element) -> str | None:
    return next((text(link, "url") for link in elements(answer, "link") if text(link, "relation") == "next"), None)


def _not_had(missing: list[str], why: str) -> ProblemError:
    return ProblemError(HTTPStatus.PRECONDITION_FAILED, f"These cannot be had: {', '.join(missing)}; {why}.")
