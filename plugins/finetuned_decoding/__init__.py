"""Decoding: what turns a model's weights into tokens, shared by the plugins that generate."""
