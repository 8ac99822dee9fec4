#!/usr/bin/env python3
"""Runs one module of end-to-end tests: run_tests.py MODULE. Reports its cases in GoogleTest's XML form to the directory that
GTEST_OUTPUT names (xml:DIR/), so that tools/run-tests counts them one by one."""
import os
import sys
import time
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


class RecordingResult(unittest.TextTestResult):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.cases = []
        self.started = 0.0

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()

    def _record(self, test, problem=None, skipped=None):
        names = test.id().split(".")
        self.cases.append((names[-2], names[-1], time.monotonic() - self.started, problem, skipped))

    def addSuccess(self, test):
        super().addSuccess(test)
        self._record(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._record(test, problem=self._exc_info_to_string(err, test))

    def addError(self, test, err):
        super().addError(test, err)
        self._record(test, problem=self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._record(test, skipped=reason)


def write_report(path, cases):
    root = ElementTree.Element("testsuites")
    for suite, name, seconds, problem, skipped in cases:
        status = "notrun" if skipped else "run"
        case = ElementTree.SubElement(root, "testcase", classname=suite, name=name, time=f"{seconds:.3f}", status=status)
        if problem:
            ElementTree.SubElement(case, "failure", message=problem)
        if skipped:
            case.set("result", "skipped")
            ElementTree.SubElement(case, "skipped", message=skipped)
    ElementTree.ElementTree(root).write(path)


def main():
    module = sys.argv[1]
    suite = unittest.defaultTestLoader.loadTestsFromName(module)
    result = unittest.TextTestRunner(resultclass=RecordingResult, verbosity=2).run(suite)
    output = os.environ.get("GTEST_OUTPUT", "")
    if output.startswith("xml:"):
        write_report(Path(output.removeprefix("xml:")) / f"{module}.xml", result.cases)
    return 0 if result.wasSuccessful() and result.cases else 1


if __name__ == "__main__":
    sys.exit(main())
