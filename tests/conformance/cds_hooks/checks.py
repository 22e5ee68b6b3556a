"""What is checked of a service: each check is a sentence, and fails with what is wrong."""

import base64
import hmac
import json
from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest
from joserfc import jwk

from tests.conformance.cds_hooks.client import REQUIRED, Json, Listener, Target
from tests.conformance.cds_hooks.rules import OF_A_CARD, OF_A_SERVICE, Rule, nothing_is_null_or_empty

REFUSED = (401, 403)


def discovery_answers_with_services(target: Target) -> None:
    assert target.services, "there is no service"


def discovery_is_json(target: Target) -> None:
    _require_json(target.ask("GET", "").headers.get("content-type", ""))


def nothing_in_discovery_is_null_or_empty(target: Target) -> None:
    _require_none(nothing_is_null_or_empty(target.services, "services"))


def service_ids_are_distinct(target: Target) -> None:
    ids = [(service.get("id"), service.get("hook")) for service in target.services]
    assert len(set(ids)) == len(ids), f"twice: {ids}"


def a_call_is_answered_with_cards(target: Target) -> None:
    assert target.answers is not None


def an_answer_is_json(target: Target) -> None:
    for service in target.services:
        _require_json(target.call(service).headers.get("content-type", ""))


def system_actions_are_actions(target: Target) -> None:
    for answer in target.answers:
        actions = answer.get("systemActions", [{"type": "delete", "resourceId": "none"}])
        assert isinstance(actions, list), "systemActions is no list"
        assert actions, "systemActions is empty"
        assert all(isinstance(it, dict) and it.get("type") in ("create", "update", "delete") for it in actions)


def card_uuids_are_distinct(target: Target) -> None:
    uuids = [card["uuid"] for card in target.cards if "uuid" in card]
    assert len(set(uuids)) == len(uuids), "two cards have one uuid"


def what_the_standard_does_not_name_is_let_pass(target: Target) -> None:
    for service in target.services:
        answer = target.call(service, extension={"org.example.conformance": "yes"})
        assert answer.status_code == 200, f"an extension was answered with {answer.status_code}"


def a_hook_of_another_service_is_refused(target: Target) -> None:
    _each_is_refused(target, lambda service: {"hook": "org-example-unknown"})


def a_call_without_a_hook_is_refused(target: Target) -> None:
    _each_lacks(target, "hook")


def a_call_without_a_hook_instance_is_refused(target: Target) -> None:
    _each_lacks(target, "hookInstance")


def a_call_without_a_context_is_refused(target: Target) -> None:
    _each_lacks(target, "context")


def a_context_without_what_the_hook_requires_is_refused(target: Target) -> None:
    for service in target.services:
        context = target.body(service)["context"]
        assert isinstance(context, dict)
        for name in REQUIRED.get(str(service.get("hook")), ()):
            less = {field: value for field, value in context.items() if field != name}
            _require_refused(target.call(service, context=less), f"a context without {name}")


def an_authorization_without_a_server_is_refused(target: Target) -> None:
    for service in target.services:
        body = {name: it for name, it in target.body(service).items() if name != "fhirServer"}
        body["fhirAuthorization"] = _authorization()
        _require_refused(target.ask("POST", target.path(service), body), "fhirAuthorization without fhirServer")


def what_cannot_be_had_is_answered_with_412(target: Target) -> None:
    for service in _with_prefetch(target):
        lacking = ("prefetch", "fhirServer", "fhirAuthorization")
        body = {name: it for name, it in target.body(service).items() if name not in lacking}
        answer = target.ask("POST", target.path(service), body)
        assert answer.status_code == 412, f"without prefetch and server it answered {answer.status_code}"


def a_server_that_nobody_listed_is_not_asked(target: Target) -> None:
    with Listener() as listener:
        for service in _with_prefetch(target):
            body = {name: it for name, it in target.body(service).items() if name != "prefetch"}
            body |= {"fhirServer": listener.url, "fhirAuthorization": _authorization()}
            answer = target.ask("POST", target.path(service), body)
            assert answer.status_code == 412, f"it answered {answer.status_code}"
    assert not listener.asked, f"a server that nobody listed was asked: {listener.asked}"


def a_body_that_is_not_json_is_refused(target: Target) -> None:
    for service in target.services:
        headers = {"Content-Type": "application/json"}
        answer = target.ask("POST", target.path(service), content=b'{"hook": ', headers=headers)
        _require_refused(answer, "half a JSON text")


def an_unknown_service_is_not_found(target: Target) -> None:
    answer = target.ask("POST", "/org-example-unknown", target.body(target.services[0]))
    assert answer.status_code == 404, f"it answered {answer.status_code}"


def a_failure_has_no_cards(target: Target) -> None:
    for service in target.services:
        answer = target.call(service, context={})
        assert answer.status_code >= 400, f"it answered {answer.status_code}"
        assert '"cards"' not in answer.text, "a failure looks like an answer"


