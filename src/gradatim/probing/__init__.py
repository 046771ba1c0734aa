"""Pictures and probes of what was learnt."""
