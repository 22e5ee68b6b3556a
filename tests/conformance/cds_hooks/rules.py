"""What CDS Hooks 2.0 asks of an answer. Each rule yields what is wrong, with its place; nothing where it is kept."""

import re
from collections.abc import Callable, Iterator, Mapping
from uuid import UUID

Json = Mapping[str, object]
Faults = Iterator[str]

INDICATORS = ("info", "warning", "critical")
BEHAVIORS = ("at-most-one", "any")
ACTIONS = ("create", "update", "delete")
LINKS = ("absolute", "smart")
# The fields of each hook's context that may stand in a prefetch template.
TOKENS = {
    "patient-view": ("userId", "patientId", "encounterId"),
    "encounter-start": ("userId", "patientId", "encounterId"),
    "encounter-discharge": ("userId", "patientId", "encounterId"),
    "order-select": ("userId", "patientId", "encounterId"),
    "order-sign": ("userId", "patientId", "encounterId"),
    "appointment-book": ("userId", "patientId", "encounterId"),
}
USER_TOKENS = ("userPractitionerId", "userPractitionerRoleId", "userPatientId", "userRelatedPersonId")

_ABSOLUTE = re.compile(r"https?://[^\s/]+\S*")
_READ = re.compile(r"[A-Z][A-Za-z]+/[^/?]+|\{\{context\.userId\}\}")
_SEARCH = re.compile(r"([A-Z][A-Za-z]+)\?(\S+)")


def nothing_is_null_or_empty(found: object, place: str = "") -> Faults:
    if found is None or found in ("", [], {}):
        yield f"{place} is {found!r}"
    elif isinstance(found, dict):
        for name, part in found.items():
            yield from nothing_is_null_or_empty(part, f"{place}.{name}")
    elif isinstance(found, list):
        for number, part in enumerate(found):
            yield from nothing_is_null_or_empty(part, f"{place}[{number}]")


def a_service_has_hook_id_and_description(service: Json) -> Faults:
    yield from _texts(service, "hook", "id", "description")


def a_service_may_have_a_title(service: Json) -> Faults:
    if "title" in service:
        yield from _texts(service, "title")


def a_service_id_can_stand_in_an_address(service: Json) -> Faults:
    if not re.fullmatch(r"[A-Za-z0-9\-._~]+", str(service.get("id"))):
        yield f"id {service.get('id')!r}"


def prefetch_templates_are_named_texts(service: Json) -> Faults:
    prefetch = service.get("prefetch", {})
    if not isinstance(prefetch, dict):
        yield f"prefetch is {prefetch!r}"
        return
    for name, template in prefetch.items():
        if not name or not isinstance(template, str) or not template:
            yield f"prefetch.{name} is {template!r}"


def prefetch_templates_are_relative(service: Json) -> Faults:
    for name, template in _templates(service):
        if "://" in template or template.startswith("/"):
            yield f"prefetch.{name} is {template!r}"


def prefetch_templates_read_or_search(service: Json) -> Faults:
    for name, template in _templates(service):
        if not (_READ.fullmatch(template) or _SEARCH.fullmatch(template)):
            yield f"prefetch.{name} is {template!r}"


def prefetch_tokens_are_of_the_context(service: Json) -> Faults:
    known = TOKENS.get(str(service.get("hook")))
    for name, template in _templates(service):
        for token in re.findall(r"\{\{(.*?)\}\}", template):
            field = token.removeprefix("context.")
            in_context = token.startswith("context.") and (known is None or field in known) and "." not in field
            if not in_context and token not in USER_TOKENS:
                yield f"prefetch.{name} has the token {token!r}"


def prefetch_modifiers_are_the_simple_ones(service: Json) -> Faults:
    for name, template in _templates(service):
        if match := _SEARCH.fullmatch(template):
            for parameter in match[2].split("&"):
                modifier = parameter.partition("=")[0].partition(":")[2]
                if modifier not in ("", "in"):
                    yield f"prefetch.{name} has the modifier {modifier!r}"


def a_summary_is_one_line_below_140_characters(card: Json) -> Faults:
    summary = card.get("summary")
    if not isinstance(summary, str) or not 0 < len(summary) < 140:
        yield f"summary is {summary!r}"


def an_indicator_is_one_of_three(card: Json) -> Faults:
    if card.get("indicator") not in INDICATORS:
        yield f"indicator is {card.get('indicator')!r}"


def a_source_has_a_label(card: Json) -> Faults:
    source = card.get("source")
    yield from _texts(source, "label") if isinstance(source, dict) else (f"source is {source!r}",)


def a_source_has_absolute_addresses(card: Json) -> Faults:
    for name in ("url", "icon"):
        if name in _part(card, "source") and not _is_absolute(_part(card, "source")[name]):
            yield f"source.{name} is {_part(card, 'source')[name]!r}"


def a_detail_is_a_text(card: Json) -> Faults:
    if "detail" in card:
        yield from _texts(card, "detail")


