"""GitHub releases over its REST API: `api` sends requests, `releases` knows what they mean."""
