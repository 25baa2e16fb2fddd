"""What answers the model's turns: tools that look at pictures, and environments that are alive."""
