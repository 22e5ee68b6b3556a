"""The tables of who may come in, and of what was done: accounts, sessions, API tokens, the audit.

Secrets are kept as digests (sessions, tokens), as argon2 hashes (passwords) or encrypted (the secrets of one-time
codes).
"""

import sqlalchemy as sql

from serving.store.tables import KEY, METADATA

# A person or a system that may come in. `password` is null where another server asks for it: then `issuer` and
# `subject` say who it is there. `code_step` is the last time step of which a one-time code was taken.
accounts = sql.Table(
    "accounts",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("label", sql.Text, nullable=False),
    sql.Column("role", sql.Text, nullable=False),
    sql.Column("password", sql.Text),
    sql.Column("password_at", sql.DateTime),
    sql.Column("must_change", sql.Boolean, nullable=False),
    sql.Column("code_secret", sql.LargeBinary),
    sql.Column("code_confirmed", sql.Boolean, nullable=False),
    sql.Column("code_step", sql.BigInteger),
    sql.Column("issuer", sql.Text),
    sql.Column("subject", sql.Text),
    sql.Column("created_at", sql.DateTime, nullable=False),
    sql.Column("disabled_at", sql.DateTime),
    sql.UniqueConstraint("name"),
    sql.UniqueConstraint("issuer", "subject"),
)

# Who is logged in. `whole`: whether the login is complete, the one-time code included.
sessions = sql.Table(
    "sessions",
    METADATA,
    sql.Column("digest", sql.Text, primary_key=True),
    sql.Column("account_id", KEY, sql.ForeignKey("accounts.id"), nullable=False),
    sql.Column("whole", sql.Boolean, nullable=False),
    sql.Column("begun_at", sql.DateTime, nullable=False),
    sql.Column("seen_at", sql.DateTime, nullable=False),
    sql.Index(None, "account_id"),
)

# Failed logins of an account or an address, by a digest of its name; forgotten after a day without one.
failures = sql.Table(
    "login_failures",
    METADATA,
    sql.Column("digest", sql.Text, primary_key=True),
    sql.Column("count", sql.Integer, nullable=False),
    sql.Column("last_at", sql.DateTime, nullable=False),
    sql.Column("until", sql.DateTime, nullable=False),
)

# Logins that were sent to the county's login server and have not come back. `state`: a digest.
departures = sql.Table(
    "login_departures",
    METADATA,
    sql.Column("state", sql.Text, primary_key=True),
    sql.Column("nonce", sql.Text, nullable=False),
    sql.Column("verifier", sql.Text, nullable=False),
    sql.Column("ends_at", sql.DateTime, nullable=False),
)

# What other systems call with. `scopes`: names with spaces between.
tokens = sql.Table(
    "tokens",
    METADATA,
    sql.Column("id", KEY, primary_key=True),
    sql.Column("digest", sql.Text, nullable=False),
    sql.Column("account_id", KEY, sql.ForeignKey("accounts.id"), nullable=False),
    sql.Column("scopes", sql.Text, nullable=False),
    sql.Column("created_at", sql.DateTime, nullable=False),
    sql.Column("ends_at", sql.DateTime, nullable=False),
    sql.Column("revoked_at", sql.DateTime),
    sql.UniqueConstraint("digest"),
    sql.Index(None, "account_id"),
)

# Signed calls that were taken once and are not taken again while they are valid.
calls_taken = sql.Table(
    "calls_taken",
    METADATA,
    sql.Column("issuer", sql.Text, primary_key=True),
    sql.Column("jti", sql.Text, primary_key=True),
    sql.Column("ends_at", sql.DateTime, nullable=False),
)

# Who did what, with whose record, when, from where, why. Rows are added, never changed (triggers of the migration see
# to that); `digest` covers the row and the digest before it. `who` and `whose` are numbers: no names of residents.
audit = sql.Table(
    "audit",
    METADATA,
    sql.Column("id", KEY, primary_key=True, autoincrement=False),
    sql.Column("at", sql.DateTime, nullable=False),
    sql.Column("who", KEY),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("role", sql.Text, nullable=False),
    sql.Column("via", sql.Text, nullable=False),
    sql.Column("action", sql.Text, nullable=False),
    sql.Column("allowed", sql.Boolean, nullable=False),
    sql.Column("whose", KEY),
    sql.Column("panel", KEY),
    sql.Column("address", sql.Text, nullable=False),
    sql.Column("why", sql.Text, nullable=False),
    sql.Column("digest", sql.Text, nullable=False),
    sql.Index(None, "whose"),
    sql.Index(None, "at"),
)

# Where the beginning of the audit was cut off by the rule for keeping it: the last row that went, and its digest.
audit_cuts = sql.Table(
    "audit_cuts",
    METADATA,
    sql.Column("last_id", KEY, primary_key=True, autoincrement=False),
    sql.Column("digest", sql.Text, nullable=False),
    sql.Column("cut_at", sql.DateTime, nullable=False),
    sql.Column("why", sql.Text, nullable=False),
)
