"""Numbers of ``faults.c``: kinds of calls, and what happens at the chosen one."""

OPEN, WRITE, SYNC, RENAME, FOLDER, DELETE = 1, 2, 4, 8, 16, 32
ALL = 63
WITHOUT_DELETE = ALL - DELETE  # a full or faulty disk still deletes
FAIL, END_BEFORE, END_AFTER = 0, 1, 2
