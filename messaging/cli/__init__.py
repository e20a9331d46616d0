"""The command line: one file per noun. `app.py` puts them together; `main` there is the entry point."""
