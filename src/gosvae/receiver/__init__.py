"""A receiver: frames of many senders are decoded, shown to the expert, and answered."""
