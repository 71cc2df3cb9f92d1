"""``CodeProvider`` over HTTP: the sms4sats API as its reference and its public clients show it."""
