"""The paper's whole comparison: a plan of rows, a runner that makes them, a report beside the paper's numbers."""
