"""Who owns the optimiser: one process (`local`), or many through DeepSpeed."""
