"""How good is a backbone: k-NN, linear probe, and label-free health of frozen features."""

from raymask.evaluate.protocol import Evaluation, evaluate, evaluate_pixels, open_evaluation
from raymask.evaluate.runs import evaluate_run
from raymask.evaluate.settings import Evaluate

__all__ = ["Evaluate", "Evaluation", "evaluate", "evaluate_pixels", "evaluate_run", "open_evaluation"]
