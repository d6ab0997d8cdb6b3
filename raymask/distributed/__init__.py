"""Where Ray carries a run: workers, trials and jobs. Nothing else in raymask imports Ray.

The run directory stays the one source of truth: Ray starts processes and watches them, while checkpoints,
metrics and the data's position are the run's own, the same as in a plain process.
"""
