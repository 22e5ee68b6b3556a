"""Decision support in other systems' workflow: CDS Hooks 2.0. See `docs/cds_hooks.md`.

clients.py    who may call: a TOML file of systems, their keys and their FHIR servers
tokens.py     JSON web tokens, by which a system says who it is
outward.py    requests to the servers that the operator listed, and to no others
calls.py      what is sent when a hook is called, or with feedback
prefetch.py   the resources that a service asks for: sent along, or fetched
told.py       resources of a Patient, as events
cards.py      scores and duties, as cards
router.py     the routes
"""

from serving.api.cds_hooks.calls import Feedback
from serving.api.cds_hooks.clients import Client, read_clients
from serving.api.cds_hooks.router import Assessor, FeedbackBook, cds_hooks_router
from serving.api.cds_hooks.tokens import MemoryReplays, ReplayBook
from serving.api.cds_hooks.told import Told

__all__ = [
    "Assessor",
    "Client",
    "Feedback",
    "FeedbackBook",
    "MemoryReplays",
    "ReplayBook",
    "Told",
    "cds_hooks_router",
    "read_clients",
]
