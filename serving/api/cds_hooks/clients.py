"""Who may call the CDS Hooks services: systems that the operator has listed in a TOML file.

[[client]]
issuer = "https://ehr.example.cn"
keys = "https://ehr.example.cn/jwks.json"     # or keys_file = "ehr.jwks.json"
fhir_servers = ["https://ehr.example.cn/fhir"]
origins = ["https://ehr.example.cn"]
"""

import tomllib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from features.errors import WeibingError


def _listed_url(url: str) -> str:
    """Require an address that can be listed: HTTPS, or HTTP on this machine; of a host alone or with a path."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or parts.username is not None or parts.query or parts.fragment or ".." in url or "\\" in url:
        raise ValueError("write an address without user, query and fragment, such as https://ehr.example.cn/fhir")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("the address should begin with https:// (http:// is for 127.0.0.1 alone)")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


ListedUrl = Annotated[str, AfterValidator(_listed_url)]


class Client(BaseModel):
    """A system that may call.

    Attributes
    ----------
    issuer : as its tokens name it
    keys, keys_file : where its JWK Set is, one of the two
    fhir_servers : of which it may have us fetch; we go nowhere else
    origins : of its pages, where browsers call
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, Field(min_length=1)]
    keys: ListedUrl | None = None
    keys_file: Path | None = None
    fhir_servers: tuple[ListedUrl, ...] = ()
    origins: tuple[ListedUrl, ...] = ()

    @model_validator(mode="after")
    def _one_key_set(self) -> "Client":
        if (self.keys is None) == (self.keys_file is None):
            raise ValueError("give either keys or keys_file")
        return self

    def server(self, asked: str | None) -> str | None:
        """Return the listed FHIR server that a caller names, or None; it is the operator's own text."""
        return next((listed for listed in self.fhir_servers if asked in (listed, f"{listed}/")), None)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    client: Annotated[tuple[Client, ...], Field(min_length=1)]


def read_clients(path: Path) -> tuple[Client, ...]:
    """Read the systems that may call; the paths of keys are from the folder of the file.

    Raises
    ------
    WeibingError
        If the file cannot be read, or says what cannot be.
    """
    try:
        clients = _File.model_validate(tomllib.loads(path.read_text("utf-8"))).client
    except OSError as error:
        raise WeibingError(f"{path} cannot be read: {error.strerror}. WEIBING_CDS_CLIENTS names it.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeibingError(f"{path} is not TOML in UTF-8: {error}.") from error
    except ValidationError as error:
        raise WeibingError(f"{path}: {_first_fault(error)}. See docs/cds_hooks.md.") from error
    return _distinct([_from_folder(client, path.parent) for client in clients], path)


def _from_folder(client: Client, folder: Path) -> Client:
    if client.keys_file is None:
        return client
    return client.model_copy(update={"keys_file": folder / client.keys_file})


def _distinct(clients: Sequence[Client], path: Path) -> tuple[Client, ...]:
    issuers = [client.issuer for client in clients]
    twice = next((issuer for issuer in issuers if issuers.count(issuer) > 1), None)
    if twice:
        raise WeibingError(f"{path}: the issuer {twice} is listed twice. Join the two.")
    return tuple(clients)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
