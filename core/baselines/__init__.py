"""Baselines: published methods for scoring training tasks and images, by their authors' or reference libraries.

They need ``requirements-baselines.txt``; a library is imported only when its method runs. Task scores are float64
``(N, T)``: N training tasks and T held-out tasks, both in the order of their lists. **Positive is helpful** (without
the training task the held-out task's loss would be higher), negative is harmful.
"""
