"""What records say together: ranked tables, and how they are written."""
