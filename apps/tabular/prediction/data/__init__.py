"""Files to tables, and tables to the numbers the model reads."""
