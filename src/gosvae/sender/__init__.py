"""Sender, which reads pictures, codes them, and sends them over gRPC or UDP."""
