"""What serves the dashboard: the ASGI door, the token, the files of the app."""
