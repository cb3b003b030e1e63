"""Check what is published as somebody would who trusts nothing but the keys."""
