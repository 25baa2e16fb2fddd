"""Programs that play other packages' environments, run by their path where those are installed."""