def accepted_feedback_is_taken(target: Target) -> None:
    _feed(target, {"outcome": "accepted", "acceptedSuggestions": [{"id": str(uuid4())}]}, 200)


def overridden_feedback_is_taken(target: Target) -> None:
    _feed(target, {"outcome": "overridden"}, 200)


def a_reason_of_overriding_is_taken(target: Target) -> None:
    reason = {"reason": {"code": "other", "system": "https://example.org/reasons"}, "userComment": "Seen yesterday."}
    _feed(target, {"outcome": "overridden", "overrideReason": reason}, 200)


def feedback_of_another_outcome_is_refused(target: Target) -> None:
    _feed(target, {"outcome": "ignored"}, 400)


def accepted_feedback_without_suggestions_is_refused(target: Target) -> None:
    _feed(target, {"outcome": "accepted"}, 400)


def feedback_without_a_card_is_refused(target: Target) -> None:
    _feed(target, {"outcome": "overridden", "card": ""}, 400)


def feedback_on_an_unknown_service_is_not_found(target: Target) -> None:
    answer = target.ask("POST", "/org-example-unknown/feedback", _feedback({"outcome": "overridden"}))
    assert answer.status_code == 404, f"it answered {answer.status_code}"


def a_listed_page_may_call(target: Target) -> None:
    _require_origin(target)
    answer = _preflight(target, target.origin)
    assert answer.status_code in (200, 204), f"the preflight was answered with {answer.status_code}"
    assert answer.headers.get("access-control-allow-origin") in (target.origin, "*")
    assert "POST" in answer.headers.get("access-control-allow-methods", "")
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    assert {"authorization", "content-type"} <= set(allowed.replace(" ", "").split(",")), f"headers allowed: {allowed}"


def a_listed_page_may_read_the_answer(target: Target) -> None:
    _require_origin(target)
    answer = target.ask("GET", "", headers={"Origin": target.origin})
    assert answer.headers.get("access-control-allow-origin") in (target.origin, "*")


def a_page_that_nobody_listed_may_not_call(target: Target) -> None:
    answer = _preflight(target, "https://conformance.invalid")
    assert "access-control-allow-origin" not in answer.headers, "any page may call"


def a_call_without_a_token_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: "")


def a_call_with_something_else_than_a_token_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: "not.a.token")


def a_token_for_another_address_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: target.token(path, aud="https://conformance.invalid/cds-services"))


def a_token_of_another_issuer_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: target.token(path, iss="https://conformance.invalid"))


def an_expired_token_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: target.token(path, iat=1_500_000_000, exp=1_500_000_300))


def a_token_that_never_expires_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: target.token(path, without=("exp",)))


def a_token_without_a_jti_is_refused(target: Target) -> None:
    _each_token_is_refused(target, lambda path: target.token(path, without=("jti",)))


def a_token_signed_by_another_key_is_refused(target: Target) -> None:
    _require_key(target)
    other = jwk.ECKey.generate_key("P-384", {"kid": str(target.signer.key.kid), "use": "sig"})
    stranger = type(target.signer)(other, target.signer.issuer)
    _each_token_is_refused(target, lambda path: stranger.token(f"{target.audience}/cds-services{path}"))


def a_token_that_was_changed_is_refused(target: Target) -> None:
    def changed(path: str) -> str:
        first, last = target.token(path), target.token(path)
        return ".".join([*first.split(".")[:2], last.split(".")[2]])

    _each_token_is_refused(target, changed)


def an_unsigned_token_is_refused(target: Target) -> None:
    header = _encoded(b'{"alg":"none","typ":"JWT"}')
    _each_token_is_refused(target, lambda path: f"{header}.{target.token(path).split('.')[1]}.")


def a_token_signed_by_a_shared_secret_is_refused(target: Target) -> None:
    _require_key(target)
    # The public key as the secret: it is what opens a service that lets the token choose how it is verified.
    secret, kid = target.signer.key.as_pem(private=False), target.signer.key.kid
    header = _encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())

    def shared(path: str) -> str:
        signed = f"{header}.{target.token(path).split('.')[1]}"
        return f"{signed}.{_encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"

    _each_token_is_refused(target, shared)


def a_token_is_good_for_one_call(target: Target) -> None:
    _require_key(target)
    for service in target.services:
        token = target.token(target.path(service))
        first, again = (target.ask("POST", target.path(service), target.body(service), token=token) for _ in range(2))
        assert first.status_code == 200, f"the first call was answered with {first.status_code}"
        assert again.status_code in REFUSED, f"the second call was answered with {again.status_code}"


def feedback_without_a_token_is_refused(target: Target) -> None:
    _require_key(target)
    for service in target.services:
        path = target.path(service, "/feedback")
        answer = target.ask("POST", path, _feedback({"outcome": "overridden"}), token="")
        assert answer.status_code in REFUSED, f"it answered {answer.status_code}"


Check = Callable[[Target], None]


