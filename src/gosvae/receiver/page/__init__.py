"""The live page of a receiver: what it shows, and the web server behind it."""
