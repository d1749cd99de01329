"""What the commands of `a4co` do. How they are called is in app/cli.py."""
