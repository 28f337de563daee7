"""lighteval: `metrics=[math_verifier]` in a task's configuration. Looked at with lighteval 0.13.0."""

from statistics import fmean
from typing import Any

import numpy as np
from lighteval.metrics.metrics_sample import SampleLevelComputation  # pyright: ignore[reportMissingImports]
from lighteval.metrics.utils.metric_utils import SampleLevelMetric  # pyright: ignore[reportMissingImports]
from lighteval.tasks.requests import SamplingMethod  # pyright: ignore[reportMissingImports]

from trl_hybrid.adapters import judge_by_any


class VerifierComputation(SampleLevelComputation):
    """The share of a sample's answers that are right, by any of its golds."""

    def compute(self, doc: Any, model_response: Any, **kwargs: Any) -> float:
        """Judge the answers to one document; NaN, which the mean leaves out, where no gold can be judged."""
        verdicts = [judge_by_any(text, doc.get_golds(), doc.query) for text in model_response.final_text or [None]]
        right = [float(verdict.correct) for verdict in verdicts if verdict.correct is not None]
        return fmean(right) if right else float("nan")


math_verifier = SampleLevelMetric(
    metric_name="math_verifier",
    higher_is_better=True,
    category=SamplingMethod.GENERATIVE,
    sample_level_fn=VerifierComputation(),
    corpus_level_fn=np.nanmean,
)
