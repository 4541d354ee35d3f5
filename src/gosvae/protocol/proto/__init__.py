"""The service of a receiver as Protocol Buffers: `link.proto`, and what `scripts/generate-proto.sh` makes of it."""
