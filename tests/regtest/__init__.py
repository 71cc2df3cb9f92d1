"""Real btcd and lnd nodes on the loopback, for the integration and contract tests, the bench and `scripts/regtest`."""
