"""Profiles and models in, help for people out: the top floor of Weibing."""
