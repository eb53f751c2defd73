"""What a person asks of a workspace. The command line and the pages call these and nothing below them."""
