"""Accounts and tokens as an operator reads them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from serving.security.accounts import Account
from serving.security.tokens import Token


def listing(accounts: Sequence[Account], tokens: Sequence[Token], now: datetime) -> dict[str, Any]:
    """Return what there is, without any secret, ready for JSON."""
    return {
        "accounts": [
            {
                "name": account.name,
                "label": account.label,
                "role": account.role,
                "login": _login(account),
                "disabled": account.disabled_at is not None,
            }
            for account in accounts
        ],
        "tokens": [
            {
                "id": token.id,
                "account": token.account,
                "scopes": sorted(token.scopes),
                "until": token.ends_at.isoformat(),
                "valid": token.revoked_at is None and token.ends_at > now,
            }
            for token in tokens
        ],
    }


def text(found: dict[str, Any]) -> str:
    """Say it in lines."""
    accounts = [
        f"{one['name']:<24} {one['role']:<14} {'disabled' if one['disabled'] else one['login']}"
        for one in found["accounts"]
    ]
    tokens = [
        f"token {one['id']:<5} {one['account']:<24} {' '.join(one['scopes'])}, "
        f"{'until ' + one['until'][:10] if one['valid'] else 'ended'}"
        for one in found["tokens"]
    ]
    return "\n".join([*accounts, *tokens]) or "There is no account yet. Add one with: weibing users add"


def _login(account: Account) -> str:
    if account.role == "system":
        return "tokens"
    if not account.local:
        return "login server"
    return "password and code" if account.with_code else "password"
