"""Sender that reads and codes pictures and sends them over gRPC or UDP."""
