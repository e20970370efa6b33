"""One file per topic of security; docs/threat-model.md says which threat each test is about."""
