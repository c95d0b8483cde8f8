"""A scene through a network: options, plan, halo, prediction of one block; durable or lazy."""
