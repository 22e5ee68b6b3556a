"""What the service does beside answering: what has ended by itself is forgotten."""

import logging
from threading import Event

from serving.api.clinic import Clinic
from serving.api.door import utc_now
from serving.store.database import AwayError

log = logging.getLogger(__name__)

EVERY_SECONDS = 600.0


def keep_house(clinic: Clinic, stop: Event, every: float = EVERY_SECONDS) -> None:
    """Forget sessions that have ended, every so often, until told to stop."""
    while not stop.wait(every):
        try:
            clinic.login.sessions.sweep(utc_now())
        except AwayError as error:
            log.warning("%s", error)
