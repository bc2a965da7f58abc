"""`focus demo`: the paper's experiment in minutes.

Four methods go on from one initial network, live, on synthetic faces; then they and the mean face are compared on a
held-out test set.
"""

from focus.demo.run import TEST_FACES, DemoResult, DemoSettings, run_demo

__all__ = ["TEST_FACES", "DemoResult", "DemoSettings", "run_demo"]
