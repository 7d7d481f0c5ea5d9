"""Reference encoders and the internal one behind the `Encoder` protocol: one vector per sample."""
