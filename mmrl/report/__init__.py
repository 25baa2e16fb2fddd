"""`report.html`: one self-contained page about a run, for a browser with no network."""

from mmrl.report.page import render, write_report, write_until_it_ends

__all__ = ["render", "write_report", "write_until_it_ends"]
