"""Archives of what the platform keeps: written while it runs, checked before anything is touched, put back whole.

`app/cli/backup.py` is the command; `python -m app.backup` is what its Jobs in the cluster run, each beside one volume.
"""
