"""Protocol of senders and receivers: messages of gRPC, class maps, addresses, tokens and certificates."""
