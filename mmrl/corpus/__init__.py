"""Files of any common layout -> rows by number, and what a row asks, shows and answers."""
