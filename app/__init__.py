"""The stream side of the A4CO marketplace: what the application is. Start reading at main.py."""
