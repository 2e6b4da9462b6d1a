"""Sessions as pages: an ASGI application, which alone knows Starlette and Jinja2."""
