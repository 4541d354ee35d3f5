"""What a sender and a receiver agree on: messages of gRPC, class maps, addresses, tokens and certificates."""
