"""Where stages run: processes on machines, the order of starting them, and what people see."""
