"""A sender: pictures are read, coded and sent over gRPC or UDP."""