def uuids_are_texts_of_enough_length(card: Json) -> Faults:
    for holder in (card, *_parts(card, "suggestions")):
        if "uuid" in holder and not _is_uuid(holder["uuid"]):
            yield f"uuid is {holder['uuid']!r}"


def suggestions_have_labels(card: Json) -> Faults:
    for suggestion in _parts(card, "suggestions"):
        yield from _texts(suggestion, "label")


def suggestions_come_with_a_selection_behavior(card: Json) -> Faults:
    if "suggestions" in card and card.get("selectionBehavior") not in BEHAVIORS:
        yield f"selectionBehavior is {card.get('selectionBehavior')!r}"


def at_most_one_recommends_at_most_one(card: Json) -> Faults:
    recommended = [it for it in _parts(card, "suggestions") if it.get("isRecommended") is True]
    if card.get("selectionBehavior") == "at-most-one" and len(recommended) > 1:
        yield f"{len(recommended)} are recommended"


def recommendations_are_booleans(card: Json) -> Faults:
    for suggestion in _parts(card, "suggestions"):
        if not isinstance(suggestion.get("isRecommended", False), bool):
            yield f"isRecommended is {suggestion['isRecommended']!r}"


def actions_have_a_type(card: Json) -> Faults:
    for action in _actions(card):
        if action.get("type") not in ACTIONS:
            yield f"type is {action.get('type')!r}"


def actions_have_a_description(card: Json) -> Faults:
    for action in _actions(card):
        yield from _texts(action, "description")


def created_and_updated_resources_are_there(card: Json) -> Faults:
    for action in _actions(card):
        if action.get("type") in ("create", "update") and not _part(action, "resource").get("resourceType"):
            yield f"resource is {action.get('resource')!r}"


def deleted_resources_are_named(card: Json) -> Faults:
    for action in _actions(card):
        if action.get("type") == "delete" and not re.fullmatch(r"[A-Za-z]+/\S+", str(action.get("resourceId"))):
            yield f"resourceId is {action.get('resourceId')!r}"


def override_reasons_have_code_and_display(card: Json) -> Faults:
    for reason in _parts(card, "overrideReasons"):
        yield from _texts(reason, "code", "display")


def links_have_label_address_and_type(card: Json) -> Faults:
    for link in _parts(card, "links"):
        yield from _texts(link, "label")
        if not _is_absolute(link.get("url")):
            yield f"url is {link.get('url')!r}"
        if link.get("type") not in LINKS:
            yield f"type is {link.get('type')!r}"


def only_smart_links_have_an_app_context(card: Json) -> Faults:
    for link in _parts(card, "links"):
        if "appContext" in link and (link.get("type") != "smart" or not isinstance(link["appContext"], str)):
            yield f"appContext of a link of type {link.get('type')!r}"


Rule = Callable[[Json], Faults]

OF_A_SERVICE: tuple[Rule, ...] = (
    a_service_has_hook_id_and_description,
    a_service_may_have_a_title,
    a_service_id_can_stand_in_an_address,
    prefetch_templates_are_named_texts,
    prefetch_templates_are_relative,
    prefetch_templates_read_or_search,
    prefetch_tokens_are_of_the_context,
    prefetch_modifiers_are_the_simple_ones,
)
OF_A_CARD: tuple[Rule, ...] = (
    nothing_is_null_or_empty,
    a_summary_is_one_line_below_140_characters,
    an_indicator_is_one_of_three,
    a_source_has_a_label,
    a_source_has_absolute_addresses,
    a_detail_is_a_text,
    uuids_are_texts_of_enough_length,
    suggestions_have_labels,
    suggestions_come_with_a_selection_behavior,
    at_most_one_recommends_at_most_one,
    recommendations_are_booleans,
    actions_have_a_type,
    actions_have_a_description,
    created_and_updated_resources_are_there,
    deleted_resources_are_named,
    override_reasons_have_code_and_display,
    links_have_label_address_and_type,
    only_smart_links_have_an_app_context,
)


def _texts(of: Json, *names: str) -> Faults:
    for name in names:
        if not isinstance(of.get(name), str) or not of[name]:
            yield f"{name} is {of.get(name)!r}"


def _part(of: Json, name: str) -> Json:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _parts(of: Json, name: str) -> list[Json]:
    """Return the objects of a list; what is no object there is an empty one, and fails whatever asks for its parts."""
    found = of.get(name, [])
    return [it if isinstance(it, dict) else {} for it in found] if isinstance(found, list) else [{}]


def _actions(card: Json) -> list[Json]:
    return [action for suggestion in _parts(card, "suggestions") for action in _parts(suggestion, "actions")]


def _templates(service: Json) -> list[tuple[str, str]]:
    return [(name, it) for name, it in _part(service, "prefetch").items() if isinstance(it, str)]


def _is_absolute(url: object) -> bool:
    return isinstance(url, str) and bool(_ABSOLUTE.fullmatch(url))


def _is_uuid(found: object) -> bool:
    try:
        UUID(str(found))
    except ValueError:
        return False
    return True
