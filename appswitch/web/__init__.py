"""What `serve --http` serves: the map's page and what it asks for, metrics, health.

A face: it asks what the command line asks (edge/questions.py), and changes nothing. Nothing of this is imported where
`--http` isn't given.
"""
