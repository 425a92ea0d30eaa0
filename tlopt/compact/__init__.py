"""The cost of a trained network in use: parameters, multiply-adds, bytes, latency."""
