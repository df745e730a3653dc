"""What an activation does to a signal, on paper: its function, its gain, its flat ends, its edge of chaos."""
