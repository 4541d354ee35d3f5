"""Receiver that decodes frames of many senders, shows them to the expert, and answers them."""
