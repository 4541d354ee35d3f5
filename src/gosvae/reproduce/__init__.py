"""Reproduction of the paper's comparison: a plan of rows, a runner that makes them, and a report."""
