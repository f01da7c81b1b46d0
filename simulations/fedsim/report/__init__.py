"""Reports: an HTML page for a run, a comparison or a pre-training, and plots."""

from fedsim.report.comparison import write_comparison
from fedsim.report.figures import write_figures
from fedsim.report.model import (
    Arm,
    Comparison,
    DataFacts,
    ModelFacts,
    PlantFacts,
    ReportedPrediction,
    ReportedRun,
    RunSummary,
)
from fedsim.report.page import write_report
from fedsim.report.pretraining import PretrainEpoch, PretrainSummary, write_pretrain_report
from fedsim.report.reading import load_comparison, load_run

__all__ = [
    "Arm",
    "Comparison",
    "DataFacts",
    "ModelFacts",
    "PlantFacts",
    "PretrainEpoch",
    "PretrainSummary",
    "ReportedPrediction",
    "ReportedRun",
    "RunSummary",
    "load_comparison",
    "load_run",
    "write_comparison",
    "write_figures",
    "write_pretrain_report",
    "write_report",
]
