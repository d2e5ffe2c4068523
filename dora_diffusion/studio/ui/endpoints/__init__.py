"""The endpoints for programs, by what they are about, and what stands between them and a request."""
