"""What an operator may set, by environment variables that begin with ``WEIBING_``."""

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from features.errors import WeibingError
from features.times import zone

PREFIX = "WEIBING_"
PATHS = ("mlruns", "store", "login_server", "cds_clients")


class Settings(BaseSettings):
    """Settings of the service.

    Attributes
    ----------
    mlruns : folder of the MLflow registry
    db : the operational database: a file such as weibing.db, or postgresql://…
    store : folder of the event store; without one, what came since the last night is all that is known
    demo : whether a key is taken that everybody knows; for made-up residents alone
    login_server : a TOML file that says how to log in by OpenID Connect; without one there are local accounts alone
    duty_targets : by which version of the targets of control duties go: 2017, 2024 or 2025
    host, port : where to listen
    workers : processes that answer; each holds the models
    timezone : the zone of dates and times that come without one
    targets : what to serve, with commas between; empty for every target that has a champion
    most_bytes, most_residents, most_events : the largest call
    most_at_once : calls that may be under way in a worker; more are turned away
    rate_per_second, rate_burst : how often a caller may ask, in the long run and at once; a rate of 0 is no limit
    receive_seconds, answer_seconds : how long a caller may take to send, and the service to answer or to go on
    refresh_seconds : how often the registry is asked for other champions
    public_url : where others reach the service, such as https://weibing.example.cn; empty where none does
    language : of what other systems show, where they do not say which they want: zh or en
    fhir_page, fhir_most : how many resources a page of a FHIR search holds by default, and at most
    cds_clients : a TOML file of the systems that may call the CDS Hooks services; without one there are none
    cds_open_discovery : whether anybody may ask which CDS Hooks services there are
    cds_fetch_seconds, cds_fetch_bytes : how long a call may fetch from a FHIR server, and how much
    cds_least_tier : the lowest tier of a risk that makes a card
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    mlruns: Path = Path("mlruns")
    db: str = Field(default="", repr=False)
    store: Path | None = None
    demo: bool = False
    login_server: Path | None = None
    duty_targets: Literal["2017", "2024", "2025"] = "2017"
    host: str = "127.0.0.1"
    port: int = Field(default=3000, ge=1, le=65_535)
    workers: int = Field(default=1, ge=1, le=256)
    timezone: str = "Asia/Shanghai"
    targets: Annotated[tuple[str, ...], NoDecode] = ()
    most_bytes: int = Field(default=16 * 2**20, ge=1)
    most_residents: int = Field(default=1_000, ge=1)
    most_events: int = Field(default=100_000, ge=0)
    most_at_once: int = Field(default=64, ge=1)
    rate_per_second: float = Field(default=100.0, ge=0)
    rate_burst: int = Field(default=500, ge=1)
    receive_seconds: float = Field(default=30.0, gt=0)
    answer_seconds: float = Field(default=60.0, gt=0)
    refresh_seconds: float = Field(default=30.0, gt=0)
    public_url: str = ""
    language: Literal["zh", "en"] = "zh"
    fhir_page: int = Field(default=50, ge=1)
    fhir_most: int = Field(default=1_000, ge=1)
    cds_clients: Path | None = None
    cds_open_discovery: bool = False
    cds_fetch_seconds: float = Field(default=3.0, gt=0)
    cds_fetch_bytes: int = Field(default=8 * 2**20, ge=1)
    cds_least_tier: Literal["low", "moderate", "high", "very high"] = "high"

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        return str(ip_address("127.0.0.1" if host == "localhost" else host))

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", url):
            raise ValueError("this is not an address such as https://weibing.example.cn")
        return url.rstrip("/")

    @field_validator("targets", mode="before")
    @classmethod
    def _listed(cls, targets: object) -> object:
        return tuple(filter(None, map(str.strip, targets.split(",")))) if isinstance(targets, str) else targets

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            return zone(name).key
        except WeibingError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def from_environment(cls, **given: object) -> "Settings":
        """Read the settings; what is given, and not None, goes before the environment.

        Raises
        ------
        WeibingError
            If a setting cannot be what it is set to; names it.
        """
        try:
            return cls.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            faults = [f"{PREFIX}{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
            raise WeibingError(f"The service cannot be set up so. {'; '.join(faults)}.".replace("..", ".")) from error

    def export(self) -> None:
        """Put the settings into the environment, for the processes that answer."""
        paths = {name: path.absolute() for name in PATHS if (path := getattr(self, name))}
        absolute = self.model_copy(update=paths)
        for name, value in absolute.model_dump(mode="json", exclude_none=True).items():
            text = ",".join(value) if isinstance(value, list) else str(value)
            os.environ[f"{PREFIX}{name.upper()}"] = text
