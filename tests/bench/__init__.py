"""`make bench`: the figures that the project promises, measured side by side with what they are compared to."""
