"""Receiver, which decodes the frames of many senders, runs the expert on them, and answers them."""
