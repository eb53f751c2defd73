"""What the command that starts the dashboard and the dashboard itself agree on: the token and the local names."""

TOKEN_VARIABLE = "TASKLENS_TOKEN"
"""Environment variable with the token of the dashboard; other users of a machine cannot read it, unlike arguments."""
TOKEN_PARAMETER = "token"
"""The query parameter that carries the token in the address that is printed and opened."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names under which a browser on the same machine reaches the dashboard."""
WILDCARDS = ("", "0.0.0.0", "::")
"""Addresses to listen on that mean all addresses of the machine."""
