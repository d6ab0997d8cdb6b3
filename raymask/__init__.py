"""Crops to backbone: masks, models, losses, the loop, evaluation, export, report, the command line."""

__version__ = "0.1.0"
