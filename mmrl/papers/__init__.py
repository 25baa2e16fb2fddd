"""Systems of papers, a configuration each: what there is, its small form, and whether it runs."""
