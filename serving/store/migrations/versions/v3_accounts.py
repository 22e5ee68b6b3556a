"""Accounts, sessions, API tokens, and the audit, to which rows can only be added."""

import sqlalchemy as sql
from alembic import op

revision = "3"
down_revision = "2"
branch_labels = None
depends_on = None

KEY = sql.BigInteger().with_variant(sql.Integer(), "sqlite")

TABLES = (
    "audit_cuts", "audit", "calls_taken", "tokens", "login_departures", "login_failures", "sessions", "accounts",
)  # fmt: skip

NEVER = "rows of the audit are never changed"
KEPT = "rows of the audit are kept until they are cut off by rule"
LAST_CUT = "(SELECT coalesce(max(last_id), 0) FROM audit_cuts)"

SQLITE = (
    f"CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, '{NEVER}'); END",
    f"CREATE TRIGGER audit_kept BEFORE DELETE ON audit WHEN OLD.id > {LAST_CUT} "
    f"BEGIN SELECT RAISE(ABORT, '{KEPT}'); END",
    f"CREATE TRIGGER audit_cuts_unchanged BEFORE UPDATE ON audit_cuts BEGIN SELECT RAISE(ABORT, '{NEVER}'); END",
    f"CREATE TRIGGER audit_cuts_kept BEFORE DELETE ON audit_cuts BEGIN SELECT RAISE(ABORT, '{NEVER}'); END",
)
POSTGRESQL = (
    f"CREATE FUNCTION audit_unchanged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{NEVER}'; END $$",
    f"CREATE FUNCTION audit_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"IF OLD.id > {LAST_CUT} THEN RAISE EXCEPTION '{KEPT}'; END IF; RETURN OLD; END $$",
    "CREATE TRIGGER audit_unchanged BEFORE UPDATE OR TRUNCATE ON audit EXECUTE FUNCTION audit_unchanged()",
    "CREATE TRIGGER audit_kept BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_kept()",
    "CREATE TRIGGER audit_cuts_unchanged BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_cuts "
    "EXECUTE FUNCTION audit_unchanged()",
)


def upgrade() -> None:
    """Make the tables, and the triggers that keep the audit."""
    _accounts()
    _comings_and_goings()
    _audit()
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def _accounts() -> None:
    op.create_table(
        "accounts",
        sql.Column("id", KEY, nullable=False),
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
        sql.PrimaryKeyConstraint("id", name="pk_accounts"),
        sql.UniqueConstraint("name", name="uq_accounts_name"),
        sql.UniqueConstraint("issuer", "subject", name="uq_accounts_issuer_subject"),
    )
    op.create_table(
        "tokens",
        sql.Column("id", KEY, nullable=False),
        sql.Column("digest", sql.Text, nullable=False),
        sql.Column("account_id", KEY, nullable=False),
        sql.Column("scopes", sql.Text, nullable=False),
        sql.Column("created_at", sql.DateTime, nullable=False),
        sql.Column("ends_at", sql.DateTime, nullable=False),
        sql.Column("revoked_at", sql.DateTime),
        sql.PrimaryKeyConstraint("id", name="pk_tokens"),
        sql.UniqueConstraint("digest", name="uq_tokens_digest"),
        sql.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_tokens_account_id"),
    )
    op.create_index("ix_tokens_account_id", "tokens", ["account_id"])


def _comings_and_goings() -> None:
    op.create_table(
        "sessions",
        sql.Column("digest", sql.Text, nullable=False),
        sql.Column("account_id", KEY, nullable=False),
        sql.Column("whole", sql.Boolean, nullable=False),
        sql.Column("begun_at", sql.DateTime, nullable=False),
        sql.Column("seen_at", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("digest", name="pk_sessions"),
        sql.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_sessions_account_id"),
    )
    op.create_index("ix_sessions_account_id", "sessions", ["account_id"])
    op.create_table(
        "login_failures",
        sql.Column("digest", sql.Text, nullable=False),
        sql.Column("count", sql.Integer, nullable=False),
        sql.Column("last_at", sql.DateTime, nullable=False),
        sql.Column("until", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("digest", name="pk_login_failures"),
    )
    op.create_table(
        "login_departures",
        sql.Column("state", sql.Text, nullable=False),
        sql.Column("nonce", sql.Text, nullable=False),
        sql.Column("verifier", sql.Text, nullable=False),
        sql.Column("ends_at", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("state", name="pk_login_departures"),
    )
    op.create_table(
        "calls_taken",
        sql.Column("issuer", sql.Text, nullable=False),
        sql.Column("jti", sql.Text, nullable=False),
        sql.Column("ends_at", sql.DateTime, nullable=False),
        sql.PrimaryKeyConstraint("issuer", "jti", name="pk_calls_taken"),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sql.Column("id", KEY, autoincrement=False, nullable=False),
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
        sql.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_whose", "audit", ["whose"])
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_table(
        "audit_cuts",
        sql.Column("last_id", KEY, autoincrement=False, nullable=False),
        sql.Column("digest", sql.Text, nullable=False),
        sql.Column("cut_at", sql.DateTime, nullable=False),
        sql.Column("why", sql.Text, nullable=False),
        sql.PrimaryKeyConstraint("last_id", name="pk_audit_cuts"),
    )


def downgrade() -> None:
    """Drop them, and what is in them."""
    for table in TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_unchanged")
        op.execute("DROP FUNCTION audit_kept")