def _rule(rule: Rule, target: Target, *, of_a_card: bool) -> None:
    for number, found in enumerate(target.cards if of_a_card else target.services):
        _require_none(rule(found), f"{'card' if of_a_card else 'service'} {number}: ")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        discovery_answers_with_services,
        discovery_is_json,
        nothing_in_discovery_is_null_or_empty,
        service_ids_are_distinct,
        a_call_is_answered_with_cards,
        an_answer_is_json,
        system_actions_are_actions,
        card_uuids_are_distinct,
        what_the_standard_does_not_name_is_let_pass,
        a_hook_of_another_service_is_refused,
        a_call_without_a_hook_is_refused,
        a_call_without_a_hook_instance_is_refused,
        a_call_without_a_context_is_refused,
        a_context_without_what_the_hook_requires_is_refused,
        an_authorization_without_a_server_is_refused,
        what_cannot_be_had_is_answered_with_412,
        a_server_that_nobody_listed_is_not_asked,
        a_body_that_is_not_json_is_refused,
        an_unknown_service_is_not_found,
        a_failure_has_no_cards,
        accepted_feedback_is_taken,
        overridden_feedback_is_taken,
        a_reason_of_overriding_is_taken,
        feedback_of_another_outcome_is_refused,
        accepted_feedback_without_suggestions_is_refused,
        feedback_without_a_card_is_refused,
        feedback_on_an_unknown_service_is_not_found,
        a_listed_page_may_call,
        a_listed_page_may_read_the_answer,
        a_page_that_nobody_listed_may_not_call,
        a_call_without_a_token_is_refused,
        a_call_with_something_else_than_a_token_is_refused,
        a_token_for_another_address_is_refused,
        a_token_of_another_issuer_is_refused,
        an_expired_token_is_refused,
        a_token_that_never_expires_is_refused,
        a_token_without_a_jti_is_refused,
        a_token_signed_by_another_key_is_refused,
        a_token_that_was_changed_is_refused,
        an_unsigned_token_is_refused,
        a_token_signed_by_a_shared_secret_is_refused,
        a_token_is_good_for_one_call,
        feedback_without_a_token_is_refused,
    )
}
CHECKS |= {f"service: {rule.__name__}": partial(_rule, rule, of_a_card=False) for rule in OF_A_SERVICE}
CHECKS |= {f"card: {rule.__name__}": partial(_rule, rule, of_a_card=True) for rule in OF_A_CARD}


@pytest.mark.parametrize("name", CHECKS)
def test_cds_hooks(name: str, cds_hooks_target: Target) -> None:
    CHECKS[name](cds_hooks_target)


def _require_none(faults: object, place: str = "") -> None:
    found = list(faults)
    assert not found, place + "; ".join(found[:5])


def _require_json(content_type: str) -> None:
    assert content_type.partition(";")[0] == "application/json", f"the content type is {content_type!r}"


def _require_refused(answer: object, what: str) -> None:
    assert 400 <= answer.status_code < 500, f"{what} was answered with {answer.status_code}"


def _require_key(target: Target) -> None:
    if target.signer is None:
        pytest.skip("without --jwt-key nothing of authentication is shown")


def _require_origin(target: Target) -> None:
    if not target.origin:
        pytest.skip("without --cds-hooks-origin no page is known that may call")


def _with_prefetch(target: Target) -> list[Json]:
    found = [service for service in target.services if service.get("prefetch")]
    if not found:
        pytest.skip("no service asks for anything")
    return found


def _each_is_refused(target: Target, other: Callable[[Json], Json]) -> None:
    for service in target.services:
        _require_refused(target.call(service, **other(service)), "the call")


def _each_lacks(target: Target, name: str) -> None:
    for service in target.services:
        body = {field: value for field, value in target.body(service).items() if field != name}
        _require_refused(target.ask("POST", target.path(service), body), f"a call without {name}")


def _each_token_is_refused(target: Target, token: Callable[[str], str]) -> None:
    _require_key(target)
    for service in target.services:
        path = target.path(service)
        answer = target.ask("POST", path, target.body(service), token=token(path))
        assert answer.status_code in REFUSED, f"{service.get('id')} answered {answer.status_code}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def _authorization() -> Json:
    return {"access_token": "none", "token_type": "Bearer", "expires_in": 60, "scope": "patient/*.read", "subject": "x"}


def _feedback(said: Json) -> Json:
    return {"feedback": [{"card": str(uuid4()), "outcomeTimestamp": "2025-01-01T00:00:00Z", **said}]}


def _feed(target: Target, said: Json, status: int) -> None:
    for service in target.services:
        answer = target.ask("POST", target.path(service, "/feedback"), _feedback(said))
        if answer.status_code == 404:
            pytest.skip("there is no feedback endpoint, which the standard leaves open")
        assert answer.status_code // 100 == status // 100, f"it answered {answer.status_code}: {answer.text[:200]}"


def _preflight(target: Target, origin: str) -> object:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return target.ask("OPTIONS", target.path(target.services[0]), headers={"Origin": origin, **asked})
