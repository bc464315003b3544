"""Browsers sign in: with a token, a password or at the identity provider; then a cookie says who they are.

A session is a row in Postgres: it ends when it is ended, on every server. The cookie holds its secret, of which only
the hash is kept; it is for our own pages alone (`cookies`).
"""
