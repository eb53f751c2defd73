"""Other people's ways to rate training tasks and images, by their own libraries, to compare ours with.

They need ``requirements-baselines.txt``; no module here imports its library before it is used. Task scores are
float64 ``(N, T)``: N training tasks and T held-out tasks, both in the order of their lists. **Positive is
helpful** (without the training task the held-out task's loss would be higher), negative is harmful.
"""
