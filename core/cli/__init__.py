"""The command line, which does everything that the pages do and runs their background jobs.

Progress goes to stderr, paths of results to stdout. Exit codes: 0 done; 2 invalid input (the last line of stderr says
what is wrong and what to do); 130 or 143 cancelled (completed work is saved); 1 anything else.

Under ``torchrun`` several processes run one command together (docs/scale.md); only rank 0 prints.
"""

from core.cli.app import main

__all__ = ["main"]
