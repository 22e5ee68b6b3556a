"""A pytest plugin that checks whether any service keeps to CDS Hooks 2.0.

    pytest -p tests.conformance.cds_hooks.plugin --cds-hooks-url https://cds.example.org \
        --jwt-key client.jwk --jwt-issuer https://ehr.example.org --cds-hooks-cases cases.json

Without files or folders named, pytest runs these checks and nothing else. See `docs/cds_hooks.md`.
"""

import json
from pathlib import Path

import pytest
from joserfc import jwk

from tests.conformance.cds_hooks.client import Signer, Target

CHECKS = Path(__file__).with_name("checks.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how the service under test is named."""
    group = parser.getgroup("cds-hooks", "conformance with CDS Hooks 2.0")
    group.addoption("--cds-hooks-url", metavar="URL", help="the service, without /cds-services")
    group.addoption("--cds-hooks-audience", metavar="URL", help="what tokens call it, where that is another address")
    group.addoption(
        "--cds-hooks-cases", metavar="FILE", type=Path, help="JSON: by service id, a call that brings cards"
    )
    group.addoption("--cds-hooks-origin", metavar="ORIGIN", default="", help="of a page that may call")
    group.addoption("--jwt-key", metavar="FILE", type=Path, help="the private key of a client, a JWK with its kid")
    group.addoption("--jwt-issuer", metavar="URL", default="", help="the issuer of the client's tokens")
    group.addoption("--jwt-algorithm", metavar="ALG", default="ES384", help="how they are signed")


def pytest_configure(config: pytest.Config) -> None:
    """Run the checks, where a service is named and nothing else to run."""
    if config.getoption("--cds-hooks-url") and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(CHECKS)]


@pytest.fixture(scope="session")
def cds_hooks_target(request: pytest.FixtureRequest) -> Target:
    """The service under test."""
    url = request.config.getoption("--cds-hooks-url")
    if not url:
        pytest.skip("no service is named: --cds-hooks-url URL")
    option, base = request.config.getoption, url.rstrip("/")
    cases = option("--cds-hooks-cases")
    return Target(
        url=base,
        audience=(option("--cds-hooks-audience") or base).rstrip("/"),
        signer=_signer(option("--jwt-key"), option("--jwt-issuer"), option("--jwt-algorithm")),
        cases=json.loads(cases.read_text("utf-8")) if cases else {},
        origin=option("--cds-hooks-origin"),
    )


def _signer(key: Path | None, issuer: str, algorithm: str) -> Signer | None:
    return Signer(jwk.import_key(json.loads(key.read_text("utf-8"))), issuer, algorithm) if key else None
