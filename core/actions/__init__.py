"""Implement the actions on a workspace; the command line and the pages call these and no lower layer."""
