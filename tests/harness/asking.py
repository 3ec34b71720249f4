"""Requests of tests that keep no client: they share what a client of httpx reads when it is made.

That takes 30 ms of a processor, and tests that wait for a server ask many times a second.
"""

from functools import partial

import httpx

TRUST = httpx.create_ssl_context()
"""The certificates that httpx trusts; for clients that live for a few requests."""

get = partial(httpx.get, verify=TRUST)
post = partial(httpx.post, verify=TRUST)
put = partial(httpx.put, verify=TRUST)
delete = partial(httpx.delete, verify=TRUST)
request = partial(httpx.request, verify=TRUST)
