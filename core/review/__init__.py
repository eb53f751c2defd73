"""Finding wrong labels: what looks wrong, how sure that is, and what reviewers make of it."""
