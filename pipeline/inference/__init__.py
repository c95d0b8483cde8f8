"""A scene through a network: options, compatibility, plan, halo, prediction of one block; durable or lazy."""
