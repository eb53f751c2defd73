"""The login that ``secrets.toml`` requires: whether there is one, who may log in, and the reviewer's name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import streamlit as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from streamlit import config

from core.runtime.errors import UserError

CLAIMS = ("name", "preferred_username", "email", "sub")
"""Claims of OpenID Connect that name a person; the first one that is given becomes the reviewer. ``sub`` always is."""
CALLBACK = "/oauth2callback"
_MIN_SECRET = 32
INSTALL = "Install what it needs: pip install -r requirements-login.txt"
FIX = "Correct [auth] in secrets.toml (docs/security.md), then start the dashboard again."


class _Auth(BaseModel):
    """What TaskLens needs of ``[auth]``; Streamlit checks the rest at the login."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    redirect_uri: str = Field(pattern=f"^https?://.+{CALLBACK}$")
    cookie_secret: str = Field(min_length=_MIN_SECRET)


class LoginSettings(BaseModel):
    """The table ``[tasklens]`` of ``secrets.toml``.

    Attributes:
        reviewer_claim: The claim that names the reviewer; empty: the first given one of :data:`CLAIMS`.
        allowed_emails: Addresses (``ann@example.org``) and domains (``@example.org``) that may log in; empty: everybody
            with an account at the provider.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reviewer_claim: str = ""
    allowed_emails: tuple[str, ...] = ()


def login_settings() -> LoginSettings | None:
    """Return the settings of the login; None if ``secrets.toml`` requires none.

    A file that is there and cannot be read is an error: without it, a slip of the keyboard would open the dashboard to
    everybody.

    Raises:
        UserError: the file cannot be read, or its login is incomplete.
    """
    paths = [os.fspath(path) for path in config.get_option("secrets.files")]
    if not any(os.path.lexists(path) for path in paths):
        return None
    try:
        secrets = st.secrets.to_dict()
    except (OSError, ValueError) as error:  # Streamlit itself takes such a file for none
        raise UserError(f"The login is not known: {', '.join(paths)} cannot be read ({error}).", FIX) from error
    if "auth" not in secrets:
        return None
    try:
        _Auth.model_validate(secrets["auth"])
        return LoginSettings.model_validate(secrets.get("tasklens", {}))
    except ValidationError as error:
        fields = "; ".join(
            f"{'.'.join(str(part) for part in one['loc']) or 'the table'}: {one['msg']}"
            for one in error.errors(include_input=False)  # which may be a secret
        )
        raise UserError(f"The login in secrets.toml is incomplete: {fields}.", FIX) from None


def is_login_configured() -> bool:
    """Return whether every page requires a login, or would, if ``secrets.toml`` could be read."""
    try:
        return login_settings() is not None
    except UserError:
        return True


def reviewer_name(user: Mapping[str, Any], settings: LoginSettings) -> str:
    """Return the reviewer of a user who has logged in; never empty, as an empty name could be typed over.

    Args:
        user: The claims of the provider.

    Raises:
        UserError: the user is not among ``allowed_emails``, or the provider does not give ``reviewer_claim``.
    """
    if settings.allowed_emails and not _is_allowed(user, settings.allowed_emails):
        raise UserError(
            "This account may not use the dashboard: its e-mail address is not in allowed_emails, or is unconfirmed.",
            "Log out and use another account, or ask the administrator of the dashboard.",
        )
    claims = [settings.reviewer_claim] if settings.reviewer_claim else CLAIMS
    for claim in claims:
        value = user.get(claim)
        if isinstance(value, str) and (name := " ".join("".join(filter(_is_visible, value)).split())):
            return name
    raise UserError(
        f"The provider of the login does not give the claim {', '.join(claims)}.",
        "Set reviewer_claim of [tasklens] in secrets.toml to a claim that it gives.",
    )


def _is_visible(character: str) -> bool:
    return character.isprintable() or character.isspace()


def _is_allowed(user: Mapping[str, Any], allowed: tuple[str, ...]) -> bool:
    """Return whether a user's address is listed; one that the provider calls unconfirmed may be anybody's."""
    address = user.get("email")
    if not isinstance(address, str) or user.get("email_verified", True) is not True:
        return False
    address = address.strip().lower()
    person, at, domain = address.rpartition("@")
    return bool(person) and any(entry.strip().lower() in (address, at + domain) for entry in allowed)
